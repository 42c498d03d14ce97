from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from urgency_ray import numbering
from urgency_ray.numbering import UNKNOWN, Hashes, Numbering, count_doubled, hash_texts, number_rows, number_values


def column(*ids: str) -> Any:
    return pa.chunked_array([ids[:2], ids[2:]], pa.string())


def test_an_id_s_number_is_its_place_and_other_ids_have_none() -> None:
    found = Numbering(column("b", "가나다", "a", "")).of(column("", "c", "가나다", "a", "a", "b"))
    assert found.tolist() == [3, UNKNOWN, 1, 2, 2, 0]
    assert Numbering(column()).of(column("a")).tolist() == [UNKNOWN]
    assert Numbering(column("a")).of(column()).tolist() == []


def test_a_call_s_own_id_may_end_in_more_digits_than_a_place_has() -> None:
    rows = pa.table({"example_id": ["2024/20240101123456789012345", "a/4294967296", "b", "b/0003"]})
    assert count_doubled([number_rows(rows, np.array([0, 1, 2, 2]))]) == 0


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


VALUES: dict[str, list[str | None]] = {
    "sorted": ["a", "a", "b", "b", "c"],
    "in any order": ["b", "a", "b", "c", "a"],
    "with unknown ones": ["b", None, "a", None, "b"],
    "none": [None, None],
    "no row": [],
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_numbered_as_they_come(name: str) -> None:
    values = VALUES[name]
    expected = pd.factorize(pd.Series(values, dtype=object))[0].tolist()
    for kind in (object, "str"):
        assert number_values(pd.Series(values, dtype=kind)).tolist() == expected
    numbers = np.array(expected, np.int64)
    assert number_values(pd.Series(pd.arrays.IntegerArray(numbers, numbers < 0))).tolist() == expected
    hashes = hash_texts(pa.array(values, pa.string()))
    assert hashes.numbers(np.arange(len(values))).tolist() == expected


def test_numbers_that_do_not_count_up_are_numbered_anew() -> None:
    assert number_values(pd.Series([7, 3, 7, 0])).tolist() == [0, 1, 0, 2]


def test_hashes_are_numbered_in_another_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    values = pd.Series(rng.integers(0, 50, 300).astype(str)).where(rng.random(300) < 0.9)
    order = rng.permutation(300)
    parts = [hash_texts(pa.array(values[start : start + 100], pa.string())) for start in (0, 100, 200)]
    np.testing.assert_array_equal(Hashes.join(parts).numbers(order), pd.factorize(values.iloc[order])[0])
