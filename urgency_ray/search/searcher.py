"""The study as Ray Tune's searcher: what to try next, and a note of all that came of it."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher

from urgency_ray.search.journal import Journal
from urgency_ray.search.space import SearchSpace
from urgency_ray.search.trial import METRIC
from urgency_ray.telemetry import TrialScores


class StudySearch(Searcher):
    """Asks an Optuna study for Ray Tune's trials, keeps all that is known of them in it, and goes on with those once begun."""

    def __init__(self, space: SearchSpace, study: optuna.Study, sampler: Any, journal: Journal) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.space = space
        # Which trial to stop is ASHA's business.
        pruner = optuna.pruners.NopPruner()
        self.study = optuna.load_study(study_name=study.study_name, storage=journal.storage, sampler=sampler, pruner=pruner)
        self.publish = journal.publish
        self.begun = [
            _reopen(self.study, journal.storage, trial.number)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]
        self.trials: dict[str, optuna.Trial] = {}
        self.ended: set[str] = set()
        self.epochs: dict[str, dict[int, float]] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self.spent = study.user_attrs.get("seconds", 0.0)
        self.started = time.monotonic()
        self.scores = TrialScores()

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next point: that of a trial that was begun and not ended, else a new one."""
        # Optuna gives a parameter that a trial has already as it is.
        trial = self.trials[trial_id] = self.begun.pop(0) if self.begun else self.study.ask()
        return self.space(trial)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note an epoch; one that a trial repeats, since its process was lost, stays as it was."""
        self.last[trial_id] = result
        if "failed" in result or trial_id in self.ended:
            return
        self.epochs.setdefault(trial_id, {})[result["epoch"]] = result["val_macro_f1"]
        self.scores.set(self.trials[trial_id].number, result[METRIC])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The reported value is ignored")
            self.trials[trial_id].report(result[METRIC], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """End a trial: complete, pruned (by ASHA or the time budget) or failed, as is one whose score is no number."""
        if trial_id in self.ended:
            return
        if result and METRIC in result:
            self.on_trial_result(trial_id, result)
        trial, last = self.trials[trial_id], self.last.get(trial_id, {})
        scores = self.epochs.get(trial_id, {})
        trial.set_user_attr("val_macro_f1", [scores[epoch] for epoch in sorted(scores)])
        for name in ("started", "seconds", "spread", "failed"):
            if name in last:
                trial.set_user_attr(name, last[name])
        if error or "failed" in last or math.isnan(last.get(METRIC, 0.0)):
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE if last.get("finished") else TrialState.PRUNED
        self.study.tell(trial, last[METRIC] if state == TrialState.COMPLETE else None, state=state)
        self.ended.add(trial_id)
        self.study.set_user_attr("seconds", self.spent + time.monotonic() - self.started)
        self.publish()

    def close(self) -> None:
        """End the trials that the time budget cut short, which Ray Tune tells nobody of."""
        for trial_id in self.trials:
            self.on_trial_complete(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is what a search is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def _reopen(study: optuna.Study, kept: BaseStorage, number: int) -> optuna.Trial:
    """The trial of that number, which is running, to go on with in its own place.

    `Study.ask` gives new trials only. The constructor is public, but Optuna does not recommend its use.
    """
    study_id = kept.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, kept.get_trial_id_from_study_id_trial_number(study_id, number))
