"""The engine of the search: Ray Tune runs trials, Optuna's multivariate TPE says which, ASHA stops those that fall behind."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import uuid
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import ray
import ray.tune
from ray.tune.schedulers import ASHAScheduler

from urgency_ray import cluster, storage
from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.progress import Bar
from urgency_ray.run_folder import SearchFolder
from urgency_ray.search.callbacks import PlacementGroups, TrialLog
from urgency_ray.search.journal import Journal
from urgency_ray.search.searcher import StudySearch
from urgency_ray.search.space import SearchSpace
from urgency_ray.search.study import ended_trials
from urgency_ray.search.trial import (
    METRIC,
    DistributedTrial,
    DistributedTrialOrders,
    Parts,
    Trial,
    TrialOrders,
)
from urgency_ray.search.waits import TrialWaits
from urgency_ray.training.shared import SharedData

log = logging.getLogger(__name__)


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
        num_gpus = sum(node.gpus for node in nodes)
        raise RequestError(
            f"tune.gpus_per_trial: {tune.gpus_per_trial:g} GPUs, but the cluster has {num_gpus:g}, and no node that "
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
    # Its traceback of a lost process says less than the line of `TrialLog`.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    placements = PlacementGroups()
    waits = TrialWaits(tune, config.ray.wait_sec, (lambda: bool(placements.groups)) if tune.workers_per_trial > 1 else None)
    relay: Any = cluster.Relay(placements.note, 0.2) if tune.workers_per_trial > 1 else contextlib.nullcontext()
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.closing(placements),
        relay as send,
        Bar("trials", left) as bar,
    ):
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
                callbacks=[TrialLog(len(ended), tune.num_trials, bar), placements, waits],
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
