"""Calls, run folder and output behind S3's protocol: moto's server on loopback, reached as a real one is: by environment."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from call_files import tarred, zipped
from object_store import bucket_of, serve
from predicted_runs import make_run
from pyarrow import fs
from shared_runs import Extracted, KnownCorpus

from urgency_ray import cli, lease, storage
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.embedding.compaction import compact
from urgency_ray.embedding.stages import decode_calls
from urgency_ray.errors import RequestError

pytestmark = pytest.mark.slow

# Several commands in one process share its Ray session; what they print is all that a failure has to say.
COMMANDS = "import json, sys; from urgency_ray.cli import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"

HOLD = """
import sys, time
from urgency_ray import lease
with lease.hold(sys.argv[1], "train"):
    print(1, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of an empty bucket."""
    server = serve()
    with bucket_of(server, "calls-119") as location:
        yield location
    server.stop()


def run(*commands: Any) -> Any:
    options = ["--ray.address", "local", "--ray.num_cpus", "2"]
    orders = json.dumps([[*command, *options] for command in commands])
    done = subprocess.run([sys.executable, "-c", COMMANDS, orders], check=False, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def test_a_manifest_in_a_store_names_its_files_by_paths_and_uris(bucket: Any, corpus: KnownCorpus) -> None:
    with zipfile.ZipFile(next(corpus[0].rglob("VS_*.zip"))) as archive:
        sound = archive.read(next(name for name in archive.namelist() if name.endswith(".wav")))
    for place in ("listed/wavs/신고 1.wav", "listed/b?c.wav", "elsewhere/d.wav"):
        filesystem, path = storage.open_location(bucket)
        with filesystem.open_output_stream(f"{path}/{place}") as stream:
            stream.write(sound)
    names = [
        "../listed/wavs/신고 1.wav",
        "b?c.wav",
        f"{bucket}/elsewhere/d.wav",
        "wavs/no.wav",
        "s3://no-such-bucket/e.wav",
        "f.wav",
    ]
    text = "".join(f"{json.dumps({'audio': name, 'text': '불', 'urgency': '상'})}\n" for name in names)
    manifest = f"{bucket}/listed/calls.jsonl?region=ap-northeast-2"
    storage.write_text(manifest, text)
    data = DataConfig(manifest=manifest)
    plan = plan_calls(data)
    rows = {row["call_id"]: row["reason"] for row in decode_calls(plan, data).to_pylist()}
    assert rows == {"신고 1": None, "b?c": None, "d": None, "no": "missing_audio", "e": "missing_audio", "f": "missing_audio"}


def test_a_manifest_names_members_of_archives_in_a_store(bucket: Any, corpus: KnownCorpus) -> None:
    with zipfile.ZipFile(next(corpus[0].rglob("VS_*.zip"))) as archive:
        sound = archive.read(next(name for name in archive.namelist() if name.endswith(".wav")))
    filesystem, path = storage.open_location(bucket)
    label = json.dumps({"utterances": [{"text": "불이 났어요"}], "urgencyLevel": "상"}).encode()
    packed = zipped({"신고/가 1.wav": sound, "b.json": label})
    for place, content in (("packed/TS 서울.zip", packed), ("packed/a.tar", tarred({"day/b.wav": sound}))):
        with filesystem.open_output_stream(f"{path}/{place}") as stream:
            stream.write(content)
    names = {
        "chained": "zip://신고/가 1.wav::TS 서울.zip",
        "path": "TS 서울.zip/신고/가 1.wav",
        "uri": f"{bucket}/packed/a.tar/day/b.wav?region=ap-northeast-2",
        "no member": f"tar://day/c.wav::{bucket}/packed/a.tar",
        "no archive": "b.zip/day/b.wav",
    }
    label_of = f"zip://b.json::{bucket}/packed/TS%20%EC%84%9C%EC%9A%B8.zip"
    manifest = f"{bucket}/packed/calls.jsonl"
    lines = [json.dumps({"id": call_id, "audio": name, "label": label_of}) for call_id, name in names.items()]
    storage.write_text(manifest, "\n".join(lines))
    data = DataConfig(manifest=manifest)
    rows = {row["call_id"]: row for row in decode_calls(plan_calls(data), data).to_pylist()}
    gone = {"no member": "missing_audio", "no archive": "missing_audio"}
    assert {call_id: row["reason"] for call_id, row in rows.items()} == dict.fromkeys(("chained", "path", "uri")) | gone
    assert {rows[call_id]["text"] for call_id in ("chained", "path", "uri")} == {"불이 났어요"}


def read_rows(run_dir: Any) -> Any:
    filesystem, path = storage.open_location(storage.join(run_dir, "embeddings"))
    rows = pads.dataset(path, filesystem=filesystem, partitioning="hive", format="parquet").to_table()
    return rows.to_pandas().sort_values("example_id", ignore_index=True)


def files_of(run_dir: Any) -> Any:
    filesystem, path = storage.open_location(storage.join(run_dir, "embeddings"))
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    return filesystem, sorted((info for info in infos if info.type == fs.FileType.File), key=lambda info: info.path)


def test_a_run_on_object_storage_is_the_local_run(bucket: Any, corpus: KnownCorpus, extracted: Extracted) -> None:
    calls, run_dir, output = f"{bucket}/calls", f"{bucket}/runs/first", f"{bucket}/out/new.parquet?region=ap-northeast-2"
    storage.copy_dir(str(corpus[0]), calls)
    local_dir, summary, config = extracted
    storage.write_text(f"{bucket}/config.yaml", config.replace({"data.root": None}).to_yaml())
    source = ["--config", f"{bucket}/config.yaml", "--run-dir", run_dir, "--data.root", calls]
    run(["extract", *source])
    remote = json.loads(storage.read_text(f"{run_dir}/extract.json"))
    assert {**remote, "wall_sec": 0} == {**summary.model_dump(), "wall_sec": 0}
    pd.testing.assert_frame_equal(read_rows(run_dir), read_rows(local_dir))

    # What a killed run leaves: an object is there whole or not at all, but a cut one is no harder.
    filesystem, files = files_of(run_dir)
    filesystem.delete_file("calls-119/runs/first/extract.json")
    for info in files[::3]:
        filesystem.delete_file(info.path)
    with filesystem.open_input_file(files[1].path) as stream:
        start = stream.read(1000)
    with filesystem.open_output_stream(files[1].path) as stream:
        stream.write(start)
    kept = {info.path: info.mtime_ns for index, info in enumerate(files) if index % 3 and index != 1}
    assert kept

    new = ["--model", f"{run_dir}/model", "--data.root", calls, "--output", output]
    log = run(["extract", *source], ["train", "--run-dir", run_dir], ["predict", *new])
    assert "calls have their rows already" in log
    assert "removing a file that was not written to its end" in log
    assert kept.items() <= {info.path: info.mtime_ns for info in files_of(run_dir)[1]}.items()
    pd.testing.assert_frame_equal(read_rows(run_dir), read_rows(local_dir))
    made = ("model/config.json", "model/model.safetensors", "metrics.json", "predictions.parquet", "config.yaml")
    assert [name for name in made if not storage.exists(f"{run_dir}/{name}")] == []

    frame = read_table(output).to_pandas().set_index("call_id")
    known = read_table(f"{run_dir}/predictions.parquet").to_pandas().set_index("call_id")
    assert len(frame) == summary.calls_read
    assert len(known) > 0
    names = ["prob_low", "prob_mid", "prob_high"]
    np.testing.assert_allclose(frame.loc[known.index, names], known[names], atol=1e-5)


def read_table(location: Any) -> Any:
    filesystem, path = storage.open_location(location)
    return pq.read_table(path, filesystem=filesystem)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["extract", "--run-dir", "{bucket}/x", "--data.root", "s3://nowhere/x"], "--data.root s3://nowhere/x: no such folder"),
        (
            ["extract", "--run-dir", "s3://nowhere/x", "--data.root", "."],
            "--run-dir s3://nowhere/x: there is no bucket nowhere",
        ),
        (
            ["train", "--run-dir", "s3://nowhere/%EC%8B%A0%EA%B3%A0%20x"],
            "--run-dir s3://nowhere/신고 x: there is no bucket nowhere",
        ),
        (
            ["predict", "--model", "s3://nowhere/m", "--output", "{bucket}/o.csv", "--data.root", "."],
            "--model s3://nowhere/m: there is no bucket nowhere",
        ),
        (
            ["predict", "--model", "{bucket}/m", "--output", "s3://nowhere/o.csv", "--data.root", "."],
            "--output s3://nowhere/o.csv: there is no bucket nowhere",
        ),
    ],
)
def test_a_bucket_that_is_not_there_is_one_line(
    bucket: Any, command: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([part.format(bucket=bucket) for part in command]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {said}")


def test_a_lease_in_a_bucket_keeps_the_second_out_and_is_taken_over_from_the_dead(
    bucket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    location = f"{bucket}/runs/leased/train.lease"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, location], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    who = f"train: process {holder.pid} on .* is at it already"
    with pytest.raises(RequestError, match=who), lease.hold(location, "train"):
        pass
    holder.kill()
    holder.wait()
    with lease.hold(location, "train"):
        assert json.loads(storage.read_text(location))["pid"] == os.getpid()
    assert "train: taken over from process" in caplog.text
    assert not storage.exists(location)


def test_a_table_larger_than_one_part_arrives_whole(bucket: Any) -> None:
    table = pa.table({"noise": np.random.default_rng(0).random(3 << 20)})  # 24 MiB; parts are 10 MiB
    storage.write_table(f"{bucket}/large.parquet", table)
    assert read_table(f"{bucket}/large.parquet").equals(table)


def test_small_files_in_a_store_are_merged(bucket: Any) -> None:
    folder = f"{bucket}/many/status=embedded"
    parts = [pa.table({"call_id": [f"{number:02}"], "noise": [float(number)]}) for number in range(40)]
    for number, part in enumerate(parts):
        storage.write_table(f"{folder}/{number:02}.parquet", part)
    compact(f"{bucket}/many", few=10)
    filesystem, path = storage.open_location(folder)
    (merged,) = filesystem.get_file_info(fs.FileSelector(path))
    assert read_table(f"{folder}/{merged.base_name}").equals(pa.concat_tables(parts))


def test_runs_in_a_store_are_compared_as_local_ones(bucket: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = [make_run(tmp_path / "a", [0, 0, 1, 1, 0, 2]), make_run(tmp_path / "b", [0, 0, 1, 1, 2, 2])]
    remote = [f"{bucket}/compared/{name}" for name in ("a", "b")]
    for source, target in zip(local, remote, strict=True):
        storage.copy_dir(source, target)
    assert cli.main(["compare", *local]) == 0
    table = capsys.readouterr().out
    assert cli.main(["compare", *remote]) == 0
    assert capsys.readouterr().out == table and "called differently: 1 of 6 common calls" in table
    pages = [storage.read_text(storage.join(run, "compare.html")) for run in (local[0], remote[0])]
    assert [len(page.splitlines()) for page in pages] == [len(pages[0].splitlines())] * 2
