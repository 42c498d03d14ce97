"""The engine of the search: Ray Tune runs trials, Optuna's multivariate TPE says which, ASHA stops those that fall behind."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
import time
import uuid
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import ray
import ray.tune
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import PlacementGroup

from urgency_ray import cluster, storage
from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.run_folder import SearchFolder
from urgency_ray.search.journal import Journal
from urgency_ray.search.space import SearchSpace
from urgency_ray.search.study import ended_trials
from urgency_ray.search.trial import (
    END_SEC,
    METRIC,
    Abandoned,
    Begun,
    DistributedTrial,
    DistributedTrialOrders,
    Parts,
    Placed,
    Trial,
    TrialOrders,
)
from urgency_ray.search.waits import TrialWaits
from urgency_ray.telemetry import TrialScores
from urgency_ray.training.shared import SharedData

log = logging.getLogger(__name__)


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


class _TrialLog(ray.tune.Callback):
    def __init__(self, num_done: int, num_trials: int) -> None:
        self.num_done = num_done
        self.num_trials = num_trials

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result
        scores = f"validation macro-F1 {result.get(METRIC, 0.0):.3f} after {result.get('epoch', 0)} epochs"
        how = "finished" if result.get("finished") else "stopped by ASHA"
        self._say(f"failed: {result['failed']}" if "failed" in result else f"{scores}, {how}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say("failed: its process was lost or ended in an error")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        log.warning("warning: a process of a trial was lost or ended in an error; the trial begins anew")

    def _say(self, words: str) -> None:
        self.num_done += 1
        log.info("trial %d of %d: %s", self.num_done, self.num_trials, words)


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


def num_concurrent(config: Config) -> int:
    """How many trials run at once.

    Raises:
        RequestError: the cluster holds none.
    """
    tune = config.tune
    nodes = cluster.nodes()
    if not cluster.count_places(nodes, tune.cpus_per_trial):
        most_cpus = max(node.cpus for node in nodes)
        raise RequestError(
            f"tune.cpus_per_trial: {tune.cpus_per_trial:g} CPUs fit no node of the cluster; set at most {most_cpus:g}"
        )
    workers = cluster.count_places(nodes, tune.cpus_per_trial, tune.gpus_per_trial)
    if not workers:
        raise RequestError(
            f"tune.gpus_per_trial: {tune.gpus_per_trial:g} GPUs, but the cluster has {cluster.num_gpus()}, and no node that "
            f"many beside {tune.cpus_per_trial:g} CPUs"
        )
    if workers < tune.workers_per_trial:
        raise RequestError(
            f"tune.workers_per_trial: {tune.workers_per_trial} workers of {tune.cpus_per_trial:g} CPUs do not fit the cluster, "
            f"which holds {workers}; lower it or tune.cpus_per_trial"
        )
    most = workers // tune.workers_per_trial
    return min(tune.max_concurrent or most, most)


def run_search(
    config: Config, data: SharedData, parts: Parts, *, study: optuna.Study, journal: Journal, folder: SearchFolder
) -> list[str]:
    """Run the trials that `study` lacks of `tune.num_trials`, within what is left of `tune.time_budget_sec`.

    Args:
        config: the base of all trials; the point of its own values is the first.
        data: the trials' `TrainingData`, in the object store.
        parts: as `trial_rows` takes them.
        study: new, or one to go on with: trials that were begun and not ended run again, in their own place.
        journal: where the study is kept.
        folder: takes what trials of several workers leave.

    Returns:
        What Ray says of trials that failed for no reason of their own, a line each.

    Raises:
        WorkError: none found a place within `ray.wait_sec`.
    """
    tune = config.tune
    ended = ended_trials(study)
    left_sec = None if tune.time_budget_sec is None else tune.time_budget_sec - study.user_attrs.get("seconds", 0.0)
    left = tune.num_trials - len(ended)
    if left <= 0 or (left_sec is not None and left_sec <= 0):
        return []
    space = SearchSpace(tune.space)
    if ended:
        log.info("%d of %d trials have been run already", len(ended), tune.num_trials)
    elif not study.get_trials(deepcopy=False):
        try:
            study.enqueue_trial(space.locate(config))
        except ValueError as outside:
            log.warning("warning: %s: the config's own values are not the first trial", outside)
    searcher = StudySearch(space, study, build_sampler(config, study), journal)
    # Ray Tune's own files serve nobody, and it must not take a Ctrl-C for the end of the search.
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}
    # Its traceback of a lost process says less than the line of `_TrialLog`.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    placements = PlacementGroups()
    waits = TrialWaits(tune, config.ray.wait_sec, (lambda: bool(placements.groups)) if tune.workers_per_trial > 1 else None)
    relay: Any = cluster.Relay(placements.note, 0.2) if tune.workers_per_trial > 1 else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as scratch, contextlib.closing(placements), relay as send:
        results = ray.tune.Tuner(
            _trainable(TrialOrders(config, data, parts), folder, send),
            tune_config=ray.tune.TuneConfig(
                search_alg=searcher,
                scheduler=rebuild_scheduler(config, study),
                num_samples=left,
                max_concurrent_trials=num_concurrent(config),
                time_budget_s=left_sec,
                reuse_actors=tune.workers_per_trial == 1,
            ),
            run_config=ray.tune.RunConfig(
                name=f"search-{uuid.uuid4().hex[:8]}",
                storage_path=scratch,
                failure_config=ray.tune.FailureConfig(max_failures=tune.max_failures),
                # Trials leave no checkpoint: one that is lost begins anew.
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[_TrialLog(len(ended), tune.num_trials), placements, waits],
                verbose=0,
            ),
        ).fit()
    searcher.close()
    return [(str(error).strip().splitlines() or [repr(error)])[-1] for error in results.errors]


def _trainable(orders: TrialOrders, folder: SearchFolder, send: cluster.Send | None) -> Any:
    tune = orders.base.tune
    if send is None:
        resources = {"cpu": tune.cpus_per_trial, "gpu": tune.gpus_per_trial}
        return ray.tune.with_resources(ray.tune.with_parameters(Trial, orders=orders), resources)
    # The trial only waits for its workers, and any part of a CPU could be what they lack: it asks for a byte.
    distributed = DistributedTrialOrders(orders.base, orders.data, orders.parts, storage.absolute(folder.ray), send)
    return ray.tune.with_resources(ray.tune.with_parameters(DistributedTrial, orders=distributed), {"memory": 1.0})


def build_sampler(config: Config, study: optuna.Study) -> Any:
    """A multivariate TPE that takes running trials for bad ones, lest the next ones crowd around them."""
    tune = config.tune
    # A search that goes on must not draw the numbers of its beginning again.
    seeds = np.random.SeedSequence([tune.seed, len(study.get_trials(deepcopy=False))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=int(seeds.generate_state(1)[0]),
            n_startup_trials=tune.startup_trials,
            multivariate=True,
            group=any(dimension.when for dimension in tune.space.values()),
            constant_liar=True,
        )


def rebuild_scheduler(config: Config, study: optuna.Study) -> Any:
    """ASHA, which has seen what the study's trials have reached."""
    scheduler: Any = ASHAScheduler(
        time_attr="epoch",
        metric=METRIC,
        mode="max",
        max_t=config.train.epochs,
        grace_period=min(config.tune.grace_epochs, config.train.epochs),
        reduction_factor=config.tune.reduction_factor,
    )
    for trial in ended_trials(study):
        seen = SimpleNamespace(trial_id=f"study-{trial.number}")
        scheduler.on_trial_add(None, seen)
        for epoch, score in sorted(trial.intermediate_values.items()):
            scheduler.on_trial_result(None, seen, {"epoch": epoch, METRIC: score})
        scheduler.on_trial_remove(None, seen)
    return scheduler
