from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray.train.torch
import torch
from fitting import SMALL

from urgency_ray.config import Config
from urgency_ray.training import worker
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import Worker

pytestmark = pytest.mark.usefixtures("one_thread")


class KilledError(Exception):
    """What takes a worker's process away."""


def make_data() -> TrainingData:
    rng = np.random.default_rng(0)
    audio, text, acoustic = (rng.standard_normal((60, dim)).astype(np.float32) for dim in (6, 5, 5))
    return TrainingData(audio, text, acoustic, np.arange(60) % 3, np.full(60, -1), np.arange(45), np.arange(45, 60))


def make_task(name: str, folder: Path) -> Any:
    config = Config().replace(SMALL | {"train.epochs": 6, "train.checkpoint_epochs": 2, "train.early_stop_epochs": None})
    return worker.Task(name, config, SimpleNamespace(get=make_data), f"{folder}/{name}.pt")  # type: ignore[arg-type]


@pytest.fixture
def in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is one of two data-parallel workers."""
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(Worker, "current", lambda device: pytest.fail("the member is trained by all workers"))


@pytest.mark.usefixtures("in_a_group")
def test_a_member_goes_on_from_its_own_checkpoint_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = make_task("whole", tmp_path), make_task("broken", tmp_path)
    assert worker._train_each([whole], lambda message: None) is None
    sent: list[int] = []

    def send(message: Any) -> None:
        sent.append(message[1]["epoch"])
        if sent == [1, 2, 3, 4, 5]:
            raise KilledError

    with pytest.raises(KilledError):
        worker._train_each([broken], send)
    assert Path(f"{broken.result}.state").exists() and not Path(broken.result).exists()
    assert worker._train_each([whole, broken], send) is None
    # Of the one that had come to its end nothing is sent; epoch 5 came after the last checkpoint.
    assert sent == [1, 2, 3, 4, 5, 5, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"whole.pt", "broken.pt"}
    first, second = worker.read_result(whole.result), worker.read_result(broken.result)
    assert all(torch.equal(value, second["best_model"][name]) for name, value in first["best_model"].items())


@pytest.mark.usefixtures("in_a_group")
def test_a_member_that_cannot_be_trained_ends_what_its_worker_has_to_do(tmp_path: Path) -> None:
    task = make_task("broken", tmp_path)
    config = task.config.replace({"train.learning_rate": 1e30, "train.clip_norm": None})
    broken = worker.Task("broken", config, task.data, task.result)
    error = worker._train_each([broken, make_task("next", tmp_path)], lambda message: None)
    assert isinstance(error, FloatingPointError)
    assert not any(path.suffix == ".pt" for path in tmp_path.iterdir())
