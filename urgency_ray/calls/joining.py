"""Recordings and labels of one stem side by side, as nearly all are, made into calls column by column.

Of millions of files an object each would fill the memory; only those of other stems become one, for `pairing`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from urgency_ray.calls.pairing import File, Key
from urgency_ray.calls.places import Place
from urgency_ray.calls.planned import to_table
from urgency_ray.calls.spool import Chunks, Spool
from urgency_ray.errors import Reason
from urgency_ray.schema import MANIFEST_SCHEMA

_AT_ONCE = 1 << 16
_BATCH = 8192
_FILES = pa.schema(
    [
        ("stem", pa.string()),
        ("suffix", pa.string()),
        ("container", pa.string()),
        ("member", pa.string()),
        ("num_bytes", pa.int64()),
        ("version", pa.string()),
        ("place", pa.int32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


class Joined(NamedTuple):
    """What became of the files.

    Attributes:
        calls: rows of `MANIFEST_SCHEMA`, sorted by call_id: stems that are a recording and a label side by side.
        keys: of the places where these lie.
        others: the files of all other stems, in the order in which they were added.
        num_files: all of them.
    """

    calls: pa.Table
    keys: set[Key]
    others: dict[str, list[File]]
    num_files: int


class Files:
    """Recordings and labels, as they are found."""

    def __init__(self) -> None:
        self._spool, self._waiting = Spool(_FILES), list[tuple[Any, ...]]()
        self._numbers: dict[Place, int] = {}

    def add(self, file: File) -> None:
        """Take note of one."""
        place = self._numbers.setdefault(file.place, len(self._numbers))
        reason, detail = (None, None) if file.fault is None else (file.fault[0].value, file.fault[1])
        self._waiting.append((*file[:6], place, reason, detail))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._spool.write(to_table(iter(self._waiting), _FILES))
        self._waiting = []

    def join(self) -> Joined:
        """Pair what lies side by side; nothing is added any more."""
        self._flush()
        files, places = self._spool.close(), list(self._numbers)
        numbers: dict[Key, int] = {}
        keys = np.array([numbers.setdefault(place.key, len(numbers)) for place in places], np.int64)
        calls, others, used = Spool(MANIFEST_SCHEMA), list[tuple[int, File]](), np.zeros(len(keys), bool)
        for rows, some in _by_stem(files):
            wavs, labels = _find_pairs(some, keys)
            calls.write(_to_calls(some, wavs, labels, places))
            used[some["place"].to_numpy()[wavs]] = True
            is_other = np.ones(len(some), bool)
            is_other[wavs] = is_other[labels] = False
            left = some.filter(pa.array(is_other)).to_pylist()
            others += zip(rows[is_other].tolist(), (_to_file(file, places) for file in left), strict=True)
        by_stem: dict[str, list[File]] = {}
        for _, file in sorted(others, key=lambda other: other[0]):
            by_stem.setdefault(file.stem, []).append(file)
        used_keys = {place.key for place, is_used in zip(places, used, strict=True) if is_used}
        return Joined(calls.close(), used_keys, by_stem, len(files))


class Lookup:
    """Whether a text is among sorted ones: a look at a few of them."""

    def __init__(self, texts: pa.ChunkedArray) -> None:
        self._chunks = [chunk for chunk in texts.chunks if len(chunk)]
        self._first = [chunk[0].as_py() for chunk in self._chunks]

    def __contains__(self, text: str) -> bool:
        number = bisect_right(self._first, text) - 1
        if number < 0:
            return False
        chunk = self._chunks[number]
        place = bisect_left(range(len(chunk)), text, key=lambda row: chunk[row].as_py())
        return place < len(chunk) and chunk[place].as_py() == text


def merge_calls(calls: pa.Table, others: pa.Table) -> pa.Table:
    """Rows of `MANIFEST_SCHEMA`, both sorted by call_id, as one table that is."""
    if not len(calls) or not len(others):
        return calls if len(calls) else others
    both = pa.concat_tables([calls, others])
    order: NDArray[np.int64] = pc.sort_indices(both["call_id"]).to_numpy().astype(np.int64)
    chunks, merged = Chunks(both), Spool(MANIFEST_SCHEMA)
    for start in range(0, len(order), _AT_ONCE):
        merged.write(chunks.take(order[start : start + _AT_ONCE]))
    return merged.close()


def _by_stem(files: pa.Table) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """The files sorted by stem, in parts that no stem is cut by: their numbers, and their rows."""
    order: NDArray[np.int64] = pc.sort_indices(files["stem"]).to_numpy().astype(np.int64)
    chunks, start, size = Chunks(files), 0, _AT_ONCE
    while start < len(order):
        rows = order[start : start + size]
        some = chunks.take(rows)
        if start + size < len(order):
            starts = _starts(some)
            if len(starts) == 1:
                size *= 2
                continue
            rows, some = rows[: starts[-1]], some.slice(0, starts[-1])
        yield rows, some
        start, size = start + len(rows), _AT_ONCE


def _starts(files: pa.Table) -> NDArray[np.int64]:
    """Where the next stem begins, of files sorted by it."""
    stems = files["stem"].combine_chunks()
    return np.flatnonzero(np.concatenate([[True], pc.not_equal(stems[1:], stems[:-1]).to_numpy(zero_copy_only=False)]))


def _find_pairs(files: pa.Table, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of recordings, and of their labels: one of each is all there is of a stem, of places of one key."""
    starts = _starts(files)
    pairs = starts[np.diff(np.append(starts, len(files))) == 2]
    is_audio = pc.not_equal(files["suffix"], ".json").to_numpy()
    key = keys[files["place"].to_numpy()]
    pairs = pairs[(is_audio[pairs] != is_audio[pairs + 1]) & (key[pairs] == key[pairs + 1])]
    return pairs + ~is_audio[pairs], pairs + is_audio[pairs]


def _to_calls(files: pa.Table, wavs: NDArray[np.int64], labels: NDArray[np.int64], places: list[Place]) -> pa.Table:
    wav, label = (files.take(pa.array(rows)) for rows in (wavs, labels))
    split, region = (np.array([getattr(place, name) for place in places], object) for name in ("provider_split", "region"))
    at_wav, at_label = (side["place"].to_numpy() for side in (wav, label))
    is_faulty = pc.is_valid(wav["reason"])
    columns = {
        "call_id": wav["stem"],
        "audio_container": wav["container"],
        "audio_member": wav["member"],
        "label_container": label["container"],
        "label_member": label["member"],
        "num_bytes": wav["num_bytes"],
        "version": pc.binary_join_element_wise(wav["version"], label["version"], " "),
        "provider_split": np.where(split[at_wav] != "unknown", split[at_wav], split[at_label]),
        "region": np.where(region[at_wav].astype(bool), region[at_wav], region[at_label]),
        "reason": pc.coalesce(wav["reason"], label["reason"]),
        "detail": pc.if_else(is_faulty, wav["detail"], label["detail"]),
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _to_file(row: dict[str, Any], places: list[Place]) -> File:
    fault = None if row["reason"] is None else (Reason(row["reason"]), row["detail"])
    known = {name: row[name] for name in _FILES.names[:6]}
    return File(**known, place=places[row["place"]], fault=fault)
