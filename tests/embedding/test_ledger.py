"""What an unfinished extract left: whole calls that are still planned stay, the rest goes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urgency_ray import storage
from urgency_ray.embedding.ledger import recover
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import MANIFEST_SCHEMA, embedding_schema

MADE_BY = Fingerprint(audio_encoder={"name": "a"}, text_encoder={"name": "t"}, code_version="0.2.0")


def manifest_of(*call_ids: str) -> pa.Table:
    row = {"num_bytes": 1, "version": "1", "provider_split": "unknown"}
    return pa.Table.from_pylist([{**row, "call_id": call_id} for call_id in call_ids], schema=MANIFEST_SCHEMA)


def leave(run_dir: Path, status: str, *call_ids: str) -> None:
    rows: list[dict[str, Any]] = [
        {"example_id": call_id, "call_id": call_id, "provider_split": "unknown", "num_call_rows": 1, "source_version": "1"}
        for call_id in call_ids
    ]
    schema = embedding_schema(2, 1, MADE_BY.model_dump())
    table = pa.Table.from_pylist([{**row, "status": status} for row in rows], schema=schema)
    storage.write_table(str(run_dir / f"embeddings/status={status}/0.parquet"), table.drop_columns(["status"]))


def test_rejects_that_are_no_rows_any_more_are_dropped(tmp_path: Path) -> None:
    """Version 0.2.0 had a row for each file of a copy; a copy is one row now."""
    leave(tmp_path, "embedded", "c")
    leave(tmp_path, "rejected", "c#2", "c#3")
    whole = recover(str(tmp_path), str(tmp_path / "embeddings"), MADE_BY, manifest_of("c", "c#2", "d"))
    assert sorted(whole.to_pylist()) == ["c", "c#2"]
    assert pq.read_table(tmp_path / "embeddings/status=rejected/0.parquet", partitioning=None)["call_id"].to_pylist() == ["c#2"]


def test_embeddings_of_calls_that_are_not_planned_are_refused(tmp_path: Path) -> None:
    leave(tmp_path, "embedded", "c", "x")
    with pytest.raises(RequestError, match="calls that are not below"):
        recover(str(tmp_path), str(tmp_path / "embeddings"), MADE_BY, manifest_of("c"))
