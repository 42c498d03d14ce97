"""Rows of calls as they pass through the stages: which are still embedded, their vectors as Arrow columns, rejects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from urgency_ray.errors import Reason
from urgency_ray.schema import ACOUSTIC_FEATURES, Status


def embedded_rows(table: pa.Table) -> NDArray[np.int64]:
    """Positions of the rows that are not rejected, (K,)."""
    return np.flatnonzero(np.asarray(table["status"].to_pylist()) == Status.EMBEDDED)


class Passed(NamedTuple):
    """What some rows have come to.

    Attributes:
        calls: how many; where a call has several rows, each counts as its share of the call.
        audio_sec: embedded audio, in seconds.
        rejected: the calls that are rejected, by reason, counted likewise.
    """

    calls: float
    audio_sec: float
    rejected: dict[str, float]


def count_passed(table: pa.Table) -> Passed:
    """Count the rows of a table with `num_call_rows`, `duration_sec`, `status` and `reason`."""
    shares = 1.0 / table["num_call_rows"].to_numpy()
    rejected: dict[str, float] = {}
    for share, reason in zip(shares.tolist(), table["reason"].to_pylist(), strict=True):
        if reason is not None:
            rejected[reason] = rejected.get(reason, 0.0) + share
    seconds = table["duration_sec"].filter(pc.equal(table["status"], Status.EMBEDDED.value))
    return Passed(float(shares.sum()), float(pc.sum(seconds, min_count=0).as_py()), rejected)


def read_inputs(rows: pa.Table) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What a classifier takes of K embedded rows, at least one: audio (K, A), text (K, T) and acoustic features (K, 5)."""
    audio, text = (
        rows[name].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
        for name in ("audio_embedding", "text_embedding")
    )
    return audio, text, np.stack([rows[name].to_numpy() for name in ACOUSTIC_FEATURES], axis=1)


def finite_rows(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of (K, dim) vectors hold finite numbers alone, (K,); low precision overflows on the odd input."""
    return np.asarray(np.isfinite(vectors).all(axis=1))


def reject_rows(table: pa.Table, rows: NDArray[np.int64], detail: str, reason: Reason = Reason.INVALID_EMBEDDING) -> pa.Table:
    """The table with `rows` rejected."""
    outcome = {"status": Status.REJECTED.value, "reason": reason.value, "detail": detail}
    return put_values(table, rows, {name: [value] * len(rows) for name, value in outcome.items()})


def put_values(table: pa.Table, rows: NDArray[np.int64], columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The table with other values at `rows` (K,) of some of its columns."""
    chosen = np.zeros(len(table), bool)
    chosen[rows] = True
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        column = pc.replace_with_mask(table[name].combine_chunks(), pa.array(chosen), pa.array(values, field.type))
        table = table.set_column(position, field, column)
    return table


def scatter_vectors(rows: NDArray[np.int64], vectors: NDArray[np.float32], size: int, dim: int) -> pa.Array:
    """A fixed_size_list<float32>[dim] column of `size` rows with `vectors` (K, dim) at `rows` (K,) and nulls elsewhere."""
    values = np.zeros((size, dim), np.float32)
    missing = np.ones(size, bool)
    values[rows] = vectors
    missing[rows] = False
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), dim, mask=pa.array(missing))


def scatter_counts(rows: NDArray[np.int64], counts: NDArray[np.int32], size: int) -> pa.Array:
    """An int32 column of `size` rows with `counts` (K,) at `rows` (K,) and nulls elsewhere."""
    values = np.zeros(size, np.int32)
    missing = np.ones(size, bool)
    values[rows] = counts
    missing[rows] = False
    return pa.array(values, mask=missing)
