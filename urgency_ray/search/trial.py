"""What a trial of the search runs: `fit` on a config with the trial's fields, over folds and seeds in lockstep.

Plain trials share long-lived processes; a trial of several workers is a Ray Train job of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune
import torch
from numpy.typing import NDArray
from ray.train import RunConfig, ScalingConfig
from ray.util.placement_group import PlacementGroup
from ray.util.queue import Empty, Queue

from urgency_ray import cluster
from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import Epoch, epochs
from urgency_ray.training.shared import SharedData
from urgency_ray.training.torch_trainer import Trainer

METRIC = "best_val_macro_f1"
# Workers that are asked to end wait for just that, and Ray Train takes them down within seconds: after a minute they hang.
# Other trials wait for their CPUs meanwhile.
END_SEC = 60.0
# Ray Tune ends the process as soon as it has cleaned up.
SEND_SEC = 5.0

Parts = Sequence[tuple[NDArray[Any], NDArray[Any]]]
"""Numbers of the train and of the val examples, for each split that a trial is scored on."""


@dataclass(frozen=True)
class TrialOrders:
    """What the driver gives each trial.

    Attributes:
        base: the config whose fields a trial's point replaces.
        data: embeddings and labels.
        parts: the splits that the trial is scored on.
    """

    base: Config
    data: SharedData
    parts: Parts


@dataclass(frozen=True)
class Begun:
    """Tells the driver that a trial's process is about to start workers: what it is told of them after this is of now."""

    trial: str


@dataclass(frozen=True)
class Placed:
    """Tells the driver that a trial's workers have started, and what they hold: it stays behind if their process is killed."""

    trial: str
    group: PlacementGroup


@dataclass(frozen=True)
class Abandoned:
    """Tells the driver that a trial's workers have not ended though they should have."""

    trial: str


@dataclass(frozen=True)
class DistributedTrialOrders(TrialOrders):
    """What the driver gives each trial of several workers.

    Attributes:
        folder: takes what Ray Train notes of its runs.
        send: tells the driver `Placed` and `Abandoned`.
    """

    folder: str
    send: cluster.Send


@dataclass(frozen=True)
class TrialWorkerOrders:
    """What a trial gives each of its workers.

    Attributes:
        config: the trial's config.
        data: embeddings and labels.
        parts: the splits that the trial is scored on.
        trial: the trial's id.
        send: tells the driver `Placed`.
        wanted: whether to train another epoch: an answer for each worker, each time.
        rows: takes a row of `trial_rows` after each epoch.
    """

    config: Config
    data: SharedData
    parts: Parts
    trial: str
    send: cluster.Send
    wanted: Queue
    rows: Queue


def trial_rows(config: Config, data: TrainingData, parts: Parts, device: torch.device | None) -> Iterator[dict[str, Any]]:
    """A row after each epoch of a trial: its means over `parts` and `tune.repeats` seeds, all trained an epoch at a time.

    In lockstep ASHA compares trials on the mean itself, at the cost of as many models in memory. One whose early stop has come
    keeps its scores while the others go on.

    Yields:
        `epoch`; `val_macro_f1` of that epoch; METRIC, that of each one's best epoch so far, and `spread`, their standard
        deviation where there are several; `finished`, whether all have ended; `seconds` since the trial's start. Where the
        training cannot go on (the loss overflows), a last row says why in `failed`.
    """
    started = time.time()
    seeds = [(config.train.seed + repeat) % 2**32 for repeat in range(config.tune.repeats)]
    runs = [
        epochs(config.replace({"train.seed": seed}), dataclasses.replace(data, train=train, val=val), device=device)
        for train, val in parts
        for seed in seeds
    ]
    latest: list[Epoch | None] = [None] * len(runs)
    row: dict[str, Any] = {"epoch": 0, METRIC: 0.0, "finished": False}
    while not row["finished"]:
        try:
            latest = [epoch if epoch and epoch.last else next(run) for run, epoch in zip(runs, latest, strict=True)]
        except (FloatingPointError, RequestError) as error:
            yield row | {"finished": True, "failed": str(error), "started": started, "seconds": time.time() - started}
            return
        ended = [epoch for epoch in latest if epoch is not None]
        best = [epoch.metrics[METRIC] for epoch in ended]
        row = {
            "epoch": row["epoch"] + 1,
            "val_macro_f1": statistics.fmean(epoch.metrics["val_macro_f1"] for epoch in ended),
            METRIC: statistics.fmean(best),
            "finished": all(epoch.last for epoch in ended),
        }
        if len(best) > 1:
            row["spread"] = statistics.stdev(best)
        yield row | {"started": started, "seconds": time.time() - started}


def trial_config(params: dict[str, Any], base: Config) -> Config:
    """The base config with the fields of a trial's point."""
    config = base.replace(params)
    # A step sees the rows that all workers of the winner's training will see together.
    rows, workers = config.train.batch_size * config.train.group_size, config.tune.workers_per_trial
    return config.replace({"train.batch_size": -(-rows // workers), "train.num_workers": workers})


class Trial(ray.tune.Trainable):
    """A process that runs one trial after another, an epoch at each step: it imports torch and maps the embeddings once."""

    def setup(self, config: dict[str, Any], *, orders: TrialOrders) -> None:  # type: ignore[override]
        """Begin the first trial, whose point is `config`; `ray.tune.with_parameters` gives the orders."""
        self.orders = orders
        self.data = orders.data.get()
        self.device = torch.device("cuda") if ray.get_gpu_ids() else None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        config = trial_config(new_config, self.orders.base)
        torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))
        self.rows = trial_rows(config, self.data, self.orders.parts, self.device)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch."""
        row = next(self.rows)
        return row | {"done": row["finished"]}


class DistributedTrial(ray.tune.Trainable):
    """A trial of `tune.workers_per_trial` Ray Train workers, which begin an epoch when it is wanted and end when asked to.

    Ray Tune ends the process of a trial that ASHA stops, and Ray Train's controller with it: the workers' placement group would
    stay, and no other trial would find room.
    """

    def setup(self, config: dict[str, Any], *, orders: DistributedTrialOrders) -> None:  # type: ignore[override]
        """Start the workers of the trial whose point is `config`; `ray.tune.with_parameters` gives the orders."""
        # Of a cluster that was joined, the processes have the environment of its nodes.
        cluster.set_environment()
        chosen = trial_config(config, orders.base)
        tune = chosen.tune
        self.send = orders.send
        self.num_workers = tune.workers_per_trial
        self.wanted, self.rows = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        resources = {"CPU": tune.cpus_per_trial} | ({"GPU": tune.gpus_per_trial} if tune.gpus_per_trial else {})
        work = TrialWorkerOrders(
            chosen, orders.data, orders.parts, self.trial_id, send=orders.send, wanted=self.wanted, rows=self.rows
        )
        trainer = Trainer(
            functools.partial(_work, work),
            scaling_config=ScalingConfig(
                num_workers=self.num_workers, use_gpu=tune.gpus_per_trial > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(name=self.trial_id, storage_path=orders.folder),
        )
        self.send(Begun(self.trial_id), wait_sec=SEND_SEC)
        self.training: Future[None] = Future()
        # Not an executor's thread, which this process would wait for at its end though the workers hang.
        threading.Thread(target=_fulfil, args=(self.training, trainer.fit), daemon=True).start()

    def step(self) -> dict[str, Any]:
        """Have all workers train one epoch."""
        self._tell(True)
        while True:
            ended = self.training.done()
            try:
                row: dict[str, Any] = self.rows.get(timeout=1.0)
            except Empty:
                if ended:
                    raise RuntimeError("the workers ended before the trial did") from self.training.exception()
            else:
                return row | {"done": row["finished"]}

    def cleanup(self, end_sec: float = END_SEC) -> None:
        """Have the workers end; `fit` returns once their placement group is gone. After `end_sec` the driver is to free it."""
        self._tell(False)
        if wait([self.training], end_sec).not_done:
            self.send(Abandoned(self.trial_id), wait_sec=SEND_SEC)

    def _tell(self, go_on: bool) -> None:
        # One for each: none can take a second one before all have trained the epoch of the first.
        self.wanted.put_nowait_batch([go_on] * self.num_workers)


def _fulfil(future: Future[None], run: Callable[[], Any]) -> None:
    try:
        run()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)


def _work(orders: TrialWorkerOrders) -> None:
    config = orders.config
    torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))
    data = orders.data.get()
    first = ray.train.get_context().get_world_rank() == 0
    if first:
        group = ray.util.get_current_placement_group()
        assert group is not None, "Ray Train places its workers in a group"
        orders.send(Placed(orders.trial, group))
    rows = trial_rows(config, data, orders.parts, ray.train.torch.get_device())
    while orders.wanted.get():
        row = next(rows)
        if first:
            orders.rows.put(row)
        if row["finished"]:
            return
