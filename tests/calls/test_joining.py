"""Calls are made column by column: the same in pieces and in files as at once, whatever lies beside them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from call_files import plan

from urgency_ray.calls import joining, spool
from urgency_ray.calls.joining import Lookup
from urgency_ray.calls.spool import Chunks, Spool


def write_tree(root: Path) -> None:
    """Three pairs of archives, a stem in one, two or three of them, with and without its partner, and copies beside it."""
    rng = np.random.default_rng(0)
    for number in range(3):
        for kind, suffix in (("TS", "wav"), ("TL", "json")):
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w") as archive:
                for call in rng.permutation(60):
                    # Those up to 20 are in any of the archives, the others in one, now and then without the other half.
                    if rng.random() < (0.5 if call < 20 else 0.9 * (call % 3 == number)):
                        archive.writestr(f"{call:03d}.{suffix}", f"{suffix} of {call} {number % 2}")
            (root / f"{kind}_서울_{number}.zip").write_bytes(content.getvalue())
    (root / "001.wav").write_bytes(b"alone")
    (root / "a.zip").write_bytes(b"no zip")


def test_pieces_and_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path)
    whole = plan(tmp_path)
    assert len({row["reason"] for row in whole.values()}) > 3
    monkeypatch.setattr(joining, "_AT_ONCE", 2)
    monkeypatch.setattr(joining, "_BATCH", 3)
    assert plan(tmp_path) == whole
    monkeypatch.setattr(spool, "ROWS_IN_MEMORY", 0)
    assert plan(tmp_path) == whole


def test_a_reject_s_id_is_not_that_of_a_call(tmp_path: Path) -> None:
    for name in ("a.zip.wav", "a.zip.json"):
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    rows = plan(tmp_path)
    assert sorted(rows) == ["a.zip", "a.zip#2"]
    assert (rows["a.zip"]["reason"], rows["a.zip#2"]["reason"]) == (None, "unreadable_archive")


def test_a_table_is_the_same_in_memory_and_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = pa.table({"text": [f"{row} 번" for row in range(100)], "number": range(100)})
    found = []
    for limit in (1000, 30):
        monkeypatch.setattr(spool, "ROWS_IN_MEMORY", limit)
        written = Spool(table.schema)
        for start in range(0, 100, 10):
            written.write(table.slice(start, 10))
        found.append(written.close())
    assert found[0].equals(table) and found[1].equals(table)
    assert not list(tmp_path.iterdir())
    assert Spool(table.schema).close().equals(table.slice(0, 0))


@pytest.mark.parametrize("chunk_rows", [1, 7, 100])
def test_rows_are_taken_from_any_chunks(chunk_rows: int) -> None:
    table = pa.table({"number": pa.array(range(100))})
    chunked = pa.concat_tables([table.slice(start, chunk_rows) for start in range(0, 100, chunk_rows)])
    for rows in (np.random.default_rng(0).integers(0, 100, 40), np.arange(20, 30), np.empty(0, np.int64)):
        assert Chunks(chunked).take(rows)["number"].to_pylist() == rows.tolist()


def test_sorted_texts_are_looked_up() -> None:
    texts: Any = pa.chunked_array([[], ["b", "d"], [], ["f"]], pa.string())
    assert [text for text in "abcdefg" if text in Lookup(texts)] == ["b", "d", "f"]
    assert "a" not in Lookup(pa.chunked_array([], pa.string()))
