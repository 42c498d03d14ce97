"""A run, told to whoever tracks it. A tracker that fails costs its own curves and a warning, never the training."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from urgency_ray.config import Config
from urgency_ray.errors import RequestError, first_line
from urgency_ray.run_folder import RunFolder
from urgency_ray.secret import blot
from urgency_ray.tracking.tensorboard import LiveCurves
from urgency_ray.tracking.tracker import Ended, Epochs, Tracker, TrialNote

log = logging.getLogger(__name__)

GATHER_SEC = 1.0
"""So long epochs are gathered: a small model has many a second, and each message to a server takes its time."""
PATIENCE_SEC = 120.0
"""So long trackers are waited for at the end."""

_Message = tuple[str, Mapping[str, Any]] | TrialNote | Ended | None
"""An epoch, a trial, a result, or that there is none."""


class Tracking:
    """Tells each tracker what it is told, in its order, on a thread of its own: a slow one holds up nobody but itself."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._lines = [_Line(tracker) for tracker in trackers]
        self._told: set[int] = set()
        self._has_ended = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Tune keeps a copy of all that its searcher knows: it has nobody to tell.
        return Tracking, ((),)

    def epochs(self, epochs: Epochs) -> None:
        """Epochs of models that are being trained, as they end."""
        for epoch in epochs:
            self._tell(epoch)

    def trials(self, trials: Sequence[TrialNote]) -> None:
        """Trials that have ended; those that were told before may be among them."""
        for trial in trials:
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._tell(trial)

    def end(self, ended: Ended) -> None:
        """What the run came to, once, at its end."""
        self._close(ended)

    def fail(self) -> None:
        """Where `end` has not been called, there will be no result."""
        if not self._has_ended:
            self._close(None)

    def _tell(self, message: _Message) -> None:
        for line in self._lines:
            line.messages.put(message)

    def _close(self, last: Ended | None) -> None:
        self._has_ended = True
        self._tell(last)
        until = time.monotonic() + PATIENCE_SEC
        for line in self._lines:
            line.thread.join(max(0.0, until - time.monotonic()))
            if line.thread.is_alive():
                log.warning("warning: %s has not taken all within %g s: what is missing stays so", line.name, PATIENCE_SEC)


class _Line:
    """The way to one tracker: nothing else touches it once the thread runs."""

    def __init__(self, tracker: Tracker) -> None:
        self.name = tracker.name
        self.messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._pass_on, args=(tracker,), daemon=True)
        self.thread.start()

    def _pass_on(self, tracker: Tracker) -> None:
        try:
            while self._pass_some_on(tracker):
                pass
        except Exception as error:  # of whichever library
            said = blot(first_line(error))
            log.warning("warning: %s does not take what it is told (%s): this run is tracked there no more", self.name, said)

    def _pass_some_on(self, tracker: Tracker) -> bool:
        """Gather messages for a while and pass them on; whether more will come."""
        found, until = [self.messages.get()], time.monotonic() + GATHER_SEC
        with contextlib.suppress(queue.Empty):
            while not isinstance(found[-1], Ended | None):
                found.append(self.messages.get(timeout=max(0.0, until - time.monotonic())))
        if epochs := [message for message in found if isinstance(message, tuple)]:
            tracker.epochs(epochs)
        for message in found:
            if isinstance(message, TrialNote):
                tracker.trial(message)
            elif isinstance(message, Ended):
                tracker.end(message)
            elif message is None:
                tracker.fail()
        return not isinstance(found[-1], Ended | None)


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
    try:
        if config.track.mlflow_uri is not None:
            from urgency_ray.tracking.mlflow import MlflowTracker

            trackers.append(MlflowTracker(config, run_dir, kind))
        if config.track.wandb_project is not None:
            from urgency_ray.tracking.wandb import WandbTracker

            trackers.append(WandbTracker(config, run_dir, kind))
    except RequestError:
        Tracking(trackers).fail()
        raise
    tracking = Tracking(trackers)
    try:
        yield tracking
    finally:
        tracking.fail()
