"""Search for the best validation macro-F1, and say whether what it found is better than the config that it began with.

Trials see train and val only. The winner is trained again through Ray Train, by the very path that `train --config best.yaml`
takes, and so is the config itself; both are scored once on test, where their difference has an interval.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from urgency_ray import cluster, storage
from urgency_ray.config import Config, read_field
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import Examples, Splits, label_counts
from urgency_ray.examples.leaks import leak_warnings
from urgency_ray.examples.splits import group_examples, val_folds
from urgency_ray.fingerprint import Transform
from urgency_ray.model.card import save_model
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.text_trunk import load_tokenizer
from urgency_ray.run_folder import RunFolder, SearchFolder
from urgency_ray.scoring.metrics import paired_macro_f1_difference
from urgency_ray.scoring.scores import score_splits
from urgency_ray.search.engine import num_concurrent, run_search
from urgency_ray.search.space import check_space
from urgency_ray.search.study import begin_study, ended_trials, history_table, open_journal, trials_table
from urgency_ray.training.data import TrainingData
from urgency_ray.training.run import open_run, read_transcripts
from urgency_ray.training.shared import SharedData, SharedInputs
from urgency_ray.training.trainer import train_model

log = logging.getLogger(__name__)


def tune(config: Config, run_dir: str, *, resume: bool = False) -> dict[str, Any]:
    """Search `config.tune.space`; write `<run_dir>/tune/`; return the content of `tune/metrics.json`.

    Args:
        config: the base of the search; its own values are the first trial.
        run_dir: run folder with embeddings.
        resume: go on with the run folder's last search: to its end, or, where it has ended, up to more trials.

    Raises:
        RequestError: the space or the run folder cannot be used, or a search there stands in the way.
        RuntimeError: every trial failed.
    """
    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_space(config)
    inputs = SharedInputs(config.ray)
    config, examples, splits = open_run(config, run_dir, inputs.keep)
    folds = val_folds(examples, splits, config.split, config.tune.folds) if config.tune.folds is not None else [splits]
    examples = read_transcripts(examples, run_dir, load_tokenizer(config.model), inputs.keep)
    cluster.connect(config.ray)
    num_concurrent(config)
    warnings = leak_warnings(examples, splits)
    for line in warnings:
        log.warning("warning: %s", line)
    data = TrainingData.from_examples(examples, splits)
    shared = inputs.share(data)
    folder = RunFolder(run_dir).search
    with open_journal(folder) as journal:
        study = begin_study(journal, config, shared.digest, resume=resume, run_dir=run_dir)
        storage.write_text(folder.config, config.to_yaml())
        # Figures of an earlier search, or of this one before it went on, would stand beside trials that they do not know.
        storage.remove_file(folder.metrics)
        searched_sec = study.user_attrs.get("seconds", 0.0)
        parts = [(fold.train, fold.val) for fold in folds]
        errors = run_search(config, shared, parts, study=study, journal=journal, folder=folder)
        trials = trials_table(study, config)
        _write_tables(study, config, folder)
        if not trials["val_macro_f1"].notna().any():
            if not (trials["state"] == "failed").any():
                raise RequestError(
                    f"tune.time_budget_sec: {config.tune.time_budget_sec:g} s were over before the first epoch of a trial; "
                    "raise it, and go on with --resume"
                )
            said = [trial.user_attrs["failed"] for trial in ended_trials(study) if "failed" in trial.user_attrs]
            raise RuntimeError(f"all {len(trials)} trials failed; the first said: {[*said, *errors, 'nothing'][0]}")
        winner = _winner(study)
        best = _best_config(config, winner)
        storage.write_text(folder.best, best.to_yaml())

        found = _retrain(best, run_dir, (data, shared), examples, splits)
        defaults = found if best == config else _retrain(config, run_dir, (data, shared), examples, splits)
        save_model(
            found.model,
            folder.model,
            {"splits": found.blocks, "warnings": warnings},
            label_counts(examples, splits),
        )
        states = trials["state"].value_counts()
        val, test = (found.blocks[part]["urgency"] for part in ("val", "test"))
        summary = {
            "study": study.study_name,
            "num_trials": len(trials),
            **{state: int(states.get(state, 0)) for state in ("completed", "stopped", "failed")},
            "best_trial": winner.number,
            "best": {field: read_field(best.model_dump(), field) for field in winner.user_attrs["fields"]},
            "best_score": winner.value,
            "val": val,
            "test": test,
            "selection_optimism": winner.value - test["macro_f1"],
            "defaults": {part: defaults.blocks[part]["urgency"] for part in ("val", "test")},
            "difference": _difference(found, defaults, examples, splits, config),
            "wall_sec": round(searched_sec + time.monotonic() - started, 3),
            "seed": config.tune.seed,
        }
        storage.write_text(folder.metrics, json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False))
        study.set_user_attr("ended", True)
        journal.publish()
    for line in format_verdict(summary):
        log.info("%s", line)
    log.info("retrain it with --config %s", folder.best)
    return summary


def format_verdict(summary: dict[str, Any]) -> list[str]:
    """What the search came to, in lines for the terminal; `summary` as tune/metrics.json has it."""
    test, difference = summary["test"]["macro_f1"], summary["difference"]
    lines = [f"best of {summary['num_trials']} trials: validation macro-F1 {summary['best_score']:.3f}, test {test:.3f}"]
    if difference["verdict"] == "defaults":
        return [*lines, "the best trial is that of the config's own values: the search found nothing better"]
    low, high = difference["interval"]
    words = "better beyond noise" if difference["verdict"] == "better" else "not better beyond noise"
    amount = f"{difference['macro_f1']:+.3f} on test (95 % {low:+.3f} to {high:+.3f})"
    return [*lines, f"against the config's own values, at {summary['defaults']['test']['macro_f1']:.3f}: {words}, {amount}"]


@dataclass(frozen=True)
class _Scored:
    """A trained model, its blocks by split and task, and the urgency class that it gives to each example, (N,)."""

    model: UrgencyClassifier
    blocks: dict[str, dict[str, Any]]
    called: NDArray[np.int64]


def _retrain(
    config: Config, run_dir: str, data: tuple[TrainingData, SharedData], examples: Examples, splits: Splits
) -> _Scored:
    model = train_model(config, run_dir, *data, Transform.of(config, examples.fingerprint)).model
    probabilities = predict_examples(model, examples)
    scoring: dict[str, Any] = {"num_resamples": config.train.bootstrap_samples, "seed": config.split.seed}
    blocks = score_splits(model, probabilities, examples, splits, **scoring)
    return _Scored(model, blocks, probabilities["urgency"].argmax(axis=1))


def _winner(study: optuna.Study) -> FrozenTrial:
    # A failed trial may have reported a score before it failed.
    scored = [trial for trial in ended_trials(study) if trial.state != TrialState.FAIL and trial.value is not None]
    return max(scored, key=lambda trial: (trial.value, -trial.number))


def _best_config(config: Config, winner: FrozenTrial) -> Config:
    """The config with the winner's fields; or itself where these are its own, up to a simplex's rounding."""
    fields = winner.user_attrs["fields"]
    tree = config.model_dump()
    same = all(
        math.isclose(value, own, rel_tol=1e-9) if isinstance(value, float) and isinstance(own, float) else value == own
        for value, own in ((value, read_field(tree, field)) for field, value in fields.items())
    )
    return config if same else config.replace(fields)


def _difference(found: _Scored, defaults: _Scored, examples: Examples, splits: Splits, config: Config) -> dict[str, Any]:
    """`difference` of tune/metrics.json: test macro-F1 of the winner less that of the defaults, and what to think of it.

    The verdict is `better` where the whole interval is above 0, `defaults` where the winner is the defaults, else `not_better`.
    """
    if found is defaults:
        return {"macro_f1": 0.0, "interval": [0.0, 0.0], "verdict": "defaults"}
    rows = splits.test
    difference, interval = paired_macro_f1_difference(
        examples.urgency[rows],
        found.called[rows],
        defaults.called[rows],
        group_examples(examples.keys)[rows],
        num_resamples=config.train.bootstrap_samples,
        seed=config.split.seed,
    )
    return {"macro_f1": difference, "interval": interval, "verdict": "better" if interval[0] > 0 else "not_better"}


def _write_tables(study: optuna.Study, config: Config, folder: SearchFolder) -> None:
    for location, table in ((folder.trials, trials_table(study, config)), (folder.history, history_table(study))):
        storage.write_table(location, pa.Table.from_pandas(table, preserve_index=False))
