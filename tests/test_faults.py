"""What a user can hand in broken, through the command line: one line that names it, exit code 2, before Ray is up."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from odd_checkpoints import LFS, ODD, cut, drop, put
from safetensors.torch import load_file, save_file
from shared_runs import KnownCorpus

from urgency_ray import cli, cluster
from urgency_ray.config import ModelConfig
from urgency_ray.fingerprint import Fingerprint, Transform
from urgency_ray.model.classifier import UrgencyClassifier

Damage = Callable[[Path], object]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is joined is a fault that was noticed too late."""
    monkeypatch.setattr(cluster, "connect", lambda _: pytest.fail("Ray was started"))


def check_one_line(capsys: pytest.CaptureFixture[str], named: str, *arguments: object) -> str:
    """The command is refused in one line that holds `named`; returns it."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert named in line
    return line


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
    capsys.readouterr()
    line = check_one_line(capsys, str(folder), "extract", *arguments)
    assert re.search(said, line)
    assert not run_dir.exists(), "nothing is left of a request that was refused"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder on built-in encoders, as `train` writes it."""
    from urgency_ray.config import Config
    from urgency_ray.embedding.transform import make_fingerprint

    config = Config()
    fingerprint: Fingerprint = make_fingerprint(config)
    small = ModelConfig(hidden_dim=16, num_heads=2, num_layers=1, feedforward_dim=16, head_dim=8)
    kept = Transform.of(config, fingerprint).model_dump()
    UrgencyClassifier(small, 288, 512, False, kept).save_pretrained(tmp_path / "model")
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
    check_one_line(capsys, named, "predict", "--model", model, "--data.root", corpus[0], "--output", output)
    assert not output.exists()


@pytest.mark.parametrize(
    "content", [b"train: {epochs: [", b"\xff\xfe", b"train: 3\n", b"trian: {}\n", b"train: {epochs: -1}\n"]
)
@pytest.mark.parametrize("command", ["extract", "train", "tune", "evaluate"])
def test_a_run_folder_whose_config_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, content: bytes
) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    check_one_line(capsys, "config.yaml", command, "--run-dir", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + bytes(range(256)) + b"\x40\0\0\0PAR1", LFS])
@pytest.mark.parametrize("command", ["train", "tune", "export"])
def test_embeddings_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, content: bytes
) -> None:
    labels = pd.DataFrame({"file_id": [f"call{row}" for row in range(60)], "text": "불이야", "urgency_y": np.arange(60) % 3})
    labels.to_csv(tmp_path / "metadata.csv", index=False)
    vectors: dict[str, Any] = {name: np.eye(60, 8, dtype=np.float32) for name in ("audio", "text")}
    np.savez(tmp_path / "embeddings.npz", **vectors)
    artefacts = ["--metadata", str(tmp_path / "metadata.csv"), "--embeddings", str(tmp_path / "embeddings.npz")]
    run_dir = tmp_path / "run"
    assert cli.main(["import", *artefacts, "--run-dir", str(run_dir)]) == 0
    (path,) = (run_dir / "embeddings").rglob("*.parquet")
    path.write_bytes(content)
    capsys.readouterr()
    options = artefacts if command == "export" else ["--tune.space", "{model.dropout: {type: float, low: 0, high: 0.5}}"]
    line = check_one_line(capsys, str(path), command, "--run-dir", run_dir, *options)
    assert "run extract on it again" in line
