"""What the page shows of a search: who won and how surely, what mattered, where trials were stopped, what it took."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from urgency_ray.report import space_charts, trial_charts, verdicts, words
from urgency_ray.report.files import Row, SearchFiles, Tree, View
from urgency_ray.report.language import say
from urgency_ray.report.template import markup
from urgency_ray.scoring.blocks import SearchSummary

TOP_TRIALS = 10
FEW_TRIALS_PER_FIELD = 5
"""With fewer trials a field than this, an importance is mostly chance."""
LONG_PAUSE_SEC = 60.0
"""Without a running trial for longer than this, a search was interrupted."""
RECIPE_SECTIONS = ("model", "loss", "sampler", "train", "split")
"""What best.yaml is for; the search itself, the cluster, the corpus and the encoders are as they were."""


def tuning_view(files: SearchFiles, own: Mapping[str, Any], best: Mapping[str, Any], defaults: Mapping[str, Any]) -> View:
    """What the template shows of `tune/`; empty where nothing was searched.

    Args:
        files: what `tune/` holds.
        own: all fields of the config that was searched from, dotted.
        best: all fields of tune/best.yaml, dotted; empty where there is none.
        defaults: the defaults of all fields, dotted.
    """
    metrics = files.metrics
    trials = sorted(files.trials or [], key=lambda trial: int(trial["number"]))
    view: View = {}
    if metrics is not None:
        verdict, better = verdicts.tuning_verdict(metrics)
        several = own["tune.folds"] is not None or own["tune.repeats"] > 1
        view = {"tune": metrics, "tuning_verdict": verdict, "found_better": better}
        view["search_ensemble"] = verdicts.search_ensemble(metrics)
        view["several"] = say(", the mean over its folds or repeats") if several else ""
    trials = [{name: _known(value) for name, value in trial.items()} for trial in trials]
    if any(trial["state"] != "failed" and trial["val_macro_f1"] is not None for trial in trials):
        view |= _trials_view(trials, metrics, files.history or [], own)
    if view and best:
        searched = metrics.best if metrics is not None and metrics.best else view.get("fields", [])
        view["best_changes"] = _changes(own, best, searched)
        view["best_yaml"] = _recipe(best, defaults)
    return view


def _known(value: Any) -> Any:
    # pandas writes NaN where Arrow writes null.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _trials_view(trials: list[Row], metrics: SearchSummary | None, history: list[Row], own: Mapping[str, Any]) -> View:
    scored = [trial for trial in trials if trial["state"] != "failed" and trial["val_macro_f1"] is not None]
    ranked = sorted(scored, key=lambda trial: -float(trial["val_macro_f1"]))
    best = metrics.best_trial if metrics is not None else ranked[0]["number"]
    fields = [name for name in scored[0] if "." in name and any(trial[name] is not None for trial in scored)]
    wide = _logarithmic(scored, fields, own)
    charts: dict[str, str] = {"trials_chart": trial_charts.trial_history(trials, best)}
    view: View = {
        "num_scored": len(scored),
        "top_trials": ranked[:TOP_TRIALS],
        "best_trial": best,
        "fields": fields,
        "logarithmic": [field for field in fields if field in wide],
    }
    panels = ((field, [trial for trial in scored if trial[field] is not None]) for field in fields)
    view["slice_charts"] = [markup(space_charts.trial_slice(having, field, best, field in wide)) for field, having in panels]
    if len(scored) > 1 and fields:
        charts["parallel_chart"] = space_charts.parallel(scored, fields, best, wide)
    shares = importances(scored, fields, wide)
    if shares:
        charts["importance_chart"] = space_charts.importances(shares)
        view["num_shares"] = len(shares)
        view["left_out"] = [field for field in fields if field not in shares]
        view["few_trials"] = len(scored) < FEW_TRIALS_PER_FIELD * len(shares)
    mixtures = (
        (names, [trial for trial in scored if all(trial[name] is not None for name in names)])
        for names in _mixtures(own, fields)
    )
    view["simplex_charts"] = [
        markup(space_charts.simplex(having, names, _shares(own, names), best)) for names, having in mixtures if having
    ]
    view["rungs"] = rungs(scored, own)
    if by_trial := _by_trial(history):
        marks = {rung["epoch"]: rung["reached"] for rung in view["rungs"]}
        charts["rungs_chart"] = trial_charts.rungs(by_trial, scored, best, marks)
    # One whose process was lost, or whose time was over, before its first epoch has left no start.
    begun = [trial for trial in trials if isinstance(trial.get("start"), datetime)]
    span = None
    if begun:
        starts = search_seconds(begun)
        span = max(start + float(trial["seconds"] or 0.0) for start, trial in zip(starts, begun, strict=True))
        charts["elapsed_chart"] = trial_charts.elapsed(begun, best, starts)
    view["cost"] = cost(trials, span, own)
    return view | {name: markup(chart) for name, chart in charts.items()}


def _logarithmic(scored: Sequence[Mapping[str, Any]], fields: Iterable[str], own: Mapping[str, Any]) -> set[str]:
    """The fields that were searched on a logarithmic scale, or look so where the space does not name them."""
    space = own.get("tune.space") or {}
    linear = {field for dimension in space.values() for field in dimension.get("fields") or []}
    values = {field: [trial[field] for trial in scored if trial[field] is not None] for field in fields}
    wide = {
        field
        for field in values
        if field not in linear and space.get(field, {}).get("log", space_charts.is_wide(values[field]))
    }
    return {field for field in wide if space_charts.is_numeric(values[field]) and min(values[field]) > 0}


def importances(scored: Sequence[Mapping[str, Any]], fields: Iterable[str], logarithmic: Collection[str]) -> dict[str, float]:
    """Share of the score's variance that each field explains alone: fANOVA (Hutter, Hoos and Leyton-Brown, 2014).

    A random forest learns the score from the fields' values; the shares are of what it has learnt. Fields in
    `logarithmic` are taken on that scale. A field that not every trial has is left out. Empty where all scores are equal.
    """
    params: list[Row] = [{} for _ in scored]
    distributions: dict[str, BaseDistribution] = {}
    for field in fields:
        values = [trial[field] for trial in scored]
        if None in values or len(set(values)) < 2:
            continue
        if space_charts.is_numeric(values):
            values = [math.log(value) if field in logarithmic else float(value) for value in values]
            distributions[field] = FloatDistribution(min(values), max(values))
        else:
            distributions[field] = CategoricalDistribution(sorted(set(values), key=str))
        for row, value in zip(params, values, strict=True):
            row[field] = value
    scores = [float(trial["val_macro_f1"]) for trial in scored]
    if not distributions or min(scores) == max(scores):
        return {}
    trials = [
        optuna.trial.create_trial(params=row, distributions=distributions, value=value)
        for row, value in zip(params, scores, strict=True)
    ]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    shares: dict[str, float] = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    return shares


def _mixtures(own: Mapping[str, Any], fields: Sequence[str]) -> list[list[str]]:
    """The fields of each simplex of three that was searched."""
    space = (own.get("tune.space") or {}).values()
    mixtures = (dimension.get("fields") or [] for dimension in space if dimension.get("type") == "simplex")
    return [mixture for mixture in mixtures if len(mixture) == 3 and set(mixture) <= set(fields)]


def _shares(own: Mapping[str, Any], mixture: Sequence[str]) -> list[float]:
    values = [float(own.get(field) or 0.0) for field in mixture]
    return [value / sum(values) for value in values] if sum(values) > 0 else []


def rungs(scored: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> list[View]:
    """For each rung of ASHA: its epoch, how many trials reached it, were stopped there, went on or ended, the best stopped."""
    epoch, most, factor = own["tune.grace_epochs"], own["train.epochs"], own["tune.reduction_factor"]
    marks: list[int] = []
    while epoch < most:
        marks.append(epoch)
        epoch *= factor
    table = []
    for mark, following in zip(marks, [*marks, math.inf][1:], strict=True):
        stopped = [trial for trial in scored if trial["state"] == "stopped" and mark <= trial["epochs"] < following]
        reached = sum(trial["epochs"] >= mark for trial in scored)
        best = max((trial["val_macro_f1"] for trial in stopped), default=None)
        table.append({"epoch": mark, "reached": reached, "stopped": len(stopped), "best_stopped": best})
    return table


def _by_trial(history: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for row in history:
        groups.setdefault(int(row["trial"]), []).append(row)
    return groups


def search_seconds(trials: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of search before each trial started, pauses of an interrupted search left out."""
    origin = min(trial["start"] for trial in trials)
    starts = [(trial["start"] - origin).total_seconds() for trial in trials]
    order = sorted(range(len(trials)), key=lambda index: starts[index])
    shifted, paused, busy_until = [0.0] * len(trials), 0.0, 0.0
    for index in order:
        if starts[index] - busy_until > LONG_PAUSE_SEC:
            paused += starts[index] - busy_until
        shifted[index] = starts[index] - paused
        busy_until = max(busy_until, starts[index] + (trials[index]["seconds"] or 0.0))
    return shifted


def cost(trials: Sequence[Mapping[str, Any]], span_sec: float | None, own: Mapping[str, Any]) -> View:
    """What the trials took together, and what those that were stopped saved; `span_sec` is the whole search's, where known."""
    seconds = [float(trial["seconds"] or 0.0) for trial in trials]
    full = own["train.epochs"] * sum(trial["state"] != "failed" for trial in trials)
    epochs = sum(int(trial["epochs"]) for trial in trials if trial["state"] != "failed")
    return {
        "trial_sec": sum(seconds),
        "stopped_sec": sum(took for took, trial in zip(seconds, trials, strict=True) if trial["state"] == "stopped"),
        "failed_sec": sum(took for took, trial in zip(seconds, trials, strict=True) if trial["state"] == "failed"),
        "epochs": epochs,
        "full_epochs": full,
        "span_sec": span_sec,
        "at_once": sum(seconds) / span_sec if span_sec else None,
        "per_minute": 60 * len(trials) / span_sec if span_sec else None,
    }


def _changes(own: Mapping[str, Any], best: Mapping[str, Any], searched: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """(field, this run's value, best.yaml's value) of the searched fields, then of others that differ."""
    # The search itself, the cluster and the corpus are not what best.yaml is for.
    others = [key for key in best if key.split(".")[0] not in ("tune", "ray", "data") and own.get(key) != best[key]]
    return [(key, own.get(key), best.get(key)) for key in dict.fromkeys([*searched, *others])]


def _recipe(best: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """best.yaml's differences from the defaults as YAML, what concerns the model and its training."""
    tree: Tree = {}
    for key, value in best.items():
        section, field = key.split(".", 1)
        if section in RECIPE_SECTIONS and value != defaults.get(key):
            # Of a path only the last part; figures as short as they can be without a change that matters.
            shown = (
                words.value(value) if isinstance(value, str) else float(f"{value:.4g}") if isinstance(value, float) else value
            )
            tree.setdefault(section, {})[field] = shown
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True) if tree else ""
