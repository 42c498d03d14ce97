"""The accounts of an extract: every planned call has its rows, and they are counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.accounts import ExtractCounts
from urgency_ray.numbering import UNKNOWN, Numbering, count_doubled, number_rows
from urgency_ray.schema import COUNT_FIELDS, OUTCOME_FIELDS, ROW_FIELDS, WORD_ERROR_FIELDS, Status, TextSource

FILES_AT_ONCE = 256
BYTES_AT_ONCE = 64 << 20
_COUNTED = ("duration_sec", "num_windows", "num_tokens_dropped", "num_text_windows", "text_source")
# Files of an older version lack the newest of them: nulls stand for those.
_SCHEMA = pa.schema(
    [
        *(field for field in ROW_FIELDS if field.name in ("example_id", "call_id", *_COUNTED)),
        *(field for field in COUNT_FIELDS if field.name in _COUNTED or field in WORD_ERROR_FIELDS),
        *OUTCOME_FIELDS,
    ]
)
_TALLIED = (
    "rows_embedded",
    "rows_rejected",
    "rows_noted",
    "rows_windowed",
    "texts_windowed",
    "texts_truncated",
    "tokens_dropped",
    "rows_transcribed",
)
"""What is a sum over rows, by its name in `ExtractCounts`."""


def list_files(filesystem: fs.FileSystem, folder: str, *, allow_not_found: bool = False) -> list[str]:
    """The paths of all files below a folder."""
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=allow_not_found))
    return [info.path for info in infos if info.type == fs.FileType.File]


def _groups(filesystem: fs.FileSystem, folder: str) -> Iterator[list[str]]:
    """The whole files below a folder, some at a time: Arrow reads ahead as far as it can, for whoever counts more slowly.

    And a dataset keeps the schema of each of its files: for thousands of small ones, more memory than the columns.
    """
    group: list[str] = []
    size = 0
    for info in filesystem.get_file_info(fs.FileSelector(folder, recursive=True)):
        if info.type != fs.FileType.File or storage.is_partial(info.path):
            continue
        if group and (len(group) == FILES_AT_ONCE or size + info.size > BYTES_AT_ONCE):
            yield group
            group, size = [], 0
        group.append(info.path)
        size += info.size
    if group:
        yield group


def account(embeddings: str, manifest: pa.Table) -> ExtractCounts:
    """Count what became of each planned call, from the parquet that was written, batch by batch.

    Raises:
        RuntimeError: a planned call has no row, a row no planned call, or a row is there twice.
    """
    filesystem, path = storage.open_location(embeddings)
    planned, numbers, unplanned = Numbering(manifest["call_id"]), [], 0
    tally = Tally(len(planned))
    for some in _groups(filesystem, path):
        dataset = pads.dataset(
            some, schema=_SCHEMA, filesystem=filesystem, partitioning="hive", partition_base_dir=path, format="parquet"
        )
        for batch in dataset.to_batches(cache_metadata=False):
            rows = pa.Table.from_batches([batch])
            calls = planned.of(rows["call_id"])
            is_planned = calls != UNKNOWN
            unplanned += int((~is_planned).sum())
            rows, calls = rows.filter(pa.array(is_planned)), calls[is_planned]
            numbers.append(number_rows(rows, calls))
            tally.add(rows, calls, numbers[-1])
    if unplanned:
        raise RuntimeError(f"accounting: {unplanned} rows in {embeddings} are of no planned call")
    if doubled := count_doubled(numbers):
        raise RuntimeError(f"accounting: {doubled} rows were written twice in {embeddings}")
    counts = tally.counts()
    if missing := len(planned) - counts.calls_read:
        raise RuntimeError(f"accounting: {missing} planned calls have no row in {embeddings}")
    return counts


def count_rows(rows: pa.Table) -> ExtractCounts:
    """What extract.json counts, of all rows of a run: `_SCHEMA`'s columns, and others."""
    rows = rows.sort_by("example_id")
    calls = pc.dictionary_encode(rows["call_id"].combine_chunks())
    tally = Tally(len(calls.dictionary))
    tally.add(rows, calls.indices.to_numpy().astype(np.int64), np.arange(len(rows)))
    return tally.counts()


class Tally:
    """What extract.json counts, of rows that come in parts and in any order.

    It keeps 13 bytes for each call, and none for a row.
    """

    def __init__(self, num_calls: int) -> None:
        self._has_come, self._is_embedded, self._is_compared = (np.zeros(num_calls, bool) for _ in range(3))
        # Of the first rejected row of each call: its number, and the place of its reason among those met so far.
        self._first = np.full(num_calls, np.iinfo(np.int64).max)
        self._reason = np.zeros(num_calls, np.int16)
        self._reasons: dict[str | None, int] = {}
        self._rejected: Counter[str] = Counter()
        self._counted = Counter(dict.fromkeys(_TALLIED, 0))
        self._seconds: list[float] = []

    def add(self, rows: pa.Table, calls: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Count some rows.

        Args:
            rows: with the columns that are counted.
            calls: the number of each one's call, below `num_calls`.
            numbers: of the rows themselves, by which the first of a call is told.
        """
        is_embedded = pc.equal(rows["status"], Status.EMBEDDED)
        mask = is_embedded.to_numpy()
        self._has_come[calls] = True
        self._is_embedded[calls[mask]] = True
        self._is_compared[calls[pc.is_valid(rows["num_words"]).to_numpy()]] = True
        self._reject(rows["reason"].filter(pc.invert(is_embedded)), calls[~mask], numbers[~mask])
        embedded = rows.filter(is_embedded)
        self._seconds.append(_sum(embedded["duration_sec"]))
        self._counted.update(
            rows_embedded=len(embedded),
            rows_rejected=len(rows) - len(embedded),
            rows_noted=len(embedded) - embedded["detail"].null_count,
            rows_windowed=int(_sum(pc.greater(embedded["num_windows"], 1))),
            texts_windowed=int(_sum(pc.greater(embedded["num_text_windows"], 1))),
            texts_truncated=int(_sum(pc.greater(embedded["num_tokens_dropped"], 0))),
            tokens_dropped=int(_sum(embedded["num_tokens_dropped"])),
            rows_transcribed=int(_sum(pc.equal(rows["text_source"], TextSource.TRANSCRIBER.value))),
        )
        compared = rows.filter(pc.is_valid(rows["num_words"]))
        self._counted.update({field.name: int(_sum(compared[field.name])) for field in WORD_ERROR_FIELDS})

    def _reject(self, reasons: pa.ChunkedArray, calls: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        met = [count["values"] for count in pc.value_counts(reasons).to_pylist()]
        self._rejected.update(_frequencies(reasons))
        for reason in met:
            self._reasons.setdefault(reason, len(self._reasons))
        codes = np.array([self._reasons[reason] for reason in met], np.int16)
        places = pc.index_in(reasons, pa.array(met, pa.string())).to_numpy() if met else np.empty(0, np.int64)
        # Of several rows of a call the first is written last.
        order = np.argsort(-numbers, kind="stable")
        order = order[numbers[order] < self._first[calls[order]]]
        self._first[calls[order]] = numbers[order]
        self._reason[calls[order]] = codes[places[order]]

    def counts(self) -> ExtractCounts:
        """Of all rows so far."""
        lost = self._reason[self._has_come & ~self._is_embedded]
        first = pc.take(pa.array(list(self._reasons), pa.string()), pa.array(lost))
        return ExtractCounts(
            calls_read=int(self._has_come.sum()),
            calls_embedded=int(self._is_embedded.sum()),
            calls_rejected=len(lost),
            rejected_by_reason=_frequencies(first),
            rows_rejected_by_reason=dict(self._rejected.most_common()),
            audio_sec=round(math.fsum(self._seconds), 3),
            calls_compared=int(self._is_compared.sum()),
            character_error_rate=_rate(self._counted, "num_letter"),
            word_error_rate=_rate(self._counted, "num_word"),
            **{name: self._counted[name] for name in _TALLIED},
        )


def _rate(counted: Mapping[str, int], what: str) -> float | None:
    """Errors for each letter, or word, of the labels; None where nothing is compared."""
    return round(counted[f"{what}_errors"] / counted[f"{what}s"], 6) if counted[f"{what}s"] else None


def _sum(values: pa.ChunkedArray) -> float:
    return float(pc.sum(values, min_count=0).as_py())


def _frequencies(values: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """How often each value is there, the most frequent first."""
    return dict(Counter({count["values"]: count["counts"] for count in pc.value_counts(values).to_pylist()}).most_common())
