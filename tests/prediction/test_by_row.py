"""Embedding rows to predictions, without a cluster."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from fitting import SMALL

from urgency_ray.config import ModelConfig
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.prediction.by_row import OUTPUT_SCHEMA, Classify
from urgency_ray.schema import ACOUSTIC_FEATURES, embedding_schema


def make_rows(first_value: float) -> pa.Table:
    """Three calls: two embedded, of which the first has `first_value` everywhere, and a reject."""
    schema, rng = embedding_schema(6, 5), np.random.default_rng(0)
    rows = []
    for call in "abc":
        row = dict.fromkeys(schema.names) | {"call_id": call, "example_id": call, "provider_split": "unknown"}
        row |= {"status": "embedded", "audio_embedding": rng.standard_normal(6), "text_embedding": rng.standard_normal(5)}
        rows.append(row | dict.fromkeys(ACOUSTIC_FEATURES, 1.0))
    rows[0]["audio_embedding"] = [first_value] * 6
    rows[2] |= {"status": "rejected", "reason": "no_text", "detail": "why", "audio_embedding": None, "text_embedding": None}
    return pa.Table.from_pylist(rows, schema)


def test_a_row_whose_probabilities_are_not_finite_is_a_reject_and_no_call_of_the_least_urgency() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {name.split(".")[1]: value for name, value in SMALL.items() if name.startswith("model.")}
    classify = Classify(UrgencyClassifier(ModelConfig(**sizes), 6, 5), print)
    healthy, broken = (classify(make_rows(value)) for value in (0.5, 3e38))  # finite, and too much for float32 in any product
    assert broken.schema.equals(OUTPUT_SCHEMA)
    assert [row["reason"] for row in healthy.to_pylist()] == [None, None, "no_text"]
    first, *others = broken.to_pylist()
    assert others == healthy.to_pylist()[1:]
    assert (first["reason"], first["detail"]) == ("invalid_probability", "the classifier gave NaN or infinite values")
    assert [first[name] for name in ("urgency_pred", "prob_low", "prob_mid", "prob_high")] == [None] * 4
