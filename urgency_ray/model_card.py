"""The README.md of a saved model: data, metrics, intended use, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from urgency_ray.model import UrgencyClassifier
from urgency_ray.schema import URGENCY_LABELS

TEMPLATE = """---
{{ card_data }}
---

# Urgency of Korean 119 emergency calls

Classifies a call's urgency ({{ labels }}) from the embeddings of its recording and transcript.
Trunk `{{ model.name }}`, modalities `{{ model.modalities }}`, hidden width {{ width }}.
{% if finetuned -%}
The text encoder `{{ model.text_encoder }}` was trained as a part of it: it reads the transcript itself, at most
{{ model.max_tokens }} tokens.
{%- endif %}

## Use

{% if is_imported -%}
It was trained on imported embeddings and does not know what made them: give it embeddings from the same source.

    UrgencyClassifier.from_pretrained("THIS_FOLDER")
{%- else %}    urgency-ray predict --model THIS_FOLDER --data.root NEW_CALLS --output predictions.parquet

The transform that made the training embeddings is kept in `config.json` and applied to new calls:
audio `{{ audio_encoder }}`, text `{{ text_encoder }}`, one row a {{ unit }}.
{%- endif %}
{%- if model.name == "hierarchical" %}

An example is a call. It is classified from its utterances, and `predict` gives the weight of each: its share in the vector that
the decision is made from, within the call. A weight says where the model looked, not that a caller's words were the reason.
{%- endif %}

## Figures

The best epoch was chosen on the validation split; the test split was scored once.

| split | rows | macro-F1 | 95 % interval | accuracy | recall of 상 | 상 called 하 |
|---|---|---|---|---|---|---|
{% for name, block in blocks.items() -%}
| {{ name }} | {{ block.num_rows }} | {{ "%.3f"|format(block.macro_f1) }} \
| {{ "%.3f to %.3f"|format(*block.macro_f1_interval) }} | {{ "%.3f"|format(block.accuracy) }} \
| {{ share(block.recall_high) }} | {{ share(block.high_called_low) }} |
{% endfor %}
## Intended use and limits

For research on call triage and for decision support under human supervision. It must not decide on its own which call is
answered. It knows the callers, regions, microphones and annotators of its training data only; the labels are one annotator's
judgement after the fact. Probabilities are not calibrated. Masked private words are not part of the text.
"""


def write_model_card(path: Path, model: UrgencyClassifier, metrics: dict[str, Any]) -> None:
    """Write the card of `model` with the urgency figures of `metrics` (as in metrics.json)."""
    card = ModelCard.from_template(
        ModelCardData(language="ko", library_name="urgency_ray", tags=["audio-text-classification", "emergency-calls"]),
        template_str=TEMPLATE,
        labels=" < ".join(URGENCY_LABELS),
        model=model.model.model_dump(),
        finetuned=model.tokenizer is not None,
        width=model.model.hidden_dim if model.model.text_encoder is None else model.trunk.out_dim,
        audio_encoder=model.transform["audio_encoder"]["name"],
        text_encoder=model.transform["text_encoder"]["name"],
        is_imported=model.transform["fingerprint"] is None,
        unit=model.transform["data"]["unit"],
        blocks={name: tasks["urgency"] for name, tasks in metrics["splits"].items()},
        share=lambda value: "-" if value is None else f"{value:.3f}",
    )
    card.save(path)
