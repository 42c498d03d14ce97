"""What a hierarchical model says of new calls: utterance rows to a row a call, with the utterances that drove the decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.embedding.rows import embedded_rows, read_inputs
from urgency_ray.errors import Reason
from urgency_ray.examples.utterances import group_utterances
from urgency_ray.model.inference import explain_probabilities
from urgency_ray.model.load import Model
from urgency_ray.prediction.by_row import NOT_FINITE
from urgency_ray.schema import ACOUSTIC_FEATURES, PREDICTION_SCHEMA, URGENCY_KEYS

HEARD_FIELDS: tuple[pa.Field, ...] = (
    pa.field("utterance_id", pa.string()),
    pa.field("start_ms", pa.int64()),
    pa.field("end_ms", pa.int64()),
    pa.field("speaker", pa.int8()),
    pa.field("weight", pa.float32()),
)

CALL_OUTPUT_SCHEMA = pa.schema(
    [
        *PREDICTION_SCHEMA,
        pa.field("num_utterances", pa.int32()),
        pa.field("num_utterances_rejected", pa.int32()),
        *(pa.field(f"top_{field.name}", field.type) for field in HEARD_FIELDS),
        pa.field("attention", pa.list_(pa.struct(HEARD_FIELDS))),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""A row a call. `attention` lists its embedded utterances in their order, with weights that sum to 1; `top_*` is the one that
weighs most. Of the call's utterances, `num_utterances_rejected` could not be embedded and had no say. No words of any."""

_ROW_COLUMNS = ("call_id", "example_id", "utterance_id", "start_ms", "end_ms", "speaker", "urgency", "reason", "detail")
_COLUMNS = (*_ROW_COLUMNS, "num_call_rows", "status", *ACOUSTIC_FEATURES, "audio_embedding", "text_embedding")


def whole_calls(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Embedding rows as they stream, in any order, to tables of calls that have all their rows, sorted by call and id.

    Rows wait until the last of their call has come, so memory holds the calls that are under way, not the corpus. A call that
    lacks a row at the end is not given out.
    """
    waiting: pa.Table | None = None
    for table in tables:
        rows = table.select(_COLUMNS)
        rows = rows if waiting is None else pa.concat_tables([waiting, rows])
        counts = rows.group_by("call_id").aggregate([("num_call_rows", "max"), ("num_call_rows", "count")])
        whole = counts.filter(pc.equal(counts["num_call_rows_max"], counts["num_call_rows_count"]))["call_id"]
        has_all = pc.is_in(rows["call_id"], whole.combine_chunks())
        waiting = rows.filter(pc.invert(has_all)).combine_chunks()
        if len(whole):
            yield rows.filter(has_all).sort_by([("call_id", "ascending"), ("example_id", "ascending")])


def classify_calls(model: Model, table: pa.Table) -> pa.Table:
    """Rows of whole calls, as `whole_calls` gives them, to a row of `CALL_OUTPUT_SCHEMA` a call.

    A call none of whose utterances is embedded has no prediction, and its first row's reason; one whose probabilities are not
    finite is a reject, too.
    """
    frame = table.select(_ROW_COLUMNS).to_pandas()
    call, names = pd.factorize(frame["call_id"])
    size = len(names)
    first = np.searchsorted(call, np.arange(size))
    rows = embedded_rows(table)
    num_heard = np.bincount(call[rows], minlength=size)
    missing = num_heard == 0
    probs = np.zeros((size, len(URGENCY_KEYS)), np.float32)
    heard = frame.iloc[rows].assign(weight=np.zeros(len(rows), np.float32))
    if len(rows):
        inputs = read_inputs(table.take(pa.array(rows)))
        by_task, weights = explain_probabilities(model, *inputs, group_utterances(heard))
        probs[~missing] = by_task["urgency"]
        heard["weight"] = weights
    broken = ~np.isfinite(probs).all(axis=1)
    missing |= broken
    said = {"reason": Reason.INVALID_PROBABILITY.value, "detail": NOT_FINITE}
    outcome = {name: frame[name].iloc[first].where(missing).mask(broken, words) for name, words in said.items()}
    fields = {field.name: pa.array(heard[field.name], field.type, from_pandas=True) for field in HEARD_FIELDS}
    offsets = np.concatenate([[0], np.cumsum(num_heard)]).astype(np.int32)
    attention = pa.StructArray.from_arrays(list(fields.values()), fields=list(HEARD_FIELDS))
    heaviest = np.zeros(size, np.int64)
    is_heard = num_heard > 0
    heaviest[is_heard] = np.lexsort((-heard["weight"], call[rows]))[offsets[:-1][is_heard]]
    top = pa.array(heaviest, mask=missing)
    is_utterance = frame["utterance_id"].notna().to_numpy()
    num_utterances = np.bincount(call[is_utterance], minlength=size)
    columns = {
        "example_id": names,
        "call_id": names,
        "split": pa.array(["new"] * size),
        "urgency": table["urgency"].take(pa.array(first)),
        "urgency_pred": pa.array(probs.argmax(axis=1).astype(np.int8), mask=missing),
        **{f"prob_{key}": pa.array(probs[:, index], mask=missing) for index, key in enumerate(URGENCY_KEYS)},
        "num_utterances": num_utterances.astype(np.int32),
        "num_utterances_rejected": (num_utterances - num_heard).astype(np.int32),
        **{f"top_{name}": values.take(top) for name, values in fields.items()},
        "attention": pa.ListArray.from_arrays(pa.array(offsets), attention, mask=pa.array(missing)),
        **{name: pa.array(values, pa.string(), from_pandas=True) for name, values in outcome.items()},
    }
    return pa.table(columns, schema=CALL_OUTPUT_SCHEMA)
