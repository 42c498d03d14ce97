"""Whether the files of embeddings hold what training reads of them: they may have been edited, or mixed with others."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from urgency_ray.errors import RequestError
from urgency_ray.schema import ACOUSTIC_FEATURES, PROVIDER_SPLITS, ROW_FIELDS, URGENCY_LABELS, Status

VECTORS = ("audio_embedding", "text_embedding")
_FIELDS = {field.name: field.type for field in ROW_FIELDS}
_READ = ("example_id", "call_id", "provider_split", "audio_sha256", "text", "urgency", "sentiment", *ACOUSTIC_FEATURES)
_ADVICE = "run extract (or import) into another folder"


def refuse_unsound_files(run_dir: str, schemas: Mapping[str, pa.Schema]) -> None:
    """Look at the columns of each file of embedded rows.

    Args:
        run_dir: run folder, for what is said.
        schemas: of each file, by its path.

    Raises:
        RequestError: a column is absent or of another type, or the embeddings of two files are of different widths; the text
            names the file.
    """
    widths: dict[str, int] = {}
    for path, schema in schemas.items():
        if f"/status={Status.EMBEDDED}/" not in path:
            continue
        for name in (*_READ, *VECTORS):
            if fault := _column_fault(schema, name, widths):
                raise RequestError(f"--run-dir {run_dir}: {posixpath.basename(path)}: {name}: {fault}; {_ADVICE}")


def _column_fault(schema: pa.Schema, name: str, widths: dict[str, int]) -> str | None:
    if name not in schema.names:
        return "no such column"
    found = schema.field(name).type
    if name in VECTORS:
        if not (pa.types.is_fixed_size_list(found) and pa.types.is_floating(found.value_type) and found.list_size):
            return f"must be lists of floats, all as long, but is {found}"
        if widths.setdefault(name, found.list_size) != found.list_size:
            return f"{found.list_size} wide, where another file has {widths[name]}"
        return None
    return None if pa.types.is_null(found) or _is_like(found, _FIELDS[name]) else f"must be {_FIELDS[name]} but is {found}"


def _is_like(found: Any, wanted: Any) -> bool:
    """Whether one type holds what the other does: any width of integers, floats and texts."""
    kinds = (pa.types.is_integer, pa.types.is_floating, lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return any(is_kind(found) and is_kind(wanted) for is_kind in kinds)


class Seen:
    """How many of the rows seen so far lack an id, have a split or an urgency that is none, or lack an `utterance_id`."""

    def __init__(self) -> None:
        self.nameless = self.splits = self.urgencies = self.whole_calls = 0

    def add(self, batch: pa.RecordBatch, by_call: bool) -> None:
        """Look at some rows; `by_call`: at utterances, too."""
        has_ids = pc.and_(pc.is_valid(batch.column("example_id")), pc.is_valid(batch.column("call_id")))
        self.nameless += _count(pc.invert(has_ids))
        split, urgency = batch.column("provider_split").cast(pa.string()), batch.column("urgency").cast(pa.int64())
        self.splits += _count(pc.invert(pc.is_in(split, pa.array(PROVIDER_SPLITS))))
        is_known = pc.is_in(urgency, pa.array(range(len(URGENCY_LABELS)), pa.int64()))
        self.urgencies += _count(pc.and_not(pc.is_valid(urgency), is_known))
        self.whole_calls += batch.column("utterance_id").null_count if by_call else 0


def refuse_unsound_rows(run_dir: str, num_doubled: int, seen: Seen) -> None:
    """Refuse rows whose ids, splits or urgencies are none.

    Args:
        run_dir: run folder, for what is said.
        num_doubled: rows that have the id of another.
        seen: of all rows.

    Raises:
        RequestError: there are such rows.
    """
    if seen.nameless:
        raise RequestError(f"--run-dir {run_dir}: example_id and call_id: {seen.nameless} of its rows lack one; {_ADVICE}")
    if num_doubled:
        raise RequestError(f"--run-dir {run_dir}: example_id: {num_doubled} of its rows have the id of another; {_ADVICE}")
    if seen.splits:
        names = ", ".join(PROVIDER_SPLITS)
        raise RequestError(
            f"--run-dir {run_dir}: provider_split: must be one of {names}, but {seen.splits} rows differ; {_ADVICE}"
        )
    if seen.urgencies:
        found = f"{seen.urgencies} rows differ"
        raise RequestError(f"--run-dir {run_dir}: urgency: must be 0, 1 or 2, or null, but {found}; {_ADVICE}")


def _count(mask: pa.Array) -> int:
    return int(pc.sum(mask, min_count=0).as_py())


def as_vectors(run_dir: str, name: str, column: pa.FixedSizeListArray) -> NDArray[Any]:
    """The vectors of a batch (B, D).

    Raises:
        RequestError: one is absent or not finite: such a row is a reject.
    """
    vectors: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or not np.isfinite(vectors).all():
        raise RequestError(f"--run-dir {run_dir}: {name}: absent, NaN or infinite in embedded rows; {_ADVICE}")
    return vectors.reshape(len(column), -1)
