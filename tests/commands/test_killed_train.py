"""Real SIGKILLs in the middle of a training: of a Ray Train worker, of the driver. Dropout is on in all of them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from kills import find_workers, finish, kill_driver, kill_worker, running, wait_for_success, wait_until
from safetensors.torch import load_file

from urgency_ray.commands.interchange import import_artefacts
from urgency_ray.config import Config

NUM_ROWS, NUM_EPOCHS = 8000, 16
CHECKPOINT_EPOCHS = 4
OPTIONS = {
    "model.hidden_dim": 64,
    "model.num_layers": 1,
    "model.num_heads": 4,
    "model.feedforward_dim": 64,
    "model.head_dim": 32,
    "model.dropout": 0.3,
    "model.encoder_dropout": 0.2,
    "train.learning_rate": 1e-3,
    "train.epochs": NUM_EPOCHS,
    "train.early_stop_epochs": "null",
    "train.checkpoint_epochs": CHECKPOINT_EPOCHS,
}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """UrgencySense's pair of files: weak signal in much noise, so that the best epoch is not the last."""
    folder, rng = tmp_path_factory.mktemp("artefacts"), np.random.default_rng(0)
    urgency = rng.integers(0, 3, NUM_ROWS)
    frame = pd.DataFrame({"file_id": [f"call{row}" for row in range(NUM_ROWS)], "text": "불이야", "urgency_y": urgency})
    frame.to_csv(folder / "metadata.csv", index=False)
    arrays: dict[str, Any] = {
        name: (rng.standard_normal((3, 24))[urgency] + 8 * rng.standard_normal((NUM_ROWS, 24))).astype(np.float32)
        for name in ("audio", "text")
    }
    np.savez(folder / "embeddings.npz", **arrays)
    return str(folder / "metadata.csv"), str(folder / "embeddings.npz")


def make_run(artefacts: tuple[str, str], run_dir: Path) -> Path:
    import_artefacts(Config(), *artefacts, str(run_dir))
    return run_dir


def train(run_dir: Path, num_workers: int | None) -> Any:
    """Log file and arguments of the command."""
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", value)]
    workers = "null" if num_workers is None else num_workers
    return f"{run_dir}.log", "train", "--run-dir", run_dir, "--train.num_workers", workers, *options


@pytest.fixture(scope="module", params=[pytest.param(None, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.nightly)])
def unbroken(request: pytest.FixtureRequest, artefacts: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Number of workers, None where the command itself trains, and the folder of a run that nobody disturbed."""
    run_dir = make_run(artefacts, tmp_path_factory.mktemp("unbroken") / "run")
    assert logged_epochs(finish(*train(run_dir, request.param))) == list(range(1, NUM_EPOCHS + 1))
    return request.param, run_dir


def logged_epochs(log: Any) -> Any:
    return [int(number) for number in re.findall(r"^fused epoch (\d+):", log, re.MULTILINE)]


def wait_for_epoch(run_dir: Path, epoch: int, process: Any) -> None:
    log = Path(f"{run_dir}.log")
    wait_until(lambda: epoch in logged_epochs(log.read_text(encoding="utf-8")), process, log)


def assert_went_on(log: Any, after: Any) -> None:
    """After the kill training goes on behind the last checkpoint, at most so many epochs back as lie between two."""
    epochs = logged_epochs(log)
    turns = np.flatnonzero(np.diff(epochs) != 1)
    # Epochs that were done since come twice.
    assert len(turns) <= 1
    for turn in turns:
        # Or epochs are missing: lines can die with the driver, whose epochs were done.
        assert epochs[turn] >= after and epochs[turn + 1] > epochs[turn] - CHECKPOINT_EPOCHS
    assert epochs[0] == 1 and epochs.count(1) == 1 and epochs[-1] == NUM_EPOCHS


def assert_same_result(run_dir: Path, expected: Any) -> None:
    found, wanted = (json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8")) for folder in (run_dir, expected))
    assert found == wanted
    weights, others = (load_file(Path(folder, "model", "model.safetensors")) for folder in (run_dir, expected))
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=1e-6)
    histories = [json.loads(Path(folder, "history.json").read_text(encoding="utf-8")) for folder in (run_dir, expected)]
    found, wanted = ([{k: v for k, v in row.items() if k != "seconds"} for row in history] for history in histories)
    assert found == wanted


def test_after_the_loss_of_a_worker_training_ends_like_an_unbroken_one(
    artefacts: tuple[str, str], unbroken: Any, tmp_path: Path
) -> None:
    num_workers, expected = unbroken
    run_dir = make_run(artefacts, tmp_path / "run")
    with running(*train(run_dir, num_workers or 1)) as process:
        wait_for_epoch(run_dir, 6, process)
        group = find_workers(process, "RayTrainWorker")
        kill_worker(process, "RayTrainWorker")
        # Others take their place: the run does not end as if nothing had been lost.
        wait_until(lambda: find_workers(process, "RayTrainWorker") - group, process, f"{run_dir}.log")
        log = wait_for_success(process, f"{run_dir}.log")
    assert_went_on(log, after=6)
    assert_same_result(run_dir, expected)


def test_after_the_loss_of_the_driver_the_same_command_ends_like_an_unbroken_one(
    artefacts: tuple[str, str], unbroken: Any, tmp_path: Path
) -> None:
    num_workers, expected = unbroken
    run_dir = make_run(artefacts, tmp_path / "run")
    with running(*train(run_dir, num_workers)) as process:
        wait_for_epoch(run_dir, 6, process)
        kill_driver(process)
    assert not Path(run_dir, "metrics.json").exists()
    assert_went_on(finish(*train(run_dir, num_workers)), after=6)
    assert_same_result(run_dir, expected)
