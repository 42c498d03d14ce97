"""A Ray Train worker. Each is a process that imports this module before it can begin: what it does not need stays out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint

from urgency_ray.config import Config
from urgency_ray.training.fit import Epoch, fit
from urgency_ray.training.shared import SharedData

STATE_FILE = "state.pt"


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `Epoch.state` made of an epoch, on the CPU."""
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
        return state


@dataclass(frozen=True)
class Orders:
    """What the driver gives each worker.

    Attributes:
        config: the whole config.
        data: embeddings and labels.
        cpus: logical CPUs of one worker, and so its threads.
        send: tells the driver the metrics of each epoch.
    """

    config: Config
    data: SharedData
    cpus: float
    send: Callable[[dict[str, Any]], None]


def train_worker(orders: Orders) -> str | None:
    """What each Ray Train worker runs: `fit`, with reports and checkpoints through Ray Train.

    Returns:
        Why the training could not go on, the same on all workers; None where it came to its end.
    """
    config = orders.config
    torch.set_num_threads(max(1, int(orders.cpus)))
    checkpoint = ray.train.get_checkpoint()
    resume = None if checkpoint is None else load_state(checkpoint)

    def report(epoch: Epoch) -> None:
        if ray.train.get_context().get_world_rank() == 0:
            orders.send(epoch.metrics)
        saves = epoch.improved or epoch.last or epoch.metrics["epoch"] % config.train.checkpoint_epochs == 0
        if not saves or ray.train.get_context().get_world_rank() > 0:
            # Every rank must report, with or without a checkpoint: the call is a barrier.
            ray.train.report(epoch.metrics)
            return
        # Of equal scores Ray keeps the latest; the first epoch with the best score is the one that counts.
        score = {"score": epoch.metrics["val_score"] if epoch.improved else -1.0}
        with tempfile.TemporaryDirectory() as folder:
            torch.save(epoch.state(), Path(folder) / STATE_FILE)
            ray.train.report(epoch.metrics | score, checkpoint=Checkpoint.from_directory(folder))

    device = ray.train.torch.get_device()
    try:
        fit(config, orders.data.get(), report, device=device, resume=resume)
    except FloatingPointError as error:
        # Raised here, it would be tried again `train.max_failures` times, and come to the same end.
        return str(error)
    return None
