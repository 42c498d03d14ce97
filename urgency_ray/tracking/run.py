"""A run, told to whoever tracks it. A tracker that fails costs its own curves and a warning, never the training."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from urgency_ray.config import Config
from urgency_ray.errors import first_line
from urgency_ray.run_folder import RunFolder
from urgency_ray.secret import blot
from urgency_ray.tracking.tensorboard import LiveCurves
from urgency_ray.tracking.tracker import Ended, Epochs, Tracker, TrialNote

log = logging.getLogger(__name__)

GATHER_SEC = 1.0
"""So long epochs are gathered: a small model has many a second, and each message to a server takes its time."""
PATIENCE_SEC = 120.0
"""So long what has been told is waited for at the end."""


class Tracking:
    """Tells each tracker what it is told."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)
        self._pending: queue.SimpleQueue[tuple[str, Mapping[str, Any]] | TrialNote | None] = queue.SimpleQueue()
        self._told: set[int] = set()
        self._has_ended = False
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Tune keeps a copy of all that its searcher knows: it has nobody to tell.
        return Tracking, ((),)

    def epochs(self, epochs: Epochs) -> None:
        """Epochs of models that are being trained, as they end."""
        for epoch in epochs:
            self._pending.put(epoch)

    def trials(self, trials: Sequence[TrialNote]) -> None:
        """Trials that have ended; those that were told before may be among them."""
        for trial in trials:
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._pending.put(trial)

    def end(self, ended: Ended) -> None:
        """What the run came to, once, at its end."""
        self._close(lambda tracker: tracker.end(ended))

    def fail(self) -> None:
        """Where `end` has not been called, there will be no result."""
        if not self._has_ended:
            self._close(lambda tracker: tracker.fail())

    def _close(self, last: Callable[[Tracker], None]) -> None:
        self._has_ended = True
        self._pending.put(None)
        self._thread.join(PATIENCE_SEC)
        self._tell(last)

    def _pass_on(self) -> None:
        while True:
            messages, until = [self._pending.get()], time.monotonic() + GATHER_SEC
            with contextlib.suppress(queue.Empty):
                while messages[-1] is not None:
                    messages.append(self._pending.get(timeout=max(0.0, until - time.monotonic())))
            if epochs := [message for message in messages if isinstance(message, tuple)]:
                self._tell(functools.partial(_tell_epochs, epochs))
            for trial in (message for message in messages if isinstance(message, TrialNote)):
                self._tell(functools.partial(_tell_trial, trial))
            if None in messages:
                return

    def _tell(self, message: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                message(tracker)
            except Exception as error:  # of whichever library
                self._trackers.remove(tracker)
                said = blot(first_line(error))
                log.warning(
                    "warning: %s does not take what it is told (%s): this run is tracked there no more", tracker.name, said
                )


def _tell_epochs(epochs: Epochs, tracker: Tracker) -> None:
    tracker.epochs(epochs)


def _tell_trial(trial: TrialNote, tracker: Tracker) -> None:
    tracker.trial(trial)


def check_trackers(config: Config) -> None:
    """Look, before the work, whether those that the config names are there.

    Raises:
        RequestError: a library is missing, a server does not answer, or nobody is logged in.
    """
    if config.track.mlflow_uri is not None:
        from urgency_ray.tracking.mlflow import connect

        connect(config.track.mlflow_uri)
    if config.track.wandb_project is not None:
        from urgency_ray.tracking.wandb import check

        check()


@contextlib.contextmanager
def track(config: Config, run_dir: str, kind: Literal["train", "tune"]) -> Iterator[Tracking]:
    """Track a command's run as `config.track` says; a training's curves go to the run folder's tensorboard/ in any case.

    Raises:
        RequestError: as `check_trackers`.
    """
    trackers: list[Tracker] = [LiveCurves(RunFolder(run_dir).tensorboard)] if kind == "train" else []
    if config.track.mlflow_uri is not None:
        from urgency_ray.tracking.mlflow import MlflowTracker

        trackers.append(MlflowTracker(config, run_dir, kind))
    if config.track.wandb_project is not None:
        from urgency_ray.tracking.wandb import WandbTracker

        trackers.append(WandbTracker(config, run_dir, kind))
    tracking = Tracking(trackers)
    try:
        yield tracking
    finally:
        tracking.fail()
