"""Numbers for the ids of calls and rows: of many million, the ids themselves would fill the memory of whoever counts them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UNKNOWN = -1
_KEYS = ("urgency_ray call", "urgency_ray hash")
_IDS_AT_ONCE = 1 << 17


class Numbering:
    """The number of each of some ids: its place among them. It keeps 24 bytes for each, whatever its length.

    Ids are told apart by two SipHashes, 128 bits in all: the chance that two of a hundred million have the same is 1e-23.

    Args:
        ids: each once.
    """

    def __init__(self, ids: pa.ChunkedArray) -> None:
        first, second = (np.empty(len(ids), np.uint64) for _ in _KEYS)
        start = 0
        for some in _pieces(ids):
            first[start : start + len(some)], second[start : start + len(some)] = _hash(some)
            start += len(some)
        self._numbers = np.argsort(first, kind="stable")
        self._first, self._second = first[self._numbers], second[self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Their numbers, `UNKNOWN` for ids that are none of these."""
        found = [self._find(*_hash(some)) for some in _pieces(ids)]
        return np.concatenate([*found, np.empty(0, np.int64)])

    def _find(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
        numbers = np.full(len(first), UNKNOWN, np.int64)
        left, places = np.arange(len(first)), np.searchsorted(self._first, first)
        # Once for nearly all: where first hashes agree, the next places are looked at as well.
        while len(left):
            inside = places < len(self._first)
            left, places = left[inside], places[inside]
            alike = self._first[places] == first[left]
            left, places = left[alike], places[alike]
            same = self._second[places] == second[left]
            numbers[left[same]] = self._numbers[places[same]]
            left, places = left[~same], places[~same] + 1
        return numbers


def number_rows(rows: pa.Table, calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each row, of the order of its `example_id`: that of its call, and its place in it (`stem/3` is 3).

    Args:
        rows: with a column `example_id`.
        calls: numbers of their calls, as `Numbering.of` gives them.
    """
    utterance = pc.struct_field(pc.extract_regex(rows["example_id"], r"/(?P<position>\d+)$"), "position")
    places: NDArray[np.int64] = pc.fill_null(utterance.cast(pa.int64()), 0).to_numpy()
    return (calls << 32) + places


def count_doubled(numbers: list[NDArray[np.int64]]) -> int:
    """How many of some numbers are there again."""
    every = np.concatenate([*numbers, np.empty(0, np.int64)])
    every.sort()
    return int((every[1:] == every[:-1]).sum())


def _pieces(ids: pa.ChunkedArray) -> list[pa.ChunkedArray]:
    return [ids.slice(start, _IDS_AT_ONCE) for start in range(0, len(ids), _IDS_AT_ONCE)]


def _hash(ids: pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    texts = np.asarray(ids.to_numpy(), object)
    first, second = (pd.util.hash_array(texts, hash_key=key, categorize=False) for key in _KEYS)
    return first, second
