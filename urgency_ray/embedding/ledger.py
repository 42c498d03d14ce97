"""The accounts of an extract: every planned call has its rows, and they are counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.accounts import ExtractCounts
from urgency_ray.schema import COUNT_FIELDS, OUTCOME_FIELDS, ROW_FIELDS, WORD_ERROR_FIELDS, Status, TextSource

FILES_AT_ONCE = 256
_COUNTED = ("duration_sec", "num_windows", "num_tokens_dropped", "num_text_windows", "text_source")
# Files of an older version lack the newest of them: nulls stand for those.
_SCHEMA = pa.schema(
    [
        *(field for field in ROW_FIELDS if field.name in ("example_id", "call_id", *_COUNTED)),
        *(field for field in COUNT_FIELDS if field.name in _COUNTED or field in WORD_ERROR_FIELDS),
        *OUTCOME_FIELDS,
    ]
)


def list_files(filesystem: fs.FileSystem, folder: str, *, allow_not_found: bool = False) -> list[str]:
    """The paths of all files below a folder."""
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=allow_not_found))
    return [info.path for info in infos if info.type == fs.FileType.File]


def account(embeddings: str, manifest: pa.Table) -> ExtractCounts:
    """Count what became of each planned call, from the parquet that was written.

    Raises:
        RuntimeError: a planned call has no row, a row no planned call, or a row is there twice.
    """
    filesystem, path = storage.open_location(embeddings)
    files = [file for file in list_files(filesystem, path) if not storage.is_partial(file)]
    planned = manifest["call_id"].cast(pa.large_string()).combine_chunks()
    tables = []
    # A dataset keeps the schema of each of its files: for thousands of small ones, more memory than the columns.
    for start in range(0, len(files), FILES_AT_ONCE):
        some = files[start : start + FILES_AT_ONCE]
        dataset = pads.dataset(
            some, schema=_SCHEMA, filesystem=filesystem, partitioning="hive", partition_base_dir=path, format="parquet"
        )
        tables.append(number_ids(dataset.to_table(cache_metadata=False), planned))
    rows = pa.concat_tables(tables)
    if unplanned := rows["call_id"].null_count:
        raise RuntimeError(f"accounting: {unplanned} rows in {embeddings} are of no planned call")
    if doubled := len(rows) - pc.count_distinct(rows["example_id"]).as_py():
        raise RuntimeError(f"accounting: {doubled} rows were written twice in {embeddings}")
    if missing := len(planned) - pc.count_distinct(rows["call_id"]).as_py():
        raise RuntimeError(f"accounting: {missing} planned calls have no row in {embeddings}")
    return count_rows(rows)


def number_ids(rows: pa.Table, planned: pa.Array) -> pa.Table:
    """The rows with numbers of the same order for their ids: many times smaller, where there are a million of them."""
    call = pc.index_in(rows["call_id"].cast(planned.type), planned).cast(pa.int64())
    utterance = pc.struct_field(pc.extract_regex(rows["example_id"], r"/(?P<position>\d+)$"), "position")
    position = pc.fill_null(utterance.cast(pa.int64()), 0)
    rows = rows.set_column(rows.column_names.index("call_id"), "call_id", call)
    return rows.set_column(rows.column_names.index("example_id"), "example_id", pc.add(pc.shift_left(call, 32), position))


def count_rows(rows: pa.Table) -> ExtractCounts:
    """What extract.json counts, of all rows of a run."""
    embedded, rejected = (rows.filter(pc.equal(rows["status"], status)) for status in (Status.EMBEDDED, Status.REJECTED))
    lost = rejected.filter(pc.invert(pc.is_in(rejected["call_id"], embedded["call_id"]))).sort_by("example_id")
    # One thread, or "first" is not the first in this order.
    first = lost.group_by("call_id", use_threads=False).aggregate([("reason", "first")])
    return ExtractCounts(
        calls_read=pc.count_distinct(rows["call_id"]).as_py(),
        calls_embedded=pc.count_distinct(embedded["call_id"]).as_py(),
        calls_rejected=len(first),
        rejected_by_reason=_frequencies(first["reason_first"]),
        rows_embedded=len(embedded),
        rows_rejected=len(rejected),
        rows_rejected_by_reason=_frequencies(rejected["reason"]),
        rows_noted=len(embedded) - embedded["detail"].null_count,
        audio_sec=round(_sum(embedded["duration_sec"]), 3),
        rows_windowed=int(_sum(pc.greater(embedded["num_windows"], 1))),
        texts_windowed=int(_sum(pc.greater(embedded["num_text_windows"], 1))),
        texts_truncated=int(_sum(pc.greater(embedded["num_tokens_dropped"], 0))),
        tokens_dropped=int(_sum(embedded["num_tokens_dropped"])),
        **_count_transcripts(rows),
    )


def _count_transcripts(rows: pa.Table) -> dict[str, Any]:
    """How many rows are transcribed, and how far from the words of labels, where those are known."""
    compared = rows.filter(pc.is_valid(rows["num_words"]))
    rates = {
        name: round(_sum(compared[f"{errors}_errors"]) / _sum(compared[f"{errors}s"]), 6) if len(compared) else None
        for name, errors in (("character_error_rate", "num_letter"), ("word_error_rate", "num_word"))
    }
    return {
        "rows_transcribed": int(_sum(pc.equal(rows["text_source"], TextSource.TRANSCRIBER.value))),
        "calls_compared": pc.count_distinct(compared["call_id"]).as_py(),
        **rates,
    }


def _sum(values: pa.ChunkedArray) -> float:
    return float(pc.sum(values, min_count=0).as_py())


def _frequencies(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value is there, the most frequent first."""
    return dict(Counter({count["values"]: count["counts"] for count in pc.value_counts(values).to_pylist()}).most_common())
