"""A saved model over embedding rows of new calls, where a row is an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.embedding.rows import embedded_rows, read_inputs
from urgency_ray.errors import Reason
from urgency_ray.examples.tokens import tokenize
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.model.load import Model
from urgency_ray.schema import PREDICTION_SCHEMA, URGENCY_KEYS

OUTPUT_SCHEMA = pa.schema([*PREDICTION_SCHEMA, pa.field("reason", pa.string()), pa.field("detail", pa.string())])
"""`PREDICTION_SCHEMA` and, for rejected calls, why."""

NOT_FINITE = "the classifier gave NaN or infinite values"


class Classify:
    """Ray Data stage around a classifier: embedding rows to rows of `OUTPUT_SCHEMA`.

    Args:
        model: the classifier.
        send: told the tokens cut off each transcript, (N,), where the model reads transcripts.
    """

    def __init__(self, model: Model, send: Callable[[Any], None]) -> None:
        self.model = model
        self.send = send

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = embedded_rows(table)
        size = len(table)
        probs = np.zeros((size, len(URGENCY_KEYS)), np.float32)
        missing = np.ones(size, bool)
        missing[rows] = False
        if len(rows):
            heard = table.take(pa.array(rows))
            tokens = None
            if self.model.tokenizer is not None:
                tokens, num_cut = tokenize(self.model.tokenizer, heard["text"])
                self.send(num_cut)
            probs[rows] = predict_probabilities(self.model, *read_inputs(heard), tokens)["urgency"]
        # NaN has a largest class, too, the least urgent one: no prediction is made of it.
        broken = ~np.isfinite(probs).all(axis=1)
        missing |= broken
        columns = {
            "example_id": table["example_id"],
            "call_id": table["call_id"],
            "split": pa.array(["new"] * size),
            "urgency": table["urgency"],
            "urgency_pred": pa.array(probs.argmax(axis=1).astype(np.int8), mask=missing),
            **{f"prob_{key}": pa.array(probs[:, index], mask=missing) for index, key in enumerate(URGENCY_KEYS)},
            "reason": pc.if_else(pa.array(broken), Reason.INVALID_PROBABILITY.value, table["reason"]),
            "detail": pc.if_else(pa.array(broken), NOT_FINITE, table["detail"]),
        }
        return pa.table(columns, schema=OUTPUT_SCHEMA)
