"""Numbers for the ids of calls and rows: of many million, the ids themselves would fill the memory of whoever counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    utterance = pc.struct_field(pc.extract_regex(rows["example_id"], r"/(?P<position>\d{1,9})$"), "position")
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


class Hashes(NamedTuple):
    """128 bits for each of N values, and which of them are known, each (N,)."""

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    known: NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence[Hashes]) -> Hashes:
        """Those of several parts, one after another."""
        if not parts:
            return cls(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, bool))
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def numbers(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number for each value, in an order of them: the same for the same values, and counted as they come; or `UNKNOWN`.

        It is what `pandas.factorize` gives; that keeps a table of several hundred bytes a value.
        """
        known = order[self.known[order]]
        by_hash = np.lexsort((self.second[known], self.first[known]))
        is_new = np.zeros(len(known), bool)
        is_new[:1] = True
        for half in (self.first, self.second):
            is_new[1:] |= np.diff(half[known[by_hash]]) != 0
        # Of the same values the sort, which is stable, has the one that comes first in front.
        leaders = by_hash[is_new]
        numbers = np.empty(len(leaders), np.int64)
        numbers[np.argsort(leaders)] = np.arange(len(leaders))
        found = np.empty(len(known), np.int64)
        found[by_hash] = numbers[np.cumsum(is_new) - 1]
        every = np.full(len(order), UNKNOWN, np.int64)
        every[self.known[order]] = found
        return every


def hash_texts(texts: pa.Array) -> Hashes:
    """Hashes of some texts; nulls are unknown."""
    column = pa.chunked_array([texts])
    return Hashes(*_hash(pc.fill_null(column, "")), pc.is_valid(column).to_numpy())


def number_values(values: pd.Series) -> NDArray[np.int64]:
    """What `pandas.factorize` gives of a column, (N,), without its table where the values are numbered, or sorted, already."""
    if pd.api.types.is_integer_dtype(values.dtype):
        numbers: NDArray[np.int64] = values.to_numpy(np.int64, na_value=UNKNOWN)
        most = np.maximum.accumulate(np.concatenate([[UNKNOWN], numbers[:-1]]))
        if (numbers <= most + 1).all():
            return numbers
    elif isinstance(values.dtype, pd.StringDtype) and not values.isna().any():
        column = pa.table({"values": values})["values"]
        before, after = column.slice(0, max(0, len(column) - 1)), column.slice(1)
        if pc.all(pc.less_equal(before, after)).as_py():
            return np.concatenate([[0] * min(1, len(column)), np.cumsum(pc.not_equal(before, after).to_numpy())])
    return np.asarray(pd.factorize(values)[0], np.int64)
