"""The file of predictions: whole or not there, with every planned call once, and refused before the work where it cannot be."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.errors import RequestError
from urgency_ray.prediction.by_call import CALL_OUTPUT_SCHEMA
from urgency_ray.prediction.by_row import OUTPUT_SCHEMA
from urgency_ray.prediction.output import check_output, write_predictions

PLAN = pa.table({"call_id": ["a", "b", "c"]})


def row(example_id: Any, label: Any = None, reason: Any = None) -> Any:
    predicted = {} if label is None else {"urgency_pred": label, "prob_low": 0.2, "prob_mid": 0.3, "prob_high": 0.5}
    call_id = example_id.partition("/")[0]
    return {"example_id": example_id, "call_id": call_id, "split": "new", "reason": reason, **predicted}


def tables(*rows: Any, schema: Any = OUTPUT_SCHEMA) -> Any:
    return [pa.Table.from_pylist([each], schema=schema) for each in rows]


WHOLE = (
    row("a/0000", label=2),
    row("b", reason="not_audio"),
    row("a/0001", reason="too_short"),
    row("c/0000", reason="no_text"),
    row("c/0001", reason="too_short"),
    row("a/0002", label=0),
)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_rows_and_calls_are_counted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"out.{suffix}"
    assert write_predictions(tables(*WHOLE), OUTPUT_SCHEMA, PLAN, str(path)) == {
        "calls_read": 3,
        "calls_predicted": 1,
        "calls_rejected": 2,
        "rows_predicted": 2,
        "rows_rejected": 4,
        "rejected_by_reason": {"too_short": 2, "not_audio": 1, "no_text": 1},
        "predicted": {"high": 1, "low": 1},
    }
    frame = pd.read_parquet(path) if suffix == "parquet" else pd.read_csv(path)
    assert frame["example_id"].tolist() == [each["example_id"] for each in WHOLE]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_utterances_of_calls_are_counted(tmp_path: Path) -> None:
    heard = {"num_utterances": 5, "num_utterances_rejected": 2}
    rows = [row("a", label=1) | heard, row("b", reason="no_text") | heard, row("c", label=1) | heard]
    counts = write_predictions(
        tables(*rows, schema=CALL_OUTPUT_SCHEMA), CALL_OUTPUT_SCHEMA, PLAN, str(tmp_path / "new.parquet")
    )
    assert (counts["utterances"], counts["utterances_rejected"], counts["calls_predicted"]) == (15, 6, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (WHOLE[:1] + WHOLE[2:], "3 calls planned, 2 came out, in 5 rows"),
        ((*WHOLE, row("d", label=0)), "3 calls planned, 4 came out, in 7 rows"),
        ((*WHOLE, WHOLE[0]), "3 calls planned, 3 came out, in 7 rows"),
        ((), "3 calls planned, 0 came out, in 0 rows"),
    ],
    ids=["missing", "unplanned", "doubled", "none"],
)
def test_rows_that_are_lost_or_doubled_leave_no_file(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"accounting: {message}"):
        write_predictions(tables(*rows), OUTPUT_SCHEMA, PLAN, str(tmp_path / "new.parquet"))
    assert list(tmp_path.iterdir()) == []


def cut_off(error: Any) -> Iterator[Any]:
    yield from tables(*WHOLE[:2])
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is gone"), MemoryError()])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_is_cut_off_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Any, suffix: str) -> None:
    path = tmp_path / f"new.{suffix}"
    path.write_text("of last week", encoding="utf-8")
    with pytest.raises(type(error)):
        write_predictions(cut_off(error), OUTPUT_SCHEMA, PLAN, str(path))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_text(encoding="utf-8") == "of last week"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An object store in memory; what is opened in it is published when it is closed, as in a real one."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    filesystem = fs.PyFileSystem(fs.FSSpecHandler(memory))
    filesystem.create_dir("bucket")
    monkeypatch.setattr(storage, "open_location", lambda location: (filesystem, location.removeprefix("s3://")))
    yield filesystem
    memory.store.clear()


def names(store: Any) -> Any:
    return sorted(info.base_name for info in store.get_file_info(fs.FileSelector("bucket", recursive=True)))


def test_an_object_is_published_whole(store: Any) -> None:
    write_predictions(tables(*WHOLE), OUTPUT_SCHEMA, PLAN, "s3://bucket/new.parquet")
    assert names(store) == ["new.parquet"]
    assert len(pq.read_table("bucket/new.parquet", filesystem=store)) == len(WHOLE)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is gone")])
def test_an_object_that_is_cut_off_is_not_published(store: Any, error: Any) -> None:
    with store.open_output_stream("bucket/old.csv") as stream:
        stream.write(b"of last week")
    for name in ("old.csv", "new.csv"):
        with pytest.raises(type(error)):
            write_predictions(cut_off(error), OUTPUT_SCHEMA, PLAN, f"s3://bucket/{name}")
    assert names(store) == ["old.csv"]
    with store.open_input_stream("bucket/old.csv") as stream:
        assert stream.read() == b"of last week"


def test_an_object_that_did_not_arrive_whole_is_removed(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_halfway(source: Any, path: Any, **_: Any) -> None:
        with store.open_output_stream(path) as stream:
            stream.write(b"half of it")
        raise OSError("connection lost")

    monkeypatch.setattr(fs, "copy_files", stop_halfway)
    with pytest.raises(OSError, match="connection lost"):
        write_predictions(tables(*WHOLE), OUTPUT_SCHEMA, PLAN, "s3://bucket/new.csv")
    assert names(store) == []


def test_a_bucket_that_is_not_there_is_refused(store: Any) -> None:
    check_output("s3://bucket/deep/new.csv")
    with pytest.raises(RequestError, match=r"^--output s3://elsewhere/new\.csv: there is no bucket elsewhere$"):
        check_output("s3://elsewhere/new.csv")


def test_a_place_that_cannot_hold_the_output_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    for name, fault in (
        ("new.json", "must end in .parquet or .csv"),
        ("folder.csv", "is a folder; name a file in it"),
        ("file/new.csv", "file is a file, not a folder"),
        ("file/deep/new.csv", "file is a file, not a folder"),
    ):
        with pytest.raises(RequestError, match=rf"^--output [^\n]*{name}: [^\n]*{fault}$"):
            check_output(str(tmp_path / name))
    # Not by permissions: whoever runs tests as root may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RequestError, match=rf"the folder {tmp_path} cannot be written to$"):
        check_output(str(tmp_path / "made" / "by" / "predict" / "new.csv"))


def test_a_folder_that_is_not_there_is_made_by_the_work_and_not_by_the_check(tmp_path: Path) -> None:
    path = tmp_path / "made" / "by" / "predict" / "new.csv"
    check_output(str(path))
    assert list(tmp_path.iterdir()) == []
    write_predictions(tables(*WHOLE), OUTPUT_SCHEMA, PLAN, str(path))
    assert path.exists()
