"""What Ray Tune tells of trials: to the user, a line each; and what workers of a trial hold, lest it be held for ever."""

from __future__ import annotations

import logging
from typing import Any

import ray
import ray.tune
from ray.util.placement_group import PlacementGroup

from urgency_ray.progress import Bar
from urgency_ray.search.trial import END_SEC, METRIC, Abandoned, Begun, Placed

log = logging.getLogger(__name__)


class TrialLog(ray.tune.Callback):
    """Logs how each trial ended, `num_done` of `num_trials` had before; of those that failed alike, the first.

    `bar` is of those that are left.
    """

    def __init__(self, num_done: int, num_trials: int, bar: Bar) -> None:
        self.num_done = num_done
        self.num_trials = num_trials
        self._bar = bar
        self._failures: set[str] = set()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result
        scores = f"validation macro-F1 {result.get(METRIC, 0.0):.3f} after {result.get('epoch', 0)} epochs"
        how = "finished" if result.get("finished") else "stopped by ASHA"
        if "failed" in result:
            self._say_failed(result["failed"])
        else:
            self._say(f"{scores}, {how}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say_failed("its process was lost or ended in an error")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        log.warning("warning: a process of a trial was lost or ended in an error; the trial begins anew")

    def _say_failed(self, words: str) -> None:
        self._say(None if words in self._failures else f"failed: {words}")
        self._failures.add(words)

    def _say(self, words: str | None) -> None:
        self.num_done += 1
        if words is not None:
            log.info("trial %d of %d: %s", self.num_done, self.num_trials, words)
        ended, elapsed = self._bar.total - (self.num_trials - self.num_done), self._bar.elapsed()
        self._bar.show(ended, f"{60 * ended / elapsed:,.1f} trials/min", elapsed)


class PlacementGroups(ray.tune.Callback):
    """Frees what the workers of a trial hold when its process is lost or they do not end, lest others wait for it for ever."""

    def __init__(self) -> None:
        self.groups: dict[str, PlacementGroup] = {}
        # Trials whose process was lost and has not begun again: news of its workers can come later than that of its loss.
        self.over: set[str] = set()

    def note(self, messages: list[Begun | Placed | Abandoned]) -> None:
        """Take what trials of several workers send, on the thread of the relay."""
        for message in messages:
            if isinstance(message, Begun):
                self.over.discard(message.trial)
            elif isinstance(message, Placed):
                self.groups[message.trial] = message.group
                if message.trial in self.over:
                    self._free(message.trial)
            else:
                log.warning("warning: the workers of a trial that was over did not end within %g s and are killed", END_SEC)
                self._free(message.trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._free(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._free(trial.trial_id)

    def close(self) -> None:
        """Free those of all trials: Ray Tune kills one whose epoch goes on after the time budget."""
        for trial_id in list(self.groups):
            self._free(trial_id)

    def _free(self, trial_id: str) -> None:
        self.over.add(trial_id)
        group = self.groups.pop(trial_id, None)
        if group is not None:
            ray.util.remove_placement_group(group)
