"""Rows that a killed `predict` left are gone on with where they are of its own transform and calls."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from urgency_ray.fingerprint import Fingerprint
from urgency_ray.prediction.kept import KeptRows, keep_rows
from urgency_ray.schema import MANIFEST_SCHEMA, embedding_schema

MADE_BY = Fingerprint(audio_encoder={"name": "a"}, text_encoder={"name": "t"}, code_version="0.2.0")


def leave(output: Path, *rows: Any) -> Path:
    known = {"provider_split": "unknown", "num_call_rows": 1, "source_version": "1", "status": "embedded"}
    table = pa.Table.from_pylist([known | row for row in rows], schema=embedding_schema(2, 1, MADE_BY.model_dump()))
    folder = output.with_name(f"{output.name}.unfinished")
    assert keep_rows(table, str(folder)) is table
    return folder


def open_kept(output: Path, made_by: Fingerprint = MADE_BY) -> KeptRows:
    plan = [{"call_id": name, "num_bytes": 1, "version": "1", "provider_split": "unknown"} for name in ("c", "d")]
    return KeptRows(str(output), made_by, pa.Table.from_pylist(plan, schema=MANIFEST_SCHEMA))


def test_rows_of_whole_calls_that_are_planned_as_they_were_are_kept(tmp_path: Path) -> None:
    half = {"example_id": "d/0000", "call_id": "d", "num_call_rows": 2}
    leave(tmp_path / "new.csv", {"example_id": "c", "call_id": "c"}, half, {"example_id": "gone", "call_id": "gone"})
    kept = open_kept(tmp_path / "new.csv")
    assert kept.call_ids.to_pylist() == ["c"]
    assert [table["example_id"].to_pylist() for table in kept.tables()] == [["c"]]
    assert [table["status"].to_pylist() for table in kept.tables()] == [["embedded"]]


def test_rows_of_another_transform_are_removed(tmp_path: Path) -> None:
    folder = leave(tmp_path / "new.csv", {"example_id": "c", "call_id": "c"})
    kept = open_kept(tmp_path / "new.csv", MADE_BY.model_copy(update={"require_text": False}))
    assert len(kept.call_ids) == 0
    assert not folder.exists()


def test_where_nothing_was_left_nothing_is_made(tmp_path: Path) -> None:
    kept = open_kept(tmp_path / "new.csv")
    assert len(kept.call_ids) == 0
    assert list(kept.tables()) == []
    kept.discard()
    assert list(tmp_path.iterdir()) == []
