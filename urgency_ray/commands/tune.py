"""Search for the best validation macro-F1, and say whether what it found is better than the config that it began with.

Trials see train and val only. The winner is trained again through Ray Train, by the very path that `train --config best.yaml`
takes, and so is the config itself; both are scored once on test, where their difference has an interval.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import Any

import optuna
import pandas as pd
import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState

from urgency_ray import cluster, lease, storage
from urgency_ray.config import Config, read_field, searched_fields
from urgency_ray.errors import RequestError, WorkError
from urgency_ray.examples.dataset import Examples, Splits, label_counts
from urgency_ray.examples.splits import val_folds
from urgency_ray.model.card import save_model
from urgency_ray.model.text_trunk import load_tokenizer
from urgency_ray.run_folder import RunFolder, SearchFolder, write_json
from urgency_ray.scoring.blocks import Difference, Metrics, SearchSummary
from urgency_ray.search.engine import num_concurrent, run_search
from urgency_ray.search.journal import Journal, open_journal
from urgency_ray.search.space import check_space
from urgency_ray.search.study import (
    NOTHING_TO_RESUME,
    STATES,
    Resume,
    begin_study,
    ended_trials,
    find_resumed,
    history_table,
    trials_table,
)
from urgency_ray.tracking import Ended, Tracking, TrialNote, check_trackers, figures_of, track
from urgency_ray.training.baselines import format_against
from urgency_ray.training.data import TrainingData
from urgency_ray.training.finalists import Finalists, train_finalists
from urgency_ray.training.run import check_examples, open_run, places_read, read_transcripts
from urgency_ray.training.shared import SharedInputs
from urgency_ray.training.whole import member_folds

log = logging.getLogger(__name__)


def tune(config: Config, run_dir: str, *, resume: Resume = False) -> SearchSummary:
    """Search `config.tune.space`; write `<run_dir>/tune/`; return the content of `tune/metrics.json`.

    Args:
        config: the base of the search; its own values are the first trial.
        run_dir: run folder with embeddings.
        resume: go on with the run folder's last search: to its end, or, where it has ended, up to more trials; `auto`
            begins one where there is none.

    Raises:
        RequestError: the space or the run folder cannot be used, or a search there stands in the way.
        WorkError: every trial failed.
    """
    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_space(config)
    check_trackers(config)
    config = _check_ensemble(config)
    _check_resumed(run_dir, resume)
    inputs = SharedInputs(config.ray)
    config, examples, splits = open_run(config, run_dir, inputs.keep)
    folds = _trial_folds(config, examples, splits)
    examples = read_transcripts(examples, run_dir, load_tokenizer(config.model), inputs.keep)
    cluster.connect(config.ray)
    num_concurrent(config)
    warnings = check_examples(config, examples, splits)
    cluster.check_reach({"--run-dir": run_dir}, places_read(config))
    data, folder = TrainingData.from_examples(examples, splits), RunFolder(run_dir).search
    shared = inputs.share(data)
    with (
        lease.hold(RunFolder(run_dir).lease("tune"), f"tune in {run_dir}"),
        open_journal(folder) as journal,
        track(config, run_dir, "tune") as tracking,
    ):
        study = begin_study(journal, config, shared.digest, resume=resume, run_dir=run_dir)
        storage.write_text(folder.config, config.to_yaml())
        # Figures of an earlier search, or of this one before it went on, would stand beside trials that they do not know.
        storage.remove_file(folder.metrics)
        searched_sec, parts = study.user_attrs.get("seconds", 0.0), [(fold.train, fold.val) for fold in folds]
        tabled = _with_tables(journal, study, config, folder, tracking)
        errors = run_search(config, shared, parts, study=study, journal=tabled, folder=folder)
        trials = _write_tables(study, config, folder)
        _refuse_unscored(trials, study, config, errors, journal)
        winner = _winner(study)
        best = _best_config(config, winner)
        storage.write_text(folder.best, best.to_yaml())
        configs = {"winner": best} | ({} if best == config else {"defaults": config})
        mixed = _other_trials(study, config, list(configs.values()))
        with lease.hold(RunFolder(run_dir).lease("train"), f"training of the winner in {run_dir}"):
            ended = train_finalists(
                configs, mixed, run_dir, examples=examples, splits=splits, inputs=inputs, told=tracking.epochs
            )
        found = ended.found
        metrics = Metrics(splits=found.blocks, warnings=warnings)
        save_model(found.model, folder.model, metrics.model_dump(exclude_unset=True), label_counts(examples, found.splits))
        summary = _summarize(
            study.study_name,
            trials,
            winner,
            best,
            ended=ended,
            wall_sec=searched_sec + time.monotonic() - started,
        )
        write_json(folder.metrics, summary)
        study.set_user_attr("ended", True)
        journal.publish()
        tracking.end(Ended(figures_of(summary), (folder.config, folder.best, folder.metrics, folder.trials, folder.model)))
    for line in (*format_verdict(summary), f"retrain the winner with --config {folder.best}"):
        log.info("%s", line)
    return summary


def _check_resumed(run_dir: str, resume: Resume) -> None:
    """Refuse before the work what stands in the run folder's way; looked at again when the search begins."""
    folder = RunFolder(run_dir).search
    if storage.exists(folder.journal):
        with lease.hold(RunFolder(run_dir).lease("tune"), f"tune in {run_dir}"), open_journal(folder) as journal:
            find_resumed(journal, resume=resume, run_dir=run_dir)
    elif resume is True:
        raise RequestError(NOTHING_TO_RESUME.format(run_dir))


def _check_ensemble(config: Config) -> Config:
    if config.tune.ensemble is None:
        return config
    if config.train.members is None:
        # A recipe's ensemble must not stand in the way of whoever asks for one model.
        log.warning("warning: tune.ensemble mixes members, and train.members is null: the winner alone is trained")
        return config.replace({"tune.ensemble": None})
    if "train.members" in searched_fields(config.tune.space):
        raise RequestError("tune.ensemble: mixes members of the same folds: take train.members out of tune.space")
    return config


def _trial_folds(config: Config, examples: Examples, splits: Splits) -> list[Splits]:
    """The splits whose mean scores a trial; too few calls for them, or for the members of an ensemble, are refused."""
    member_folds(config, examples, splits)
    if config.tune.folds is None:
        return [splits]
    return val_folds(examples, splits, config.split, config.tune.folds, "tune.folds")


def _with_tables(journal: Journal, study: optuna.Study, config: Config, folder: SearchFolder, tracking: Tracking) -> Journal:
    """The journal, which brings the tables up to date as well: the report of a killed search shows the trials so far."""

    def publish() -> None:
        journal.publish()
        _write_tables(study, config, folder)
        tracking.trials([_note(trial) for trial in ended_trials(study)])

    return replace(journal, publish=publish)


def _note(trial: FrozenTrial) -> TrialNote:
    fields, scores = trial.user_attrs.get("fields", {}), trial.user_attrs.get("val_macro_f1", [])
    return TrialNote(trial.number, STATES[trial.state], fields, scores, trial.value)


def format_verdict(summary: SearchSummary) -> list[str]:
    """What the search came to, in lines for the terminal."""
    difference, defaults = summary.difference, summary.defaults
    assert difference is not None and defaults is not None, "only files of earlier versions lack them"
    scores = f"validation macro-F1 {summary.best_score:.3f}, test {summary.test.macro_f1:.3f}"
    lines = [f"best of {summary.num_trials} trials: {scores}"]
    if (mixed := summary.ensemble) is not None:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in mixed.shares.items())
        lines.append(f"their ensemble ({shares}): {_format(mixed.against_winner)} against the winner alone")
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in mixed.log_loss.items())
        lines.append(f"log loss on rows that they have not seen: {losses}: the model saved is that of {mixed.chosen}")
    if summary.against_baseline is not None:
        lines.append(format_against(summary.against_baseline))
    if difference.verdict == "defaults":
        return [*lines, "the search found nothing better than the config's own values"]
    words = "better beyond noise" if difference.verdict == "better" else "not better beyond noise"
    return [*lines, f"against the config's own values, at {defaults.test.macro_f1:.3f}: {words}, {_format(difference)}"]


def _format(difference: Difference) -> str:
    low, high = difference.interval
    return f"{difference.macro_f1:+.3f} on test (95 % {low:+.3f} to {high:+.3f})"


def _other_trials(study: optuna.Study, config: Config, taken: list[Config]) -> dict[str, Config]:
    """The configs of the best trials of `tune.ensemble` besides those that are trained anyway."""
    configs: dict[str, Config] = {}
    for trial in sorted(_scored(study), key=_rank, reverse=True)[: config.tune.ensemble or 0]:
        if (chosen := _best_config(config, trial)) not in [*taken, *configs.values()]:
            configs[f"trial {trial.number}"] = chosen
    return configs


def _summarize(
    study: str,
    trials: pd.DataFrame,
    winner: FrozenTrial,
    best: Config,
    *,
    ended: Finalists,
    wall_sec: float,
) -> SearchSummary:
    assert winner.value is not None
    found = ended.found.urgency()
    told = {"against_baseline": ended.against, "ensemble": ended.ensemble}
    optional: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    states = trials["state"].value_counts()
    return SearchSummary(
        study=study,
        num_trials=len(trials),
        completed=int(states.get("completed", 0)),
        stopped=int(states.get("stopped", 0)),
        failed=int(states.get("failed", 0)),
        best_trial=winner.number,
        best={field: read_field(best.model_dump(), field) for field in winner.user_attrs["fields"]},
        best_score=winner.value,
        val=found.val,
        test=found.test,
        selection_optimism=winner.value - ended.winner.urgency().test.macro_f1,
        defaults=ended.defaults.urgency(),
        difference=ended.difference,
        **optional,
        wall_sec=round(wall_sec, 3),
        seed=best.tune.seed,
    )


def _refuse_unscored(trials: pd.DataFrame, study: optuna.Study, config: Config, errors: list[str], journal: Journal) -> None:
    """Say why no trial has a score, where none has; `errors` are what `run_search` gave back."""
    if trials["val_macro_f1"].notna().any():
        return
    if not (trials["state"] == "failed").any():
        raise RequestError(
            f"tune.time_budget_sec: {config.tune.time_budget_sec:g} s were over before the first epoch of a trial; "
            "raise it, and go on with --resume"
        )
    said = [trial.user_attrs["failed"] for trial in ended_trials(study) if "failed" in trial.user_attrs]
    if len(said) == len(trials):
        # Their own fault: the next search will be of another config, and need not go on with this one.
        study.set_user_attr("ended", True)
        journal.publish()
    raise WorkError(f"all {len(trials)} trials failed; the first said: {[*said, *errors, 'nothing'][0]}")


def _winner(study: optuna.Study) -> FrozenTrial:
    return max(_scored(study), key=_rank)


def _scored(study: optuna.Study) -> list[FrozenTrial]:
    # A failed trial may have reported a score before it failed.
    return [trial for trial in ended_trials(study) if trial.state != TrialState.FAIL and trial.value is not None]


def _rank(trial: FrozenTrial) -> tuple[float, int]:
    assert trial.value is not None
    return trial.value, -trial.number


def _best_config(config: Config, winner: FrozenTrial) -> Config:
    """The config with the winner's fields; or itself where these are its own, up to a simplex's rounding."""
    fields = winner.user_attrs["fields"]
    tree = config.model_dump()
    same = all(
        math.isclose(value, own, rel_tol=1e-9) if isinstance(value, float) and isinstance(own, float) else value == own
        for value, own in ((value, read_field(tree, field)) for field, value in fields.items())
    )
    return config if same else config.replace(fields)


def _write_tables(study: optuna.Study, config: Config, folder: SearchFolder) -> pd.DataFrame:
    """Write what is known of trials and epochs; returns the rows of the trials."""
    trials = trials_table(study, config)
    for location, table in ((folder.trials, trials), (folder.history, history_table(study))):
        storage.write_table(location, pa.Table.from_pandas(table, preserve_index=False))
    return trials
