"""What a user can hand in broken, through the command line: a line that names it, exit code 2, before Ray is up."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from faults import check_fault
from odd_checkpoints import LFS, ODD, WEIGHT, change, cut, drop, no_change, put, save_electra, want_code
from safetensors.torch import load_file, save_file
from shared_runs import KnownCorpus
from tiny_checkpoints import save_model

from urgency_ray import cli, cluster, lease
from urgency_ray.config import Config
from urgency_ray.run_folder import RunFolder
from urgency_ray.search.journal import open_journal
from urgency_ray.search.study import begin_study

Damage = Callable[[Path], object]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is joined is a fault that was noticed too late."""
    monkeypatch.setattr(cluster, "connect", lambda _: pytest.fail("Ray was started"))


def poison(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point() and "temperature" not in name)
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


WEIGHTS: dict[str, tuple[Damage, str]] = {
    "pointer": (put("model.safetensors", LFS), "Git-LFS pointer"),
    "cut": (cut, "is cut"),
    "empty": (put("model.safetensors", b""), "is empty"),
    "NaN": (poison, "NaN or infinite values"),
    "no config": (drop("config.json"), "config"),
    "gone": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize("case", ODD)
def test_extract_with_what_is_no_encoder(
    corpus: KnownCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    section, save, damage, said = ODD[case]
    folder, run_dir = tmp_path / "encoder", tmp_path / "run"
    save(folder)
    damage(folder)
    arguments = ["--data.root", corpus[0], "--run-dir", run_dir, f"--{section}_encoder.name", folder]
    line = check_fault(capsys, str(folder), "extract", *arguments)
    assert re.search(said, line)
    assert not run_dir.exists(), "nothing is left of a request that was refused"


@pytest.mark.parametrize("damage", [no_change, shutil.rmtree, want_code])
def test_extract_and_predict_with_what_is_no_transcriber(
    corpus: KnownCorpus, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage
) -> None:
    folder = tmp_path / "transcriber"
    save_electra(folder)
    damage(folder)
    calls = ["--data.root", corpus[0], "--transcriber.name", folder]
    for arguments in (
        ["extract", "--run-dir", tmp_path / "run"],
        ["predict", "--model", model, "--output", tmp_path / "o.csv"],
    ):
        check_fault(capsys, f"transcriber {folder}: ", *arguments, *calls)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", Config())
    return tmp_path / "model"


def newer(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["experts"], config["urgency_ray_version"] = 4, "99.0.0"
    path.write_text(json.dumps(config), encoding="utf-8")


OF_MODELS: dict[str, tuple[Damage, str]] = {
    "gone": (shutil.rmtree, "holds no model.safetensors"),
    "newer version": (newer, "made by urgency_ray 99.0.0"),
}


@pytest.mark.parametrize("damage", WEIGHTS | OF_MODELS)
def test_predict_with_a_damaged_model(
    corpus: KnownCorpus, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    apply, named = (WEIGHTS | OF_MODELS)[damage]
    apply(model)
    output = tmp_path / "out.csv"
    check_fault(capsys, named, "predict", "--model", model, "--data.root", corpus[0], "--output", output)
    assert not output.exists()
    check_fault(capsys, named, "evaluate", "--run-dir", tmp_path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (shutil.rmtree, "its text encoder was the folder"),
        (lambda folder: change(folder, WEIGHT, lambda weights: weights + 1), "its transform cannot be repeated here"),
    ],
)
def test_predict_with_a_model_whose_encoder_is_gone_or_another(
    corpus: KnownCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage, named: str
) -> None:
    folder, output = tmp_path / "encoder", tmp_path / "out.csv"
    save_electra(folder)
    save_model(tmp_path / "model", Config().replace({"text_encoder.name": str(folder)}), text_dim=24)
    damage(folder)
    line = check_fault(capsys, named, "predict", "--model", tmp_path / "model", "--data.root", corpus[0], "--output", output)
    assert "text_encoder" in line


def test_a_folder_of_weights_has_no_revisions(corpus: KnownCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_electra(tmp_path / "encoder")
    arguments = ["--data.root", corpus[0], "--run-dir", tmp_path / "run", "--text_encoder.name", tmp_path / "encoder"]
    check_fault(capsys, "a folder, which has no revisions", "extract", *arguments, "--text_encoder.revision", "nosuch")


def test_calls_that_are_not_there_are_missed_before_the_nodes_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_electra(tmp_path / "encoder")
    arguments = ["--data.root", tmp_path / "none", "--run-dir", tmp_path / "run", "--text_encoder.name", tmp_path / "encoder"]
    check_fault(capsys, "no such folder", "extract", *arguments)


@pytest.mark.parametrize(
    "content", [b"train: {epochs: [", b"\xff\xfe", b"train: 3\n", b"trian: {}\n", b"train: {epochs: -1}\n"]
)
@pytest.mark.parametrize("command", ["extract", "train", "tune", "evaluate"])
def test_a_run_folder_whose_config_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, content: bytes
) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    check_fault(capsys, "config.yaml", command, "--run-dir", tmp_path)


Artefacts = list[Any]


def make_artefacts(folder: Path, audio: float = 1.0) -> Artefacts:
    """Options of `import` for 60 rows whose audio embeddings are of this size."""
    labels = pd.DataFrame({"file_id": [f"call{row}" for row in range(60)], "text": "불이야", "urgency_y": np.arange(60) % 3})
    labels.to_csv(folder / "metadata.csv", index=False)
    vectors: dict[str, Any] = {"audio": audio * np.eye(60, 8, dtype=np.float32), "text": np.eye(60, 8, dtype=np.float32)}
    np.savez(folder / "embeddings.npz", **vectors)
    return ["--metadata", folder / "metadata.csv", "--embeddings", folder / "embeddings.npz"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder of embeddings that were imported."""
    assert cli.main(["import", *map(str, make_artefacts(tmp_path)), "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + bytes(range(256)) + b"\x40\0\0\0PAR1", LFS])
@pytest.mark.parametrize("command", ["train", "tune", "export"])
def test_embeddings_that_cannot_be_read(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, content: bytes
) -> None:
    (path,) = (run_dir / "embeddings").rglob("*.parquet")
    path.write_bytes(content)
    space = ["--tune.space", "{model.dropout: {type: float, low: 0, high: 0.5}}"]
    options = make_artefacts(tmp_path) if command == "export" else space
    line = check_fault(capsys, str(path), command, "--run-dir", run_dir, *options)
    assert "run extract on it again" in line


def test_embeddings_not_one_of_which_is_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artefacts, run_dir = make_artefacts(tmp_path, audio=np.nan), tmp_path / "run"
    named = "not one call could be embedded: 60 calls read = 0 embedded + 60 rejected (60 invalid_embedding)"
    check_fault(capsys, named, "import", *artefacts, "--run-dir", run_dir, code=1)
    check_fault(capsys, "", "evaluate", "--run-dir", run_dir)


@pytest.mark.parametrize("content", [b"", b"{[", b"[3]", b"\xff\xfe\x00", LFS])
@pytest.mark.parametrize("name", ["extract.json", "metrics.json", "history.json", "tune/metrics.json", "tune/trials.parquet"])
def test_a_file_of_a_run_folder_that_report_cannot_read(
    run_dir: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    (run_dir / name).parent.mkdir(exist_ok=True)
    (run_dir / name).write_bytes(content)
    check_fault(capsys, name, "report", "--run-dir", run_dir)


@pytest.mark.parametrize("choices", ["[64, 64]", "[64, wide]", "[]", "3"])
def test_a_space_that_is_none(run_dir: Path, capsys: pytest.CaptureFixture[str], choices: str) -> None:
    space = f"{{model.hidden_dim: {{type: categorical, choices: {choices}}}}}"
    check_fault(capsys, "tune.space", "tune", "--run-dir", run_dir, "--tune.space", space)


def test_a_search_that_stands_in_the_way_and_one_that_is_not_there(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune = ["tune", "--run-dir", run_dir, "--tune.space", "{model.dropout: {type: float, low: 0, high: 0.5}}"]
    check_fault(capsys, "holds no search; start one without --resume", *tune, "--resume")
    with open_journal(RunFolder(str(run_dir)).search) as journal:
        begin_study(journal, Config(), "digest", resume=False, run_dir=str(run_dir))
    check_fault(capsys, "holds a search that has not ended; go on with it by --resume", *tune)


def test_the_second_of_two_commands_on_one_run_folder(
    corpus: KnownCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["extract", "--data.root", corpus[0], "--run-dir", tmp_path / "run"]
    with lease.hold(RunFolder(str(tmp_path / "run")).lease("extract"), "extract"):
        line = check_fault(capsys, f"process {os.getpid()} on", *arguments)
    assert "is at it already" in line


MANIFESTS = {"calls.csv": b"audio,text\nno.wav,\xff\n", "calls.jsonl": b'{"audio": "no.wav"}\n', "calls.parquet": LFS}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(MANIFESTS[name])
    check_fault(capsys, f"--data.manifest {path}: ", "extract", "--data.manifest", path, "--run-dir", tmp_path / "run")


@pytest.mark.parametrize("output", ["", "file/out.csv", "out.txt"])
def test_predictions_that_could_not_be_written(
    corpus: KnownCorpus, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_bytes(b"")
    named = tmp_path / (output or "folder.csv")
    check_fault(capsys, f"--output {named}: ", "predict", "--model", model, "--data.root", corpus[0], "--output", named)
