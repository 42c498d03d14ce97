"""What a trial of the search runs: `fit` on a config with the trial's fields, over folds and seeds in lockstep.

Plain trials share long-lived processes; a trial of several workers is a Ray Train job of its own.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune
import torch
from numpy.typing import NDArray
from ray.train import RunConfig, ScalingConfig
from ray.util.queue import Empty, Queue

from urgency_ray.config import Config, iter_fields
from urgency_ray.errors import RequestError
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import Epoch, epochs
from urgency_ray.training.trainer import Trainer

METRIC = "best_val_macro_f1"

Parts = Sequence[tuple[NDArray[Any], NDArray[Any]]]
"""Numbers of the train and of the val examples, for each split that a trial is scored on."""


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


def trial_config(params: dict[str, Any], base: dict[str, Any]) -> Config:
    """The base config with the fields of a trial's point (which also holds the raw draws behind a simplex)."""
    known = {name for name, _ in iter_fields()}
    config = Config.model_validate(base).replace({name: value for name, value in params.items() if name in known})
    # A step sees the rows that all workers of the winner's training will see together.
    rows, workers = config.train.batch_size * config.train.num_workers, config.tune.workers_per_trial
    return config.replace({"train.batch_size": -(-rows // workers), "train.num_workers": workers})


class Trial(ray.tune.Trainable):
    """A process that runs one trial after another, an epoch at each step: it imports torch and maps the embeddings once."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Take what `search.run_search` shares with all trials, and begin the first trial."""
        self.base, self.parts = shared["base"], shared["parts"]
        self.data: TrainingData = shared["data"].get()
        self.device = torch.device("cuda") if ray.get_gpu_ids() else None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        config = trial_config(new_config, self.base)
        torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))
        self.rows = trial_rows(config, self.data, self.parts, self.device)
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

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Start the workers.

        Args:
            config: the trial's point.
            shared: what `search.run_search` shares; `folder` takes what Ray Train notes of its runs, and `send` is told the id
                of the trial and the placement group of its workers: what is left behind if this process is killed.
        """
        chosen = trial_config(config, shared["base"])
        tune = chosen.tune
        self.num_workers = tune.workers_per_trial
        self.wanted, self.rows = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        resources = {"CPU": tune.cpus_per_trial} | ({"GPU": tune.gpus_per_trial} if tune.gpus_per_trial else {})
        settings = {name: shared[name] for name in ("data", "parts", "send")} | {"trial": self.trial_id}
        trainer = Trainer(
            _work,
            train_loop_config={**settings, "config": chosen.model_dump(), "wanted": self.wanted, "rows": self.rows},
            scaling_config=ScalingConfig(
                num_workers=self.num_workers, use_gpu=tune.gpus_per_trial > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(name=self.trial_id, storage_path=shared["folder"]),
        )
        self.training = ThreadPoolExecutor(1).submit(trainer.fit)

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

    def cleanup(self) -> None:
        """Have the workers end; `fit` returns once their placement group is gone."""
        self._tell(False)
        wait([self.training])

    def _tell(self, go_on: bool) -> None:
        # One for each: none can take a second one before all have trained the epoch of the first.
        self.wanted.put_nowait_batch([go_on] * self.num_workers)


def _work(settings: dict[str, Any]) -> None:
    config = Config.model_validate(settings["config"])
    torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))
    data = settings["data"].get()
    first = ray.train.get_context().get_world_rank() == 0
    if first:
        settings["send"]((settings["trial"], ray.util.get_current_placement_group()))
    rows = trial_rows(config, data, settings["parts"], ray.train.torch.get_device())
    while settings["wanted"].get():
        row = next(rows)
        if first:
            settings["rows"].put(row)
        if row["finished"]:
            return
