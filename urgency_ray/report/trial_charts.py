"""Charts of trials by time: in order, by the clock, by epoch and rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from urgency_ray.report.language import say
from urgency_ray.report.svg import BEST_COLOR, BLUE, INK, MUTED, WIDTH, chart, legend, numbers

Trials = Sequence[Mapping[str, Any]]
"""Rows of `tune/trials.parquet`."""
NUM_SPANS = 80
"""Spans of time over which the number of running trials is averaged."""


def scatter_trials(axes: Axes, xs: Sequence[float], trials: Trials, best: int, size: float) -> None:
    """A dot a trial: completed ones filled, stopped ones hollow, the winner a diamond on top."""
    points = list(zip(xs, numbers(trials, "val_macro_f1"), trials, strict=True))
    color = BLUE
    for state, face, label in (("completed", color, say("completed")), ("stopped", "none", say("stopped"))):
        chosen = [(x, y) for x, y, trial in points if trial["state"] == state and trial["number"] != best]
        if chosen:
            axes.plot(
                *zip(*chosen, strict=True), "o", markersize=size, markerfacecolor=face, markeredgecolor=color, label=label
            )
    for x, y, trial in points:
        if trial["number"] == best:
            axes.plot(x, y, "D", markersize=size + 1.5, color=BEST_COLOR, label=say("picked"), zorder=3)


@chart(WIDTH, 225)
def trial_history(figure: Figure, trials: Trials, best: int) -> str:
    """Validation macro-F1 of every trial in order, with the best so far as a step line."""
    axes = figure.subplots()
    scored = [trial for trial in trials if trial["state"] != "failed"]
    order = numbers(scored, "number")
    record = np.fmax.accumulate(numbers(scored, "val_macro_f1"))  # passes over trials without a score
    axes.plot(order, record, color=MUTED, linewidth=1.2, drawstyle="steps-post", label=say("best so far"))
    scatter_trials(axes, order, scored, best, 5)
    failed = [trial["number"] for trial in trials if trial["state"] == "failed"]
    if failed:
        height, axis = [0.03] * len(failed), axes.get_xaxis_transform()
        axes.plot(failed, height, "x", color=INK, transform=axis, label=say("failed"), markersize=5)
    axes.set(xlabel=say("trial"), ylabel=say("macro-F1, validation"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure)
    return say("Validation macro-F1 by trial")


@chart(WIDTH, 225)
def elapsed(figure: Figure, trials: Trials, best: int, starts: Sequence[float]) -> str:
    """Validation macro-F1 by the clock, with the best so far as a step line, over the number of trials running.

    Args:
        trials: those with a score, and failed ones.
        best: number of the trial picked.
        starts: seconds of search before each trial.
    """
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    ends = np.add(starts, np.nan_to_num(numbers(trials, "seconds")))
    unit, name = (60.0, say("minutes of search")) if max(ends) >= 180 else (1.0, say("seconds of search"))
    scored = sorted(
        ((end / unit, trial) for end, trial in zip(ends, trials, strict=True) if trial["state"] != "failed"),
        key=lambda pair: pair[0],
    )
    times, rows = [time for time, _ in scored], [trial for _, trial in scored]
    record = np.fmax.accumulate(numbers(rows, "val_macro_f1"))
    upper.plot(times, record, color=MUTED, linewidth=1.2, drawstyle="steps-post", label=say("best so far"))
    scatter_trials(upper, times, rows, best, 5)
    edges = np.linspace(0, max(ends), NUM_SPANS + 1)
    overlaps = [np.clip(np.minimum(ends, end) - np.maximum(starts, start), 0, None).sum() for start, end in pairwise(edges)]
    lower.stairs(np.divide(overlaps, edges[1]), edges / unit, fill=True, color=BLUE, alpha=0.45, linewidth=0)
    upper.set(ylabel=say("macro-F1, val."))
    lower.set(xlabel=name, ylabel=say("running"), ylim=(0, None))
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    figure.align_ylabels()
    legend(figure)
    return say("Best validation macro-F1 by time")


@chart(WIDTH, 240)
def rungs(figure: Figure, history: Mapping[int, Trials], trials: Trials, best: int, marks: Mapping[int, int]) -> str:
    """Each trial's best macro-F1 so far by epoch, ended where the trial ended, with ASHA's rungs.

    Args:
        history: rows of `tune/history.parquet` by trial.
        trials: those with a score.
        best: number of the trial picked.
        marks: for each rung, its epoch, the number of trials that reached it.
    """
    axes = figure.subplots()
    last = 1.0
    for trial in sorted(trials, key=lambda trial: (trial["number"] == best, trial["state"] == "completed")):
        rows = sorted(history.get(trial["number"], []), key=lambda row: int(row["epoch"]))
        if not rows:
            continue
        epochs, scores = numbers(rows, "epoch"), numbers(rows, "best_val_macro_f1")
        last = max(last, epochs[-1])
        stopped, picked = trial["state"] == "stopped", trial["number"] == best
        color = BEST_COLOR if picked else MUTED if stopped else BLUE
        axes.plot(epochs, scores, color=color, linewidth=2.2 if picked else 0.9, alpha=1 if picked else 0.75)
        axes.plot(
            epochs[-1],
            scores[-1],
            "D" if picked else "o",
            color=color,
            markersize=6 if picked else 3.6,
            markerfacecolor="none" if stopped and not picked else color,
            label=say("picked" if picked else trial["state"]),
        )
    if len(marks) > 1 and max(marks) > 8 * min(marks):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(FixedLocator(sorted({1.0, *map(float, marks), last})))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(False, axis="x")
    for epoch, reached in marks.items():
        axes.axvline(epoch, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes.text(epoch, 1.01, f"{reached}", transform=axes.get_xaxis_transform(), ha="center", va="bottom", weight="bold")
    axes.set(xlabel=say("epoch"), ylabel=say("best macro-F1 so far, validation"))
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one of each
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3, borderpad=0)
    return say("Best validation macro-F1 by epoch of every trial")
