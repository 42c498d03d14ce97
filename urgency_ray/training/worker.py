"""A Ray Train worker. Most are processes that import this module before they can begin: what it does not need stays out."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint

from urgency_ray import storage
from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.training.fit import Epoch, State, fit
from urgency_ray.training.shared import SharedData

STATE_FILE = "state.pt"
SAVE_SEC = 5.0
"""A better epoch that comes sooner after a checkpoint is not worth the wait for another: small models improve many times a
second."""
RESULT = ("best_model", "history")
"""What stays of the last epoch's state once a model has come to its end."""

LAST = "last"
"""Beside an epoch's metrics: whether it is the model's last."""

Send = Callable[[tuple[str, dict[str, Any]]], None]
"""Tells the driver the name of a model and the metrics of one of its epochs, with `LAST`."""


@dataclass(frozen=True)
class Task:
    """One model that the workers train.

    Attributes:
        name: of the model, among those of one training.
        config: the whole config.
        data: embeddings and labels.
        result: where `RESULT` is left; a model whose result is there already is not trained again.
    """

    name: str
    config: Config
    data: SharedData
    result: str


@dataclass(frozen=True)
class Orders:
    """What the driver gives each worker.

    Attributes:
        tasks: the models, in their order.
        dealt: whether each is trained by one worker, who takes every so manieth, as a training of one worker would; else all
            workers are at one model, and share its batches.
        cpus: logical CPUs of one worker, and so its threads.
        send: tells the driver of an epoch.
    """

    tasks: tuple[Task, ...]
    dealt: bool
    cpus: float
    send: Send


def read_result(location: str) -> State:
    """`RESULT` of a model that came to its end, on the CPU."""
    return _read_state(storage.read_bytes(location))


def train_worker(orders: Orders) -> FloatingPointError | RequestError | None:
    """What each Ray Train worker runs: `fit` for each model, with reports and checkpoints through Ray Train.

    Returns:
        Why the training could not go on, for the driver to raise, the same on all workers; None where it came to its end.
    """
    torch.set_num_threads(max(1, int(orders.cpus)))
    if orders.dealt:
        context = ray.train.get_context()
        error = _train_each(orders.tasks[context.get_world_rank() :: context.get_world_size()], orders.send)
        if not dist.is_initialized():
            return error
        errors: list[FloatingPointError | RequestError | None] = [None] * context.get_world_size()
        dist.all_gather_object(errors, error)
        return next((error for error in errors if error is not None), None)
    resume = _load_checkpoint()
    for task in orders.tasks:
        if storage.exists(task.result):
            continue
        try:
            _train(task, orders.send, resume if resume is not None and resume["task"] == task.name else None)
        except (FloatingPointError, RequestError) as error:
            # Raised here, it would be tried again `train.max_failures` times, and come to the same end.
            return error
    return None


def _train_each(tasks: Sequence[Task], send: Send) -> FloatingPointError | RequestError | None:
    """Train models by this worker alone. Ray Train's checkpoints are of all workers at once: these lie beside the results."""
    for task in tasks:
        if storage.exists(task.result):
            continue
        try:
            _train_alone(task, send)
        except (FloatingPointError, RequestError) as error:
            return error
    return None


def _train_alone(task: Task, send: Send) -> None:
    checkpoint, saved = f"{task.result}.state", time.monotonic()

    def report(epoch: Epoch) -> None:
        nonlocal saved
        send((task.name, epoch.metrics | {LAST: epoch.last}))
        if epoch.last:
            storage.write_bytes(task.result, _pack({name: epoch.state()[name] for name in RESULT}))
        elif _is_regular(task, epoch) or (epoch.improved and time.monotonic() - saved > SAVE_SEC):
            storage.write_bytes(checkpoint, _pack(epoch.state()))
            saved = time.monotonic()

    resume = _read_state(storage.read_bytes(checkpoint)) if storage.exists(checkpoint) else None
    fit(task.config, task.data.get(), report, device=ray.train.torch.get_device(), resume=resume, alone=True)
    storage.remove_file(checkpoint)


class Clock:
    """Says when a checkpoint is due for the time that has passed since the last, the same on all workers."""

    def __init__(self) -> None:
        self.saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether rank 0's last checkpoint is more than `SAVE_SEC` old."""
        passed = torch.tensor(time.monotonic() - self.saved, device=ray.train.torch.get_device())
        if dist.is_initialized():
            dist.broadcast(passed, 0)
        return float(passed) > SAVE_SEC

    def note(self) -> None:
        """A checkpoint was written."""
        self.saved = time.monotonic()


def _train(task: Task, send: Send, resume: State | None) -> None:
    first, clock = ray.train.get_context().get_world_rank() == 0, Clock()

    def report(epoch: Epoch) -> None:
        if first:
            send((task.name, epoch.metrics | {LAST: epoch.last}))
        if epoch.last and first:
            # Before the last checkpoint: one that has ended is never without its result.
            storage.write_bytes(task.result, _pack({name: epoch.state()[name] for name in RESULT}))
        if epoch.last or _is_regular(task, epoch) or (epoch.improved and clock.is_due()):
            # Every rank must report, with or without a checkpoint: the call is a barrier.
            with tempfile.TemporaryDirectory() as folder:
                if first:
                    torch.save(epoch.state() | {"task": task.name}, Path(folder) / STATE_FILE)
                ray.train.report(epoch.metrics, checkpoint=Checkpoint.from_directory(folder) if first else None)
            clock.note()

    fit(task.config, task.data.get(), report, device=ray.train.torch.get_device(), resume=resume)


def _is_regular(task: Task, epoch: Epoch) -> bool:
    return bool(epoch.metrics["epoch"] % task.config.train.checkpoint_epochs == 0)


def _load_checkpoint() -> State | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return _read_state(Path(folder, STATE_FILE).read_bytes())


def _pack(state: State) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def _read_state(content: bytes) -> State:
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
