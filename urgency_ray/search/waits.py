"""What a search says while none of its trials finds a place on the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.tune

from urgency_ray.cluster import Waiting
from urgency_ray.config.search_sections import TuneConfig

LOOK_SEC = 5.0
QUIET_SEC = 24.0
"""So long the processes of trials may take to start before anything is said."""


class TrialWaits(ray.tune.Callback):
    """Ray Tune callback: where no trial is at work for `QUIET_SEC`, it says so, and what is held by others.

    Args:
        tune: the search.
        wait_sec: as `ray.wait_sec`, after which the search ends in a WorkError.
        is_placed: whether workers of a trial are known to have their place; None where a trial is a process of its own, whose
            place Ray Tune knows of.
    """

    def __init__(self, tune: TuneConfig, wait_sec: float | None, is_placed: Callable[[], bool] | None = None) -> None:
        self.tune = tune
        self.is_placed = is_placed
        self.waiting = Waiting(wait_sec)
        self.looked = self.worked = time.monotonic()

    def on_step_end(self, iteration: int, trials: Sequence[Any], **info: Any) -> None:
        """Look, every `LOOK_SEC`, whether a trial is at work."""
        if time.monotonic() < self.looked + LOOK_SEC:
            return
        self.looked = time.monotonic()
        if self.is_placed() if self.is_placed is not None else any(trial.status == "RUNNING" for trial in trials):
            self.worked = self.looked
            self.waiting.end()
        elif self.looked - self.worked >= QUIET_SEC:
            self._say()

    def _say(self) -> None:
        tune, free = self.tune, ray.available_resources()  # type: ignore[no-untyped-call]
        wanted = {"CPU": tune.cpus_per_trial, "GPU": tune.gpus_per_trial}
        if all(free.get(name, 0.0) >= tune.workers_per_trial * amount for name, amount in wanted.items()):
            self.waiting.end()
            self.waiting.note("the processes of trials, which start")
            return
        gpus = f" and {tune.gpus_per_trial:g} GPUs" if tune.gpus_per_trial else ""
        workers = f"{tune.workers_per_trial} workers of " if tune.workers_per_trial > 1 else ""
        self.waiting.say(f"{workers}{tune.cpus_per_trial:g} CPUs{gpus} to run a trial on")
