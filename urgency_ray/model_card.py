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
Trunk `{{ model.name }}`, modalities `{{ model.modalities }}`, hidden width {{ model.hidden_dim }}.

## Use

{% if is_imported -%}
It was trained on imported embeddings and does not know what made them: give it embeddings from the same source.

    UrgencyClassifier.from_pretrained("THIS_FOLDER")
{%- else %}    urgency-ray predict --model THIS_FOLDER --data.root NEW_CALLS --output predictions.parquet

The transform that made the training embeddings is kept in `config.json` and applied to new calls:
audio `{{ audio_encoder }}`, text `{{ text_encoder }}`, one row a {{ unit }}.
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
judgement after the fact. Masked private words are not part of the text.

Probabilities are softmax(logits / {{ "%.3f"|format(temperature) }}), the temperature fitted on the validation split \
(`model.probabilities(model(batch))`): {{ calibration }}. They hold for calls like those of \
the training data only.
"""


def write_model_card(path: Path, model: UrgencyClassifier, metrics: dict[str, Any]) -> None:
    """Write the card of `model` with the urgency figures of `metrics` (as in metrics.json)."""
    card = ModelCard.from_template(
        ModelCardData(language="ko", library_name="urgency_ray", tags=["audio-text-classification", "emergency-calls"]),
        template_str=TEMPLATE,
        labels=" < ".join(URGENCY_LABELS),
        model=model.model.model_dump(),
        audio_encoder=model.transform["audio_encoder"]["name"],
        text_encoder=model.transform["text_encoder"]["name"],
        is_imported=model.transform["fingerprint"] is None,
        unit=model.transform["data"]["unit"],
        blocks={name: tasks["urgency"] for name, tasks in metrics["splits"].items()},
        temperature=float(model.temperature[0]),
        calibration="; ".join(
            f"expected calibration error on {name} {tasks['urgency']['expected_calibration_error']:.3f}, "
            f"{tasks['urgency']['expected_calibration_error_uncalibrated']:.3f} without it"
            for name, tasks in metrics["splits"].items()
        ),
        share=lambda value: "-" if value is None else f"{value:.3f}",
    )
    card.save(path)
