"""Charts of the report: pure functions from figures to inline SVG that follows the page's theme and fonts."""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

MODALITIES = ("audio", "text", "fused")
MODALITY_COLORS = {"audio": "#1b9e77", "text": "#b565a7", "fused": "#2f7fbf"}
"""Kept apart from the urgency classes' colours, told apart by colour-blind readers, legible on a light and a dark card."""
BEST_COLOR = "#e07b16"

# Stand-ins that no chart would use by chance. They become CSS variables in the SVG, so that one drawing serves both themes.
INK, MUTED, GRID, CARD = "#010203", "#020304", "#030405", "#040506"
_THEME = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", CARD: "var(--card)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: the reader's fonts have Hangul, matplotlib's have not
    "svg.hashsalt": "urgency_ray",  # the same figures make the same bytes
    "text.parse_math": False,  # a "$" in a config value is a "$"
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}
_WIDTH = 360
"""Points. A card is about 340 px wide on a phone, so a 9 pt text has 8.5 px there, and 13 px on a desk."""
_PANEL_WIDTH = 170

P = ParamSpec("P")


def _chart(width: float, height: float) -> Callable[[Callable[Concatenate[Figure, P], str]], Callable[P, str]]:
    """Turn a function that draws on a figure and returns a description into one that returns an SVG element."""

    def decorate(draw: Callable[Concatenate[Figure, P], str]) -> Callable[P, str]:
        @wraps(draw)
        def render(*args: P.args, **kwargs: P.kwargs) -> str:
            buffer = io.StringIO()
            with mpl.rc_context(_STYLE), warnings.catch_warnings():
                # Only the browser needs the glyphs.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
                description = draw(figure, *args, **kwargs)
                nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
                figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
            return _inline(buffer.getvalue(), width, height, description)

        return render

    return decorate


def _inline(svg: str, width: float, height: float, description: str) -> str:
    """Fit a stand-alone SVG into a page that holds others: no prolog, no style that leaks, ids of its own, theme colours."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    prefix = "c" + hashlib.sha256((description + body).encode()).hexdigest()[:8]
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'(?<=\bid=")|(?<=\bhref="#)|(?<=\burl\(#)', f"{prefix}-", body)
    for stand_in, variable in _THEME.items():
        body = body.replace(stand_in, variable)
    return f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label={quoteattr(description)}>{body}'


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside upper left", ncols=5, handlelength=1.3, columnspacing=1.3, handletextpad=0.5, borderpad=0)


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [math.nan if row.get(key) is None else float(row[key]) for row in rows]


def by_modality(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of `history.json` by model, in the order of `MODALITIES`."""
    groups = {name: [row for row in history if row["modalities"] == name] for name in MODALITIES}
    return {name: rows for name, rows in groups.items() if rows}


@_chart(_WIDTH, 210)
def loss_curves(figure: Figure, history: Sequence[Mapping[str, Any]]) -> str:
    """Training (dashed) and validation (solid) loss of each model in `history.json`."""
    axes = figure.subplots()
    for name, rows in by_modality(history).items():
        epochs, color = _numbers(rows, "epoch"), MODALITY_COLORS[name]
        marker = "." if len(rows) == 1 else None  # one point makes no line
        axes.plot(epochs, _numbers(rows, "train_loss"), color=color, linestyle=(0, (3, 2)), linewidth=1.1, marker=marker)
        axes.plot(epochs, _numbers(rows, "val_loss"), color=color, label=name, marker=marker)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return "Loss by epoch"


@_chart(_WIDTH, 210)
def macro_f1_curves(figure: Figure, history: Sequence[Mapping[str, Any]]) -> str:
    """Validation macro-F1 of each model in `history.json`, its best epoch marked."""
    axes = figure.subplots()
    for name, rows in by_modality(history).items():
        epochs, scores, color = _numbers(rows, "epoch"), _numbers(rows, "val_macro_f1"), MODALITY_COLORS[name]
        axes.plot(epochs, scores, color=color, label=name)
        if not np.all(np.isnan(scores)):
            # What the run picked by; a history without it is that of a run that picked by macro-F1.
            picked = _numbers(rows, "val_score" if "val_score" in rows[0] else "val_macro_f1")
            best = int(np.nanargmax(picked))
            axes.plot(epochs[best], scores[best], "o", markersize=7, color=color, markeredgecolor=CARD)
            label = f"{epochs[best]:g}"
            axes.annotate(label, (epochs[best], scores[best]), (0, 6), textcoords="offset points", ha="center", weight="bold")
    axes.set(xlabel="epoch", ylabel="macro-F1, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return "Validation macro-F1 by epoch"


@_chart(_WIDTH, 145)
def ablation(figure: Figure, blocks: Mapping[str, Mapping[str, Any]], ceiling: Mapping[str, float]) -> str:
    """Test macro-F1 with its interval for each modality, with the best reachable figure as a tick where it is known."""
    axes = figure.subplots()
    names = [name for name in MODALITIES if name in blocks]
    for row, name in enumerate(names):
        score, (low, high) = blocks[name]["macro_f1"], blocks[name]["macro_f1_interval"]
        axes.plot([low, high], [row, row], color=MODALITY_COLORS[name], linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot(score, row, "o", color=MODALITY_COLORS[name], markersize=8)
        if name in ceiling:
            label = "best reachable" if row == 0 else None
            axes.plot(ceiling[name], row, "|", color=INK, markersize=17, markeredgewidth=1.8, label=label)
        # At the edge, where neither an interval nor a tick can run into it.
        axes.text(1.02, row, f"{score:.3f}", transform=axes.get_yaxis_transform(), va="center", weight="bold")
    axes.set(xlabel="macro-F1, test", yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)
    if ceiling:
        _legend(figure)
    return "Test macro-F1 by modality"


def _wilson(right: float, total: int) -> tuple[float, float]:
    """95 % interval of a share; holds for small counts and at 0 and 1, where the usual one collapses."""
    z = 1.96
    center, spread = right + z * z / 2, z * math.sqrt(right * (total - right) / total + z * z / 4)
    return (center - spread) / (total + z * z), (center + spread) / (total + z * z)


@_chart(_WIDTH, 275)
def reliability(figure: Figure, confidence: Sequence[float], correct: Sequence[bool], num_bins: int = 15) -> str:
    """Share of right predictions by stated confidence, over a histogram of the confidences.

    The bins are those of the expected calibration error in metrics.py, closed on the right, so that picture and figure agree.
    """
    scores, hits = np.asarray(confidence, float), np.asarray(correct, bool)
    bins = np.digitize(scores, np.arange(1, num_bins) / num_bins, right=True)
    counts = np.bincount(bins, minlength=num_bins)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    color = MODALITY_COLORS["fused"]
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 2)), linewidth=1)
    for index in np.flatnonzero(counts):
        inside = bins == index
        mean, right = float(scores[inside].mean()), int(hits[inside].sum())
        upper.plot(
            [mean, mean], _wilson(right, int(counts[index])), color=color, alpha=0.45, linewidth=3, solid_capstyle="round"
        )
        upper.plot(mean, right / counts[index], "o", color=color, markersize=6)
    lower.bar((np.arange(num_bins) + 0.5) / num_bins, counts, width=0.9 / num_bins, color=color, alpha=0.6)
    upper.set(ylabel="share right", ylim=(0, 1.02), xlim=(0.3, 1.0))  # of three classes the likeliest has 1/3 or more
    lower.set(xlabel="confidence of the predicted class", ylabel="rows")
    lower.grid(False, axis="x")
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    figure.align_ylabels()
    return "Reliability of the predicted probabilities"


def _short(value: float, _position: int) -> str:
    return f"{value:g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def _scatter_trials(axes: Axes, xs: Sequence[float], trials: Sequence[Mapping[str, Any]], best: int, size: float) -> None:
    """Completed trials filled, stopped ones hollow, the winner a diamond on top."""
    points = list(zip(xs, _numbers(trials, "val_macro_f1"), trials, strict=True))
    color = MODALITY_COLORS["fused"]
    for state, face, label in (("completed", color, "completed"), ("stopped", "none", "stopped")):
        chosen = [(x, y) for x, y, trial in points if trial["state"] == state and trial["number"] != best]
        if chosen:
            axes.plot(
                *zip(*chosen, strict=True), "o", markersize=size, markerfacecolor=face, markeredgecolor=color, label=label
            )
    for x, y, trial in points:
        if trial["number"] == best:
            axes.plot(x, y, "D", markersize=size + 1.5, color=BEST_COLOR, label="picked", zorder=3)


@_chart(_WIDTH, 225)
def trial_history(figure: Figure, trials: Sequence[Mapping[str, Any]], best: int) -> str:
    """Validation macro-F1 of every trial in order, with the best so far as a step line."""
    axes = figure.subplots()
    scored = [trial for trial in trials if trial["state"] != "failed"]
    numbers = _numbers(scored, "number")
    record = np.fmax.accumulate(_numbers(scored, "val_macro_f1"))  # passes over trials without a score
    axes.plot(numbers, record, color=MUTED, linewidth=1.2, drawstyle="steps-post", label="best so far")
    _scatter_trials(axes, numbers, scored, best, 5)
    failed = [trial["number"] for trial in trials if trial["state"] == "failed"]
    if failed:
        axes.plot(
            failed, [0.03] * len(failed), "x", color=INK, transform=axes.get_xaxis_transform(), label="failed", markersize=5
        )
    axes.set(xlabel="trial", ylabel="macro-F1, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return "Validation macro-F1 by trial"


@_chart(_PANEL_WIDTH, 140)
def trial_slice(figure: Figure, trials: Sequence[Mapping[str, Any]], field: str, best: int) -> str:
    """Validation macro-F1 against one searched field, of trials that have a score."""
    axes = figure.subplots()
    values = [trial[field] for trial in trials]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        xs = [float(value) for value in values]
        if min(xs) > 0 and max(xs) / min(xs) > 30:
            axes.set_xscale("log")
            wide = max(xs) / min(xs) > 300
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3), numticks=5))
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        choices = sorted({str(value) for value in values})
        xs = [float(choices.index(str(value))) for value in values]
        axes.set(xticks=range(len(choices)), xticklabels=choices, xlim=(-0.5, len(choices) - 0.5))
    _scatter_trials(axes, xs, trials, best, 3.2)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(field, color=INK)
    return f"Validation macro-F1 by {field}"
