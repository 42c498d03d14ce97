"""Embeddings that somebody edited, or mixed with others, are refused in one line before anything is learnt from them."""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urgency_ray import cli
from urgency_ray.config import ENCODER_SECTIONS, Config
from urgency_ray.errors import RequestError
from urgency_ray.examples import columns
from urgency_ray.examples.dataset import load_examples
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import METADATA_KEY

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    labels = pd.DataFrame({"file_id": [f"call{row}" for row in range(30)], "text": "불이야", "urgency_y": np.arange(30) % 3})
    labels.to_csv(folder / "metadata.csv", index=False)
    vectors: dict[str, Any] = {"audio": np.eye(30, 8, dtype=np.float32), "text": np.eye(30, 8, dtype=np.float32)}
    np.savez(folder / "embeddings.npz", **vectors)
    options = ["--metadata", folder / "metadata.csv", "--embeddings", folder / "embeddings.npz", "--run-dir", folder / "run"]
    assert cli.main(["import", *map(str, options)]) == 0
    return folder / "run"


def put(name: str, values: Callable[[list[Any]], Any]) -> Change:
    """A change of one column."""

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, values(table[name].to_pylist()))

    return change


def vectors(rows: list[Any], kind: Any) -> pa.Array:
    return pa.array(rows, kind)


WIDE = pa.list_(pa.float32(), 8)
EDITS: dict[str, tuple[Change, str]] = {
    "NaN": (
        put("audio_embedding", lambda rows: vectors([[np.nan] * 8, *rows[1:]], WIDE)),
        "audio_embedding: absent, NaN or inf",
    ),
    "infinite": (
        put("text_embedding", lambda rows: vectors([[np.inf] * 8, *rows[1:]], WIDE)),
        "text_embedding: absent, NaN or",
    ),
    "absent": (
        put("audio_embedding", lambda rows: vectors([None, *rows[1:]], WIDE)),
        "audio_embedding: absent, NaN or infinite",
    ),
    "ragged": (
        put("audio_embedding", lambda rows: vectors([row[: 1 + place % 3] for place, row in enumerate(rows)], None)),
        "audio_embedding: must be lists of floats, all as long",
    ),
    "of texts": (put("text_embedding", lambda rows: pa.array(["x"] * len(rows))), "text_embedding: must be lists of floats"),
    "no embedding": (lambda table: table.drop_columns(["text_embedding"]), "text_embedding: no such column"),
    "no urgency": (lambda table: table.drop_columns(["urgency"]), "urgency: no such column"),
    "urgency 7": (
        put("urgency", lambda rows: pa.array([7, *rows[1:]], pa.int8())),
        "urgency: must be 0, 1 or 2, or null, but 1",
    ),
    "urgency -1": (put("urgency", lambda rows: pa.array([-1, *rows[1:]], pa.int8())), "urgency: must be 0, 1 or 2"),
    "urgency 상": (put("urgency", lambda rows: pa.array(["상"] * len(rows))), "urgency: must be int8 but is string"),
    "one id": (
        put("example_id", lambda rows: pa.array(["x"] * len(rows))),
        "example_id: 29 of its rows have the id of another",
    ),
    "no id": (
        put("example_id", lambda rows: pa.array([None, *rows[1:]], pa.string())),
        "example_id and call_id: 1 of its rows lack one",
    ),
    "no call": (
        put("call_id", lambda rows: pa.array([None, None, *rows[2:]], pa.string())),
        "example_id and call_id: 2 of its rows lack one",
    ),
    "split": (
        put("provider_split", lambda rows: pa.array(["Validation"] * len(rows))),
        "provider_split: must be one of training",
    ),
    "fingerprint": (
        lambda table: table.replace_schema_metadata({METADATA_KEY: b"[]"}),
        "fingerprint: Input should be an object",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_rows_that_extract_would_not_write_are_refused(imported: Path, tmp_path: Path, edit: str) -> None:
    change, said = EDITS[edit]
    run_dir = Path(shutil.copytree(imported, tmp_path / "run"))
    (path,) = run_dir.glob("embeddings/status=embedded/*.parquet")
    changed = change(pq.read_table(io.BytesIO(path.read_bytes())))
    pq.write_table(changed, path)
    with pytest.raises(RequestError) as caught:
        load_examples(str(run_dir))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_of_another_width_is_named(imported: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(imported, tmp_path / "run"))
    (path,) = run_dir.glob("embeddings/status=embedded/*.parquet")
    table = pq.read_table(io.BytesIO(path.read_bytes()))
    wider = put("audio_embedding", lambda rows: pa.array([row * 2 for row in rows], pa.list_(pa.float32(), 16)))(table)
    pq.write_table(wider, path.with_name("zz.parquet"))
    with pytest.raises(RequestError, match=r"zz\.parquet: audio_embedding: 16 wide, where another file has 8"):
        load_examples(str(run_dir))


def test_files_of_two_versions_are_one_run_and_files_of_other_settings_are_not(imported: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(imported, tmp_path / "run"))
    (path,) = run_dir.glob("embeddings/status=embedded/*.parquet")
    table = pq.read_table(io.BytesIO(path.read_bytes()))
    made = [Fingerprint.of(Config(), dict.fromkeys(ENCODER_SECTIONS, "built-in"), version) for version in ("0.2.0", "0.2.1")]
    other = made[0].model_copy(update={"unit": "utterance"})

    def put_halves(first: Fingerprint | None, second: Fingerprint | None) -> None:
        for name, rows, fingerprint in (("a", table[:15], first), ("b", table[15:], second)):
            metadata = {METADATA_KEY: fingerprint.model_dump_json().encode()} if fingerprint else None
            pq.write_table(rows.replace_schema_metadata(metadata), path.with_name(f"{name}.parquet"))

    path.unlink()
    put_halves(made[1], made[0])
    examples = load_examples(str(run_dir))
    assert len(examples) == 30 and examples.fingerprint == made[0]
    for second in (other, None):
        put_halves(made[1], second)
        with pytest.raises(RequestError, match=r"its embeddings were made with 2 different settings; extract afresh$"):
            load_examples(str(run_dir))


def test_vectors_beyond_a_share_of_the_memory_are_the_same_in_a_file(
    imported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    in_memory = load_examples(str(imported))
    monkeypatch.setattr(columns, "MAPPED_SHARE", 0.0)
    mapped = load_examples(str(imported))
    for name in ("audio", "text"):
        array = getattr(mapped, name)
        assert array.tobytes() == getattr(in_memory, name).tobytes()
        address = array.__array_interface__["data"][0]
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        (file,) = (line.split(maxsplit=5)[5] for line in lines if _holds(line, address))
        assert file.startswith(str(tmp_path)) and file.endswith("(deleted)")
    assert not list(tmp_path.iterdir())
    pd.testing.assert_frame_equal(mapped.keys, in_memory.keys)


def _holds(line: str, address: int) -> bool:
    first, last = (int(end, 16) for end in line.split(maxsplit=1)[0].split("-"))
    return first <= address < last


def test_a_disk_without_room_for_the_vectors_is_an_error_of_its_own(imported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(columns, "MAPPED_SHARE", 0.0)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left on device: 0 MiB of vectors, below TMPDIR") as caught:
        load_examples(str(imported))
    assert caught.value.filename == tempfile.gettempdir()


def test_a_run_whose_files_are_gone_has_not_finished(imported: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(imported, tmp_path / "run"))
    for path in run_dir.glob("embeddings/**/*.parquet"):
        path.unlink()
    with pytest.raises(RequestError, match=r"^--run-dir \S+: its extract has not finished, or files are missing; run extract"):
        load_examples(str(run_dir))
