"""Search for the best validation macro-F1: Ray Tune, Optuna's TPE and ASHA around `fit.fit`.

Trials see train and val only. The winner is trained again through Ray Train, by the very path that `train --config best.yaml`
takes, and scored once on test.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pandas as pd
import pyarrow as pa
import ray.tune
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from urgency_ray import cluster, storage
from urgency_ray.config import Config, ConfigError, iter_fields, searched_fields
from urgency_ray.dataset import label_counts
from urgency_ray.evaluate import predict_examples, score_splits
from urgency_ray.finetune import load_tokenizer
from urgency_ray.fit import Epoch, TrainingData, fit
from urgency_ray.leaks import leak_warnings
from urgency_ray.search_space import SearchSpace, check_space, read_field
from urgency_ray.shared import SharedData, SharedInputs
from urgency_ray.train import make_transform, prepare, read_transcripts, save_model, train_model

log = logging.getLogger(__name__)

METRIC = "best_val_macro_f1"


def _run_trial(params: dict[str, Any], base: dict[str, Any], data: SharedData) -> None:
    """One trial: `fit.fit` on the base config with the trial's fields, reporting the best macro-F1 so far."""
    known = {name for name, _ in iter_fields()}
    config = Config.model_validate(base).replace({name: value for name, value in params.items() if name in known})
    # One process sees the batches that all workers of the winner's training will see together.
    config = config.replace({"train.batch_size": config.train.batch_size * config.train.num_workers, "train.num_workers": 1})
    torch.set_num_threads(max(1, int(config.tune.cpus_per_trial)))

    def report(epoch: Epoch) -> None:
        ray.tune.report(epoch.metrics | {"finished": epoch.last})

    fit(config, data.get(), report)


class _TrialLog(ray.tune.Callback):
    def __init__(self, num_trials: int) -> None:
        self.num_trials = num_trials
        self.num_done = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.num_done += 1
        result = trial.last_result
        how = "finished" if result.get("finished") else "stopped by ASHA"
        scores = f"validation macro-F1 {result.get(METRIC, math.nan):.3f} after {result.get('epoch', 0)} epochs"
        log.info("trial %d of %d: %s, %s", self.num_done, self.num_trials, scores, how)


def tune(config: Config, run_dir: str) -> dict[str, Any]:
    """Search `config.tune.space`; write `<run_dir>/tune/`; return the content of `tune/metrics.json`.

    Raises:
        ConfigError: the space or the run folder cannot be used.
        RuntimeError: every trial failed.
    """
    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_space(config)
    inputs = SharedInputs(config.ray)
    config, examples, splits = prepare(config, run_dir, inputs)
    examples = read_transcripts(examples, run_dir, load_tokenizer(config.model), inputs)
    warnings = leak_warnings(examples, splits)
    for line in warnings:
        log.warning("warning: %s", line)
    data = TrainingData.from_examples(examples, splits)
    shared = inputs.share(data)
    space = SearchSpace(config.tune.space)
    folder = storage.join(run_dir, "tune")
    grid = _search(config, space, shared, folder)
    trials = _trials_table(grid, space)
    storage.write_table(storage.join(folder, "trials.parquet"), pa.Table.from_pandas(trials, preserve_index=False))
    if not (trials["state"] != "failed").any():
        raise RuntimeError(f"all {len(trials)} trials failed; the first said: {grid.errors[0] if grid.errors else 'nothing'}")

    # A failed trial may have reported a score before it failed.
    winner = trials.loc[trials["val_macro_f1"].where(trials["state"] != "failed").idxmax()]
    fields = {name: winner[name] for name in trials.columns if "." in name}
    best = config.replace({name: getattr(value, "item", lambda value=value: value)() for name, value in fields.items()})
    storage.write_text(storage.join(folder, "best.yaml"), best.to_yaml())
    trained = train_model(best, run_dir, data, shared, make_transform(best, examples.fingerprint))
    blocks = score_splits(
        trained.model,
        predict_examples(trained.model, examples),
        examples,
        splits,
        num_resamples=best.train.bootstrap_samples,
        seed=best.split.seed,
    )
    save_model(
        trained.model, storage.join(folder, "model"), {"splits": blocks, "warnings": warnings}, label_counts(examples, splits)
    )
    states = trials["state"].value_counts()
    summary = {
        "num_trials": len(trials),
        **{state: int(states.get(state, 0)) for state in ("completed", "stopped", "failed")},
        "best_trial": int(winner["number"]),
        "best": {name: read_field(best.model_dump(), name) for name in fields},
        "val": blocks["val"]["urgency"],
        "test": blocks["test"]["urgency"],
        "wall_sec": round(time.monotonic() - started, 3),
        "seed": config.tune.seed,
    }
    storage.write_text(storage.join(folder, "metrics.json"), json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False))
    log.info(
        "best of %d trials: validation macro-F1 %.3f, test %.3f; retrain it with --config %s",
        len(trials),
        summary["val"]["macro_f1"],
        summary["test"]["macro_f1"],
        storage.join(folder, "best.yaml"),
    )
    return summary


def _search(config: Config, space: SearchSpace, data: SharedData, folder: str) -> ray.tune.ResultGrid:
    settings = config.tune
    most = cluster.fit(cluster.node_cpus(), settings.cpus_per_trial)
    if not most:
        raise ConfigError(
            f"tune.cpus_per_trial: {settings.cpus_per_trial:g} CPUs fit no node of the cluster; set at most "
            f"{max(cluster.node_cpus()):g}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=settings.seed,
            n_startup_trials=settings.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
    # One name a search: a name found in the storage would go on with the old study and count its trials.
    name = f"search-{uuid.uuid4().hex[:8]}"
    own_values = space.locate(config)
    with _study_file(folder) as journal:
        searcher = OptunaSearch(
            space,
            metric=METRIC,
            mode="max",
            points_to_evaluate=[own_values] if own_values is not None else None,
            sampler=sampler,
            study_name=name,
            storage=JournalStorage(JournalFileBackend(journal)),
        )
        scheduler = ASHAScheduler(
            time_attr="epoch",
            max_t=config.train.epochs,
            grace_period=min(settings.grace_epochs, config.train.epochs),
            reduction_factor=settings.reduction_factor,
        )
        trainable = ray.tune.with_parameters(_run_trial, base=config.model_dump(), data=data)
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trainable, {"cpu": settings.cpus_per_trial}),
            tune_config=ray.tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=settings.num_trials,
                max_concurrent_trials=min(settings.max_concurrent or most, most),
                reuse_actors=True,
            ),
            run_config=ray.tune.RunConfig(
                name=name,
                storage_path=storage.absolute(storage.join(folder, "ray")),
                callbacks=[_TrialLog(settings.num_trials)],
                verbose=0,
            ),
        )
        return tuner.fit()


@contextlib.contextmanager
def _study_file(folder: str) -> Iterator[str]:
    """The path of Optuna's journal: in the run folder, or beside it until the search ends where that is an object store."""
    if "://" not in folder:
        filesystem, path = storage.open_location(folder)
        filesystem.create_dir(path, recursive=True)
        yield os.path.join(path, "study.log")
        return
    with tempfile.TemporaryDirectory() as local:
        try:
            yield os.path.join(local, "study.log")
        finally:
            storage.copy_dir(local, folder)


def _trials_table(grid: ray.tune.ResultGrid, space: SearchSpace) -> pd.DataFrame:
    fields = searched_fields(space.space)
    rows = []
    for number in range(len(grid)):
        result = grid[number]
        metrics = result.metrics or {}
        state = "failed" if result.error or METRIC not in metrics else "completed" if metrics["finished"] else "stopped"
        rows.append(
            {
                "number": number,
                "state": state,
                "val_macro_f1": metrics.get(METRIC, math.nan),
                "epochs": metrics.get("epoch", 0),
                "seconds": metrics.get("time_total_s", math.nan),
                **{field: (result.config or {}).get(field) for field in fields},
            }
        )
    return pd.DataFrame(rows)
