from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from urgency_ray import numbering
from urgency_ray.numbering import UNKNOWN, Numbering, count_doubled, number_rows


def column(*ids: str) -> Any:
    return pa.chunked_array([ids[:2], ids[2:]], pa.string())


def test_an_id_s_number_is_its_place_and_other_ids_have_none() -> None:
    found = Numbering(column("b", "가나다", "a", "")).of(column("", "c", "가나다", "a", "a", "b"))
    assert found.tolist() == [3, UNKNOWN, 1, 2, 2, 0]
    assert Numbering(column()).of(column("a")).tolist() == [UNKNOWN]
    assert Numbering(column("a")).of(column()).tolist() == []


def test_ids_are_told_apart_whose_first_hashes_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_badly(ids: Any) -> Any:
        lengths = np.array([len(each) for each in ids.to_pylist()], np.uint64)
        return lengths, np.array([ord(each[0]) for each in ids.to_pylist()], np.uint64)

    monkeypatch.setattr(numbering, "_hash", hash_badly)
    found = Numbering(column("aa", "b", "ba", "ca", "d")).of(column("ca", "aa", "ea", "d", "e", "ba", "aaa"))
    assert found.tolist() == [3, 0, UNKNOWN, 4, UNKNOWN, 2, UNKNOWN]


def test_many_ids_are_numbered_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "_IDS_AT_ONCE", 7)
    ids = [f"call-{number}" for number in range(100)]
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(Numbering(column(*ids)).of(column(*(ids[place] for place in order))), order)


def test_rows_are_numbered_by_call_and_place() -> None:
    rows = pa.table({"example_id": ["a/0010", "a/0009", "b", "b/c", "b/1"]})
    numbers = number_rows(rows, np.array([4, 4, 5, 6, 5]))
    assert np.argsort(numbers).tolist() == [1, 0, 2, 4, 3]
    assert count_doubled([numbers[:2], numbers[1:], numbers[:1]]) == 2
    assert count_doubled([]) == 0
