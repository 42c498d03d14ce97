import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import ray
from noted_calls import note_embedded
from shared_runs import Extracted, KnownCorpus

from urgency_ray.calls.plan import plan_calls
from urgency_ray.cli import main
from urgency_ray.commands.extract import extract
from urgency_ray.config import Config
from urgency_ray.embedding.ledger import account
from urgency_ray.embedding.pipeline import embed_calls, plan_actors
from urgency_ray.embedding.transform import make_fingerprint, pin_arithmetic
from urgency_ray.encoders.arithmetic import Arithmetic
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import load_examples
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import embedding_schema


def calls_of(extracted: Extracted) -> str:
    """The folder of the calls that were extracted."""
    root = extracted[2].data.root
    assert root is not None
    return root


def read_rows(run_dir: Any) -> Any:
    return pads.dataset(f"{run_dir}/embeddings", partitioning="hive").to_table().to_pandas()


def test_the_arithmetic_of_a_run_is_one_that_all_nodes_of_its_cluster_have() -> None:
    def ask(question: Callable[[], Arithmetic], *, on_gpu: bool) -> list[Arithmetic]:
        return [Arithmetic("bfloat16", "AMX"), Arithmetic("float32", "an old node"), Arithmetic("bfloat16", "AMX")]

    config = pin_arithmetic(Config().replace({"audio_encoder.name": "models/a", "text_encoder.name": "models/t"}), 0, ask)
    assert (config.audio_encoder.dtype, config.text_encoder.dtype) == ("float32", "float32")
    asked = Config().replace({"audio_encoder.name": "models/a", "audio_encoder.dtype": "int8"})
    assert pin_arithmetic(asked, 0, ask) == asked


def test_every_call_read_is_embedded_or_rejected_with_its_reason(extracted: Extracted, corpus: KnownCorpus) -> None:
    run_dir, summary, config = extracted
    known = corpus[1]
    assert summary.calls_read == known.num_calls == 100
    assert summary.calls_embedded + summary.calls_rejected == summary.calls_read
    assert summary.rejected_by_reason == dict(Counter(flaw.flaw for flaw in known.flaws))
    rows = read_rows(run_dir)
    rejects = rows[rows["status"] == "rejected"].set_index("call_id")["reason"]
    assert rejects.to_dict() == {flaw.stem: flaw.flaw for flaw in known.flaws}
    assert sorted(rows["call_id"]) == sorted(plan_calls(config.data)["call_id"].to_pylist())
    assert json.loads(Path(run_dir, "extract.json").read_text(encoding="utf-8")) == summary.model_dump()
    assert summary.files is not None
    assert summary.files.seen == summary.files.read + sum(summary.files.not_read.values())
    assert sum(summary.files.calls_by_split.values()) >= summary.calls_embedded


def test_the_run_folder_is_laid_out_as_the_contract_says(extracted: Extracted) -> None:
    run_dir, summary, _ = extracted
    assert {path.name for path in Path(run_dir, "embeddings").iterdir()} == {"status=embedded", "status=rejected"}
    rows = pads.dataset(f"{run_dir}/embeddings", partitioning="hive")
    made_by = Fingerprint.of_schema(rows.schema)
    assert made_by is not None
    assert made_by.model_dump() == summary.fingerprint.model_dump()
    assert summary.fingerprint.audio_encoder["name"] == "spectral"
    assert pa.types.is_fixed_size_list(rows.schema.field("audio_embedding").type)
    assert summary.audio_sec == pytest.approx(read_rows(run_dir)["duration_sec"].sum(), abs=0.1)


def test_the_same_command_again_changes_nothing(extracted: Extracted) -> None:
    run_dir, summary, config = extracted
    files = {path: path.stat().st_mtime_ns for path in Path(run_dir).rglob("*") if path.is_file()}
    assert extract(config, run_dir) == summary
    assert files == {path: path.stat().st_mtime_ns for path in Path(run_dir).rglob("*") if path.is_file()}


def test_other_encoders_and_other_calls_are_refused_with_the_reason(extracted: Extracted, tmp_path: Path) -> None:
    run_dir, _, config = extracted
    with pytest.raises(
        RequestError, match=r"already holds other embeddings \(text_encoder\.hashing_dim: 512 there, 256 here\)"
    ):
        extract(config.replace({"text_encoder.hashing_dim": 256}), run_dir)
    (tmp_path / "x_1.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match=r"embeddings of 92 calls, 92 of which are there no more"):
        extract(config.replace({"data.root": str(tmp_path)}), run_dir)


def unpack(corpus: Path, folder: Path, flawed: set[str]) -> list[str]:
    """Write 12 calls of a corpus as plain files; their stems."""
    for archive in sorted(corpus.rglob("*.zip")):
        with zipfile.ZipFile(archive) as source:
            for name in source.namelist():
                (folder / Path(name).name).write_bytes(source.read(name))
    stems = sorted({path.stem for path in folder.iterdir()} - flawed)[:12]
    for path in folder.iterdir():
        if path.stem not in stems:
            path.unlink()
    return stems


@pytest.mark.parametrize("unit", ["call", pytest.param("utterance", marks=pytest.mark.nightly)])
def test_a_finished_run_grows_with_its_calls_and_ends_like_one_made_at_once(
    extracted: Extracted, corpus: KnownCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    calls, later, run_dir = tmp_path / "calls", tmp_path / "later", tmp_path / "run"
    calls.mkdir()
    later.mkdir()
    stems = unpack(corpus[0], calls, {flaw.stem for flaw in corpus[1].flaws})
    config = extracted[2].replace({"data.root": str(calls), "data.unit": unit})
    for name in (f"{stems[0]}.wav", f"{stems[1]}.json", f"{stems[2]}.wav", f"{stems[2]}.json"):
        shutil.move(calls / name, later / name)
    whole = (calls / f"{stems[3]}.wav").read_bytes()
    (calls / f"{stems[3]}.wav").write_bytes(whole[:1000])
    first = extract(config, str(run_dir))
    assert (first.calls_embedded, first.calls_rejected) == (8, 3)

    for path in later.iterdir():
        shutil.move(path, calls / path.name)
    (calls / f"{stems[3]}.wav").write_bytes(whole)
    label = json.loads((calls / f"{stems[4]}.json").read_text(encoding="utf-8"))
    (calls / f"{stems[4]}.json").write_text(json.dumps({**label, "sentiment": "중립", "urgencyLevel": "상"}), encoding="utf-8")
    for number, path in enumerate(sorted(calls.iterdir())):
        os.utime(path, (number, number))
    with monkeypatch.context() as patch:
        planned = note_embedded(patch, "extract")
        grown = extract(config, str(run_dir))
    assert planned == [stems[:5]]
    afresh = extract(config, str(tmp_path / "afresh"))
    assert {**grown.model_dump(), "wall_sec": 0} == {**afresh.model_dump(), "wall_sec": 0}
    assert grown.calls_embedded == 12
    ours, theirs = (read_rows(folder).sort_values("example_id", ignore_index=True) for folder in (run_dir, tmp_path / "afresh"))
    pd.testing.assert_frame_equal(ours, theirs)
    files = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert extract(config, str(run_dir)) == grown
    assert files == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert len(load_examples(str(run_dir))) == grown.rows_embedded


def test_calls_that_are_gone_are_refused_and_the_finished_run_stays_as_it_is(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    calls = shutil.copytree(calls_of(extracted), tmp_path / "calls")
    next(path for path in calls.rglob("TS_*.zip")).unlink()
    next(path for path in calls.rglob("TL_*.zip")).unlink()
    files = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(RequestError, match=r"holds embeddings of 92 calls, \d+ of which are there no more"):
        extract(extracted[2].replace({"data.root": str(calls)}), str(run_dir))
    assert files == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}


def test_a_run_that_is_killed_while_it_grows_is_an_unfinished_one(
    extracted: Extracted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    calls = shutil.copytree(calls_of(extracted), tmp_path / "calls")
    change_labels(next(path for path in calls.rglob("TL_*.zip")), "하", "상")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("urgency_ray.commands.extract.embed_calls", fail)
    with pytest.raises(KeyboardInterrupt):
        extract(extracted[2].replace({"data.root": str(calls)}), str(run_dir))
    with pytest.raises(RequestError, match="its extract has not finished"):
        load_examples(str(run_dir))


def interrupt(run_dir: Any) -> None:
    """Leave what a killed run leaves: no summary, some files never written, one cut off."""
    Path(run_dir, "extract.json").unlink()
    files = sorted(Path(run_dir, "embeddings").rglob("*.parquet"))
    for path in files[::3]:
        path.unlink()
    files[1].write_bytes(files[1].read_bytes()[:1000])


@pytest.mark.parametrize("unit", ["call", "utterance"])
def test_an_interrupted_run_goes_on_and_ends_like_an_unbroken_one(
    extracted: Extracted, utterances: Extracted, tmp_path: Path, unit: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, whole, config = {"call": extracted, "utterance": utterances}[unit]
    run_dir = str(shutil.copytree(made, tmp_path / "run"))
    rows = read_rows(run_dir).sort_values("example_id", ignore_index=True)
    interrupt(run_dir)
    with caplog.at_level("INFO", logger="urgency_ray"):
        again = extract(config, run_dir).model_dump()
    assert any("calls have their rows already" in message for message in caplog.messages)
    pd.testing.assert_frame_equal(read_rows(run_dir).sort_values("example_id", ignore_index=True), rows)
    assert {**again, "wall_sec": 0} == {**whole.model_dump(), "wall_sec": 0}


@pytest.mark.nightly
def test_a_label_changed_before_the_rest_is_done_is_read_again(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    calls = shutil.copytree(calls_of(extracted), tmp_path / "calls")
    interrupt(run_dir)
    change_labels(next(path for path in calls.rglob("TL_*.zip")), "하", "상")
    config = extracted[2].replace({"data.root": str(calls)})
    extract(config, str(run_dir))
    extract(config, str(tmp_path / "afresh"))
    ours, afresh = (read_rows(folder).sort_values("example_id", ignore_index=True) for folder in (run_dir, tmp_path / "afresh"))
    pd.testing.assert_frame_equal(ours, afresh)
    assert (ours["urgency"] == 0).sum() < (read_rows(extracted[0])["urgency"] == 0).sum()


def change_labels(archive: Any, old: Any, new: Any) -> None:
    """Write an archive again with other words in its members."""
    with zipfile.ZipFile(archive) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in members.items():
            target.writestr(name, content.replace(old.encode(), new.encode()))


def test_what_another_encoder_left_unfinished_is_refused(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    interrupt(run_dir)
    with pytest.raises(RequestError, match=r"text_encoder\.hashing_dim: 512 there, 256 here"):
        extract(extracted[2].replace({"text_encoder.hashing_dim": 256}), str(run_dir))


def test_calls_of_another_corpus_left_unfinished_are_refused(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    interrupt(run_dir)
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls" / "x_1.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match=r"which are there no more"):
        extract(extracted[2].replace({"data.root": str(tmp_path / "calls")}), str(run_dir))


def test_an_unfinished_run_is_not_trained_on(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    next(Path(run_dir, "embeddings", "status=embedded").iterdir()).unlink()
    with pytest.raises(RequestError, match="its extract has not finished, or files are missing"):
        load_examples(str(run_dir))


def test_a_killed_extract_is_named_before_its_files_are_read(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    interrupt(run_dir)
    with pytest.raises(RequestError, match="its extract has not finished"):
        load_examples(str(run_dir))


def test_files_that_a_finished_run_has_lost_are_made_again(
    extracted: Extracted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    rows = read_rows(run_dir).sort_values("example_id", ignore_index=True)
    next(Path(run_dir, "embeddings", "status=embedded").iterdir()).unlink()
    with caplog.at_level("INFO", logger="urgency_ray"):
        again = extract(extracted[2], str(run_dir))
    assert any("lacks files that it once had" in message for message in caplog.messages)
    pd.testing.assert_frame_equal(read_rows(run_dir).sort_values("example_id", ignore_index=True), rows)
    assert again.model_dump(exclude={"wall_sec"}) == extracted[1].model_dump(exclude={"wall_sec"})


def test_files_that_cannot_be_read_just_now_are_not_removed(
    extracted: Extracted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    Path(run_dir, "extract.json").unlink()
    files = {path: path.stat().st_mtime_ns for path in Path(run_dir).rglob("*.parquet")}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("Too many open files")

    monkeypatch.setattr("urgency_ray.embedding.recovery.pq.ParquetFile", fail)
    with pytest.raises(OSError, match="Too many open files"):
        extract(extracted[2], str(run_dir))
    assert files == {path: path.stat().st_mtime_ns for path in Path(run_dir).rglob("*.parquet")}


def test_a_run_that_embedded_nothing_fails_each_time(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    (calls / "a_20230101.wav").write_bytes(b"RIFF of nothing")
    (calls / "a_20230101.json").write_text("{}", encoding="utf-8")
    arguments = ["extract", "--data.root", str(calls), "--run-dir", str(tmp_path / "run")]
    lines = []
    for _ in range(2):
        assert main(arguments) == 1
        lines.append(capsys.readouterr().err.splitlines()[-1])
    assert lines[0] == lines[1]
    assert "not one call could be embedded" in lines[0]


@pytest.mark.nightly
def test_a_disk_that_is_gone_ends_the_run_and_rejects_no_call(
    extracted: Extracted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, calls, gone = extracted[1].model_dump(), tmp_path / "mounted" / "calls", tmp_path / "unmounted"
    shutil.copytree(calls_of(extracted), calls)
    config, run_dir = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(extracted[2].replace({"data.root": str(calls)}).to_yaml(), encoding="utf-8")
    arguments = ["extract", "--config", str(config), "--run-dir", str(run_dir)]

    def unmount_and_embed(*arguments: Any) -> Any:
        # Before it, the nodes were asked whether they see the calls.
        shutil.move(calls.parent, gone)
        return embed_calls(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("urgency_ray.commands.extract.embed_calls", unmount_and_embed)
        assert main(arguments) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "cannot be reached: FileNotFoundError" in line
    assert "run the command again later" in line
    assert not (run_dir / "extract.json").exists()
    shutil.move(gone, calls.parent)
    assert main(arguments) == 0
    again = json.loads((run_dir / "extract.json").read_text(encoding="utf-8"))
    assert {**again, "wall_sec": 0} == {**whole, "wall_sec": 0}


def test_a_run_folder_among_the_calls_is_refused(extracted: Extracted) -> None:
    config, root = extracted[2], calls_of(extracted)
    for run_dir in (root, f"{root}/runs/x", f"{root}/../{Path(root).name}/y"):
        with pytest.raises(RequestError, match=r"lies below data\.root, where its files would be taken for calls"):
            extract(config, run_dir)


def test_a_changed_label_is_noticed(ray_session: None, corpus: KnownCorpus, demo_config: Config, tmp_path: Path) -> None:
    calls = shutil.copytree(corpus[0], tmp_path / "calls")
    config = demo_config.replace({"data.root": str(calls)})
    manifest = plan_calls(config.data)
    change_labels(next(path for path in calls.rglob("TL_*.zip")), "하", "상")
    assert plan_calls(config.data)["num_bytes"] == manifest["num_bytes"]
    assert plan_calls(config.data)["version"] != manifest["version"]


def test_the_plan_is_cut_while_others_use_every_cpu(ray_session: None, corpus: KnownCorpus, demo_config: Config) -> None:
    class Other:
        def ready(self) -> bool:
            return True

    config = demo_config.replace({"data.root": str(corpus[0]), "extract.rows_per_block": 7})
    manifest = plan_calls(config.data)
    actor: Any = ray.remote(num_cpus=2)(Other)
    other = actor.remote()
    assert ray.get(other.ready.remote())
    with ThreadPoolExecutor(1) as pool:
        try:
            cut = pool.submit(embed_calls, manifest, config, make_fingerprint(config), print)
            done, _ = wait([cut], timeout=30)
        finally:
            ray.kill(other)
    assert done == {cut}


def test_utterance_rows_come_from_the_same_calls(utterances: Extracted, corpus: KnownCorpus) -> None:
    run_dir, summary, _ = utterances
    assert summary.calls_read == 100
    assert summary.calls_embedded == 100 - corpus[1].num_flawed
    assert summary.rows_embedded > 2 * summary.calls_embedded
    rows = read_rows(run_dir)
    heard = rows[rows["status"] == "embedded"]
    assert (heard["duration_sec"] >= 0.6 - 1e-3).all()
    assert heard["example_id"].is_unique


def test_rows_come_back_sorted_with_their_vectors(extracted: Extracted) -> None:
    run_dir, _, _ = extracted
    rows = read_rows(run_dir)
    rows = rows[rows["status"] == "embedded"].sort_values("example_id")
    examples = load_examples(run_dir)
    assert examples.keys["example_id"].tolist() == rows["example_id"].tolist()
    np.testing.assert_array_equal(examples.audio, np.stack(rows["audio_embedding"]))
    np.testing.assert_array_equal(examples.text, np.stack(rows["text_embedding"]))
    assert examples.urgency.tolist() == rows["urgency"].tolist()


def write_rows(folder: Any, rows: Any) -> None:
    schema = embedding_schema(2, 2, {})
    defaults = {
        "provider_split": "unknown",
        "status": "embedded",
        "duration_sec": 1.0,
        "num_windows": 1,
        "num_tokens_dropped": 0,
        "num_text_windows": 1,
    }
    table = pa.Table.from_pylist([{**defaults, **row} for row in rows], schema=schema)
    pads.write_dataset(table, folder, format="parquet", partitioning=["status"], partitioning_flavor="hive")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "a"), ("b", "b")], "1 planned calls have no row"),
        ([("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")], "1 rows .* are of no planned call"),
        ([("a", "a"), ("b", "b"), ("c", "c"), ("c", "c")], "1 rows were written twice"),
        ([("a/0000", "a"), ("a/0001", "a"), ("b", "b"), ("c/0001", "c"), ("a/0001", "a")], "1 rows were written twice"),
    ],
)
def test_accounting_sees_lost_and_doubled_rows(tmp_path: Path, rows: list[Any], message: str) -> None:
    write_rows(tmp_path, [{"example_id": example, "call_id": call} for example, call in rows])
    with pytest.raises(RuntimeError, match=message):
        account(str(tmp_path), pa.table({"call_id": ["a", "b", "c"]}))


def test_a_call_is_embedded_when_one_of_its_utterances_is(tmp_path: Path) -> None:
    rejected = {
        "status": "rejected",
        "duration_sec": None,
        "num_windows": None,
        "num_tokens_dropped": None,
        "num_text_windows": None,
    }
    write_rows(
        tmp_path,
        [
            {"example_id": "a/0", "call_id": "a", "num_windows": 2, "num_text_windows": 3},
            {"example_id": "a/1", "call_id": "a", **rejected, "reason": "too_short"},
            {"example_id": "b/0", "call_id": "b", **rejected, "reason": "no_text"},
            {"example_id": "b/1", "call_id": "b", **rejected, "reason": "too_short"},
        ],
    )
    counts = account(str(tmp_path), pa.table({"call_id": ["a", "b"]}))
    assert (counts.calls_read, counts.calls_embedded, counts.calls_rejected) == (2, 1, 1)
    assert counts.rejected_by_reason == {"no_text": 1}
    assert counts.rows_rejected_by_reason == {"too_short": 2, "no_text": 1}
    assert (counts.rows_windowed, counts.texts_windowed, counts.texts_truncated) == (1, 1, 0)


@pytest.mark.parametrize("nodes", [[1.0], [2.0], [4.0], [96.0], [4.0] * 16, [2.0, 64.0], [1.0, 1.0, 1.0]])
@pytest.mark.parametrize("audio", ["spectral", "facebook/data2vec-audio-base"])
def test_encoders_have_no_more_threads_than_there_are_cpus(nodes: Any, audio: str) -> None:
    hear, _ = plan_actors(Config().replace({"audio_encoder.name": audio}), nodes, 0)
    assert hear.num_actors * hear.threads <= sum(nodes)


@pytest.mark.parametrize("num_gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("asked", [None, 1, 3, 16])
def test_encoders_fit_the_gpus_wherever_ray_puts_them(num_gpus: int, asked: int | None) -> None:
    names = {"audio_encoder.name": "a", "text_encoder.name": "b", "extract.num_audio_encoders": asked}
    hear, read = plan_actors(Config().replace(names), [64.0], num_gpus)
    # Worst case: every text encoder on one card, and cards hold whole audio encoders only.
    held = read.num_actors * read.num_gpus
    places = int((1 - held + 1e-9) // hear.num_gpus) + (num_gpus - 1) * int(1 // hear.num_gpus)
    assert places >= hear.num_actors
    assert (hear.device, read.device) == ("cuda", "cuda")


def test_a_decode_task_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(RequestError, match=r"extract\.decode_cpus: 3 leaves no room .* set at most 1\.8"):
        plan_actors(Config().replace({"extract.decode_cpus": 3.0}), [2.0], 0)


def test_a_gpu_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(RequestError, match=r"extract\.use_gpu: true, but the cluster has no GPU"):
        plan_actors(Config().replace({"extract.use_gpu": True}), [2.0], 0)
    with pytest.raises(RequestError, match=r"^text_encoder\.dtype: int8 runs on CPUs"):
        plan_actors(Config().replace({"text_encoder.name": "b", "text_encoder.dtype": "int8"}), [2.0], 1)
