"""Small files become few large ones; whatever a kill leaves of that, each row is there once."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urgency_ray import storage
from urgency_ray.embedding import compaction
from urgency_ray.embedding.compaction import compact
from urgency_ray.embedding.ledger import account
from urgency_ray.embedding.recovery import Left
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import MANIFEST_SCHEMA, embedding_schema

MADE_BY = Fingerprint(audio_encoder={"name": "a"}, text_encoder={"name": "t"}, code_version="0.2.0")
CALLS = [f"c{index:02}" for index in range(12)]
MANIFEST = pa.Table.from_pylist(
    [{"call_id": name, "num_bytes": 1, "version": "1", "provider_split": "unknown"} for name in CALLS], schema=MANIFEST_SCHEMA
)


def write(run_dir: Path, *names: str, without: tuple[str, ...] = ()) -> Path:
    """A file of some calls, of one row each."""
    row = {"provider_split": "unknown", "num_call_rows": 1, "source_version": "1", "status": "embedded"}
    vectors = {"audio_embedding": [1.0, 2.0], "text_embedding": [3.0]}
    rows = [{**row, **vectors, "example_id": name, "call_id": name, "text": f"말 {name}"} for name in names]
    table = pa.Table.from_pylist(rows, schema=embedding_schema(2, 1, MADE_BY.model_dump()))
    place = run_dir / f"status=embedded/{'-'.join(names)}.parquet"
    storage.write_table(str(place), table.drop_columns(["status", *without]))
    return place


@pytest.fixture
def small_files(tmp_path: Path) -> list[Path]:
    """Twelve files of a call each."""
    return [write(tmp_path, name) for name in CALLS]


def read(run_dir: Path) -> pa.Table:
    files = sorted(run_dir.rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files]).sort_by("call_id")


def test_small_files_are_merged_and_say_what_they_said(small_files: list[Path], tmp_path: Path) -> None:
    before = read(tmp_path)
    compact(str(tmp_path), few=11)
    (merged,) = tmp_path.rglob("*.*")
    assert read(tmp_path).equals(before, check_metadata=True)
    assert Fingerprint.of_schema(pq.read_schema(merged)) == MADE_BY


def test_a_few_and_large_ones_are_left_alone(small_files: list[Path], tmp_path: Path) -> None:
    size = small_files[0].stat().st_size
    for few, file_bytes in ((12, 100 * size), (1, size)):
        compact(str(tmp_path), few, file_bytes)
        assert sorted(tmp_path.rglob("*.parquet")) == small_files


def test_no_merged_file_is_larger_than_wanted(small_files: list[Path], tmp_path: Path) -> None:
    compact(str(tmp_path), few=1, file_bytes=5 * max(file.stat().st_size for file in small_files))
    assert sorted(pq.read_metadata(file).num_rows for file in tmp_path.rglob("*.parquet")) == [2, 5, 5]


def test_files_of_other_columns_are_merged_among_themselves(tmp_path: Path) -> None:
    for name in CALLS:
        write(tmp_path, name, without=("num_words",) if name < "c04" else ())
    compact(str(tmp_path), few=1)
    assert sorted(pq.read_metadata(file).num_rows for file in tmp_path.rglob("*.parquet")) == [4, 8]


def test_of_rows_that_a_kill_left_twice_one_is_kept(small_files: list[Path], tmp_path: Path) -> None:
    copies = shutil.copytree(tmp_path, tmp_path.with_name("copies"))
    compact(str(tmp_path), few=1)
    expected = read(tmp_path)
    # Killed when five of them were still there; another merged file was half written.
    for file in small_files[:5]:
        shutil.copy(copies / file.relative_to(tmp_path), file)
    with pytest.raises(RuntimeError, match="5 rows were written twice"):
        account(str(tmp_path), MANIFEST)
    small_files[0].with_name(f"{storage.PARTIAL}x.parquet").write_bytes(b"PAR1")
    left = Left(str(tmp_path), MANIFEST)
    assert sorted(left.current.to_pylist()) == CALLS and not left.is_settled(left.current)
    left.keep(left.current)
    assert read(tmp_path).equals(expected)
    assert all(pq.read_metadata(file).num_rows for file in tmp_path.rglob("*.parquet"))
    assert account(str(tmp_path), MANIFEST).rows_embedded == len(CALLS)
    again = Left(str(tmp_path), MANIFEST)
    assert again.is_settled(again.current)


def test_a_store_that_is_away_for_a_moment_leaves_no_row_twice(
    small_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = iter([True, True, False] * 99)

    def sometimes(work: Any) -> Any:
        def attempt(*arguments: Any, **options: Any) -> Any:
            if next(away):
                raise OSError("AWS Error SLOW_DOWN during DeleteObject operation")
            return work(*arguments, **options)

        return attempt

    before = read(tmp_path)
    monkeypatch.setattr("urgency_ray.patience.FIRST_WAIT_SEC", 0.0)
    monkeypatch.setattr("urgency_ray.patience.MOST_WAIT_SEC", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "_remove", sometimes(compaction._remove))
        patch.setattr(pq, "write_table", sometimes(pq.write_table))
        compact(str(tmp_path), few=1)
    assert read(tmp_path).equals(before)
    assert account(str(tmp_path), MANIFEST).rows_embedded == len(CALLS)


@pytest.mark.parametrize(("place", "error"), [("_remove", "ACCESS_DENIED"), ("pq.write_table", "No space left on device")])
def test_where_it_cannot_be_done_nothing_changes(
    place: str,
    error: str,
    *,
    small_files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(error)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(f"urgency_ray.embedding.compaction.{place}", fail)
        compact(str(tmp_path), few=1)
    assert sorted(tmp_path.rglob("*.parquet")) == small_files
    assert account(str(tmp_path), MANIFEST).rows_embedded == len(CALLS)
    assert error in caplog.messages[-1] and "are not merged" in caplog.messages[-1]


def test_what_was_never_put_into_its_place_is_not_merged(small_files: list[Path], tmp_path: Path) -> None:
    shutil.copy(small_files[0], small_files[0].with_name(f"{storage.PARTIAL}x.parquet"))
    compact(str(tmp_path), few=1)
    assert account(str(tmp_path), MANIFEST).rows_embedded == len(CALLS)


def test_a_doubled_row_whose_source_has_changed_is_compared_once(small_files: list[Path], tmp_path: Path) -> None:
    from urgency_ray.embedding.changes import digest_rows

    digests = digest_rows(read(tmp_path))
    shutil.copy(small_files[0], small_files[0].with_name("again.parquet"))
    touched = MANIFEST.set_column(
        MANIFEST.column_names.index("version"), MANIFEST.schema.field("version"), [["2"] * len(CALLS)]
    )
    left = Left(str(tmp_path), touched)
    assert sorted(left.doubtful.to_pylist()) == CALLS
    assert left.unchanged(digests).to_pylist() == CALLS
