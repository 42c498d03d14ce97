"""The README.md of a saved model: data, metrics, intended use, limits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from urgency_ray import storage
from urgency_ray.fingerprint import Fingerprint, Transform
from urgency_ray.model.ensemble import UrgencyEnsemble, describe_members
from urgency_ray.model.layer_weights import name_weights
from urgency_ray.model.load import Model
from urgency_ray.schema import URGENCY_LABELS

TEMPLATE = """---
{{ card_data }}
---

# Urgency of Korean 119 emergency calls

Classifies a call's urgency ({{ labels }}) from the embeddings of its recording and transcript.
{% if members -%}
An ensemble, modalities `{{ model.modalities }}`: {{ members }}. Its probabilities are their weighted mean.
{%- else -%}
Trunk `{{ model.name }}`, modalities `{{ model.modalities }}`, hidden width {{ width }}.
{%- endif %}
{% if finetuned -%}
The text encoder `{{ model.text_encoder }}` was trained as a part of it: it reads the transcript itself, at most
{{ model.max_tokens }} tokens.
{%- endif %}

## Use

{% if is_imported -%}
It was trained on imported embeddings and does not know what made them: give it embeddings from the same source.

{%- else %}    urgency-ray predict --model THIS_FOLDER --data.root NEW_CALLS --output predictions.parquet

The transform that made the training embeddings is kept in `config.json` and applied to new calls.
{%- endif %}
{%- if model.name == "hierarchical" %}

An example is a call. It is classified from its utterances, and `predict` gives the weight of each: its share in the vector that
the decision is made from, within the call. A weight says where the model looked, not that a caller's words were the reason.
{%- endif %}

{% if model.name != "hierarchical" and not finetuned -%}
On embeddings, in Python (float32 tensors, a row an example: {{ widths.audio }} numbers of audio, {{ widths.text }} of text, and
the five acoustic features, as extracted):

    from urgency_ray.model import Batch, {{ kind }}

    model = {{ kind }}.from_pretrained("THIS_FOLDER")
    probabilities = model.probabilities(model(Batch(audio, text, acoustic)))["urgency"]  # of 하, 중, 상

{% endif -%}

## Data

Korean 119 calls, one row a {{ "call" if model.name == "hierarchical" else data.unit }}, the words of \
{{ "the caller" if data.speakers == "caller" else "both speakers" }}. All rows of a call are in one split.

| split | rows | {{ names|join(" | ") }} |
|---|---|{{ "---|" * names|length }}
{% for name, counts in label_counts.items() -%}
| {{ name }} | {{ counts|sum }} | {{ counts|join(" | ") }} |
{% endfor %}
{% if is_imported -%}
The embeddings ({{ widths.audio }} numbers of audio, {{ widths.text }} of text) were imported.
{%- else -%}
| embedding | encoder | revision | weights | pooling | width | reads |
|---|---|---|---|---|---|---|
{% for name, encoder in encoders.items() -%}
| {{ name }} | `{{ encoder.name }}` | {{ encoder.revision or "default" }} | {{ encoder.weights }} | {{ encoder.pooling }} \
| {{ widths[name] }} | {{ encoder.reads }} |
{% endfor -%}
{%- endif %}
{% if transcriber %}
The words of {{ "all calls" if transcriber.use == "always" else "calls that came without" }} were written down by \
`{{ transcriber.name }}` (revision {{ transcriber.revision or "default" }}, weights {{ transcriber.weights }}), as `predict` \
does.
{% endif -%}
{% for name, weights in layer_weights.items() %}
Layers of the {{ name }} encoder, by what each weighs (0 is what goes into the first): \
{{ weights }}.

{% endfor -%}
{% if warnings %}
Warnings of the training:

{% for line in warnings -%}
- {{ line }}
{% endfor -%}
{% endif %}
## Figures

{% if members -%}
Each row of val (all that is not test) is judged by the members that have not seen it; the test split was scored once.
{%- else -%}
The best epoch was chosen on the validation split; the test split was scored once.
{%- endif %}

| task | split | rows | macro-F1 | 95 % interval | accuracy | recall of 상 | 상 called 하 |
|---|---|---|---|---|---|---|---|
{% for task, name, block in blocks -%}
| {{ task }} | {{ name }} | {{ block.num_rows }} | {{ "%.3f"|format(block.macro_f1) }} \
| {{ "%.3f to %.3f"|format(*block.macro_f1_interval) }} | {{ "%.3f"|format(block.accuracy) }} \
| {{ share(block.recall_high) }} | {{ share(block.high_called_low) }} |
{% endfor %}
{% if baselines -%}
| baseline on test | macro-F1 | 95 % interval |
|---|---|---|
{% for name, block in baselines.items() -%}
| {{ name }} | {{ "%.3f"|format(block.macro_f1) }} | {{ "%.3f to %.3f"|format(*block.macro_f1_interval) }} |
{% endfor %}
Beside the best of them by cross-validation, {{ against.baseline }}: {{ "%+.3f"|format(against.macro_f1) }} macro-F1 on test \
(95 % {{ "%+.3f to %+.3f"|format(*against.interval) }}), {{ against.verdict|replace("_", " ") }} than it.

{% endif -%}
{% if folds -%}
Cross-validated over {{ folds.each|length }} folds, grouped by call: macro-F1 {{ "%.3f"|format(folds.macro_f1_mean) }} ± \
{{ "%.3f"|format(folds.macro_f1_std) }} (standard deviation), {{ "%.3f"|format(folds.pooled.macro_f1) }} on all \
{{ folds.pooled.num_rows }} rows together.

{% endif -%}
## Intended use and limits

For research on call triage and for decision support under human supervision. It must not decide on its own which call is
answered. It knows the callers, regions, microphones and annotators of its training data only; the labels are one annotator's
judgement after the fact. Masked private words are not part of the text.

Probabilities are softmax(logits / {{ "%.3f"|format(temperature) }}), the temperature fitted on the validation split \
(`model.probabilities(model(batch))`): {{ calibration }}. They hold for calls like those of \
the training data only.
"""


def write_model_card(path: Path, model: Model, metrics: dict[str, Any], counts: dict[str, list[int]]) -> None:
    """Write the card of `model`.

    Args:
        path: where to.
        model: its transform says what made the embeddings.
        metrics: as in metrics.json.
        counts: rows of each urgency class by split, as `dataset.label_counts` gives them.
    """
    transform = Transform.model_validate(model.transform)
    card = ModelCard.from_template(
        ModelCardData(language="ko", library_name="urgency_ray", tags=["audio-text-classification", "emergency-calls"]),
        template_str=TEMPLATE,
        labels=" < ".join(URGENCY_LABELS),
        model=model.config.model_dump(),
        kind=type(model).__name__,
        members=describe_members(model) if isinstance(model, UrgencyEnsemble) else None,
        finetuned=model.tokenizer is not None,
        width=model.width,
        is_imported=transform.fingerprint is None,
        data=transform.data,
        names=URGENCY_LABELS,
        label_counts=counts,
        widths=model.widths,
        layer_weights={
            name: ", ".join(f"{layer}: {weight:.3f}" for layer, weight in weights.items())
            for name, weights in name_weights(model.layer_weights, model.transform).items()
        },
        encoders={} if transform.fingerprint is None else _encoders(transform.fingerprint),
        transcriber=None if transform.fingerprint is None else transform.fingerprint.transcriber,
        warnings=metrics["warnings"],
        blocks=[(task, name, block) for name, tasks in metrics["splits"].items() for task, block in tasks.items()],
        folds=metrics.get("folds"),
        baselines=metrics.get("baselines"),
        against=metrics.get("against_baseline"),
        temperature=float(model.temperature[0]),
        calibration="; ".join(
            f"expected calibration error on {name} {tasks['urgency']['expected_calibration_error']:.3f}, "
            f"{tasks['urgency']['expected_calibration_error_uncalibrated']:.3f} without it"
            for name, tasks in metrics["splits"].items()
        ),
        share=lambda value: "-" if value is None else f"{value:.3f}",
    )
    card.save(path)


def _encoders(fingerprint: Fingerprint) -> dict[str, dict[str, Any]]:
    """What made each embedding, and the longest stretch that it reads at once."""
    audio, text = fingerprint.audio_encoder, fingerprint.text_encoder
    window = audio["window_sec"]
    return {
        "audio": audio | {"reads": "the whole recording" if window is None else f"windows of {window:g} s"},
        "text": text | {"reads": f"at most {text['max_tokens']} tokens"},
    }


def save_model(model: Model, location: str, metrics: dict[str, Any], counts: dict[str, list[int]]) -> None:
    """Write config.json, model.safetensors and the model card to a folder or URI; `counts` as `dataset.label_counts` gives."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        write_model_card(Path(folder) / "README.md", model, metrics, counts)
        storage.copy_dir(folder, location)
