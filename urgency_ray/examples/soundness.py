"""Whether the files of embeddings hold what training reads of them: they may have been edited, or mixed with others."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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


def refuse_unsound_rows(run_dir: str, frame: pd.DataFrame) -> None:
    """Look at the ids, splits and urgencies of all embedded rows.

    Raises:
        RequestError: an id is given twice, or a split or an urgency is none.
    """
    if frame["example_id"].duplicated().any():
        twice = int(frame["example_id"].duplicated().sum())
        raise RequestError(f"--run-dir {run_dir}: example_id: {twice} of its rows have the id of another; {_ADVICE}")
    if num_odd := int((~frame["provider_split"].isin(PROVIDER_SPLITS)).sum()):
        names = ", ".join(PROVIDER_SPLITS)
        raise RequestError(f"--run-dir {run_dir}: provider_split: must be one of {names}, but {num_odd} rows differ; {_ADVICE}")
    urgency = frame["urgency"].dropna()
    if num_odd := int((~urgency.isin(range(len(URGENCY_LABELS)))).sum()):
        raise RequestError(f"--run-dir {run_dir}: urgency: must be 0, 1 or 2, or null, but {num_odd} rows differ; {_ADVICE}")


def as_vectors(run_dir: str, name: str, column: pa.FixedSizeListArray) -> NDArray[Any]:
    """The vectors of a batch (B, D).

    Raises:
        RequestError: one is absent or not finite: such a row is a reject.
    """
    vectors: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or not np.isfinite(vectors).all():
        raise RequestError(f"--run-dir {run_dir}: {name}: absent, NaN or infinite in embedded rows; {_ADVICE}")
    return vectors.reshape(len(column), -1)
