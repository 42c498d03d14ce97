"""Charts of training and evaluation: pure functions from figures to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from urgency_ray.report.language import say
from urgency_ray.report.svg import BLUE, CARD, INK, MUTED, WIDTH, chart, legend
from urgency_ray.scoring.blocks import ClassificationBlock, NetBenefit
from urgency_ray.training.history import EpochRow

MODALITIES = ("audio", "text", "fused")
MODALITY_COLORS = {"audio": "#1b9e77", "text": "#b565a7", "fused": BLUE}
"""Kept apart from the urgency classes' colours, told apart by colour-blind readers, legible on a light and a dark card."""

MEMBER_WIDTH = 0.8


def by_modality(history: Sequence[EpochRow]) -> dict[str, list[EpochRow]]:
    """Rows of `history.json` by model, in the order of `MODALITIES`."""
    groups = {name: [row for row in history if row.modalities == name] for name in MODALITIES}
    return {name: rows for name, rows in groups.items() if rows}


class Curve(NamedTuple):
    """The epochs of a model, or of one of an ensemble's members, which share a colour and of which one has the label."""

    modality: str
    rows: list[EpochRow]
    label: str | None
    is_member: bool


def _curves(history: Sequence[EpochRow]) -> Iterator[Curve]:
    for name, rows in by_modality(history).items():
        members = [list(group) for _, group in groupby(rows, key=lambda row: row.member)]
        for number, member in enumerate(members):
            yield Curve(name, member, None if number else say(name), is_member=len(members) > 1)


@chart(WIDTH, 210)
def loss_curves(figure: Figure, history: Sequence[EpochRow]) -> str:
    """Training (dashed) and validation (solid) loss of each model in `history.json`."""
    axes = figure.subplots()
    for name, rows, label, is_member in _curves(history):
        epochs, color = [row.epoch for row in rows], MODALITY_COLORS[name]
        marker = "." if len(rows) == 1 else None  # one point makes no line
        axes.plot(epochs, [row.train_loss for row in rows], color=color, linestyle=(0, (3, 2)), linewidth=1.1, marker=marker)
        width = MEMBER_WIDTH if is_member else None
        axes.plot(epochs, [row.val_loss for row in rows], color=color, label=label, marker=marker, linewidth=width)
    axes.set(xlabel=say("epoch"), ylabel=say("loss"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure)
    return say("Loss by epoch")


@chart(WIDTH, 210)
def macro_f1_curves(figure: Figure, history: Sequence[EpochRow]) -> str:
    """Validation macro-F1 of each model in `history.json`, the epoch that was picked marked."""
    axes = figure.subplots()
    for name, rows, label, is_member in _curves(history):
        epochs, scores, color = [row.epoch for row in rows], [row.val_macro_f1 for row in rows], MODALITY_COLORS[name]
        axes.plot(epochs, scores, color=color, label=label, linewidth=MEMBER_WIDTH if is_member else None)
        # Of many members the table has the mean: as many marks hide the curves.
        if not is_member and not np.all(np.isnan(scores)):
            best = int(np.nanargmax([row.val_score for row in rows]))
            axes.plot(epochs[best], scores[best], "o", markersize=7, color=color, markeredgecolor=CARD)
            number = f"{epochs[best]:g}"
            axes.annotate(number, (epochs[best], scores[best]), (0, 6), textcoords="offset points", ha="center", weight="bold")
    axes.set(xlabel=say("epoch"), ylabel=say("macro-F1, validation"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure)
    return say("Validation macro-F1 by epoch")


@chart(WIDTH, 145)
def ablation(figure: Figure, blocks: Mapping[str, ClassificationBlock], ceiling: Mapping[str, float]) -> str:
    """Test macro-F1 with its interval for each modality, with the best reachable figure as a tick where it is known."""
    axes = figure.subplots()
    names = [name for name in MODALITIES if name in blocks]
    for row, name in enumerate(names):
        score, (low, high) = blocks[name].macro_f1, blocks[name].macro_f1_interval
        axes.plot([low, high], [row, row], color=MODALITY_COLORS[name], linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot(score, row, "o", color=MODALITY_COLORS[name], markersize=8)
        if name in ceiling:
            label = say("best reachable") if row == 0 else None
            axes.plot(ceiling[name], row, "|", color=INK, markersize=17, markeredgewidth=1.8, label=label)
        # At the edge, where neither an interval nor a tick can run into it.
        axes.text(1.02, row, f"{score:.3f}", transform=axes.get_yaxis_transform(), va="center", weight="bold")
    axes.set(
        xlabel=say("macro-F1, test"),
        yticks=range(len(names)),
        yticklabels=[say(name) for name in names],
        ylim=(len(names) - 0.4, -0.6),
    )
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)
    if ceiling:
        legend(figure)
    return say("Test macro-F1 by modality")


def wilson(right: float, total: int) -> tuple[float, float]:
    """95 % interval of a share; holds for small counts and at 0 and 1, where the usual one collapses."""
    z = 1.96
    center, spread = right + z * z / 2, z * math.sqrt(right * (total - right) / total + z * z / 4)
    return (center - spread) / (total + z * z), (center + spread) / (total + z * z)


@chart(WIDTH, 230)
def net_benefit(figure: Figure, curve: NetBenefit) -> str:
    """The decision curve of the model, between those of flagging every call and none."""
    axes = figure.subplots()
    axes.plot(curve.thresholds, curve.model, color=MODALITY_COLORS["fused"], label=say("model"))
    axes.plot(curve.thresholds, curve.flag_all, color=MUTED, linestyle=(0, (3, 2)), linewidth=1.2, label=say("flag all"))
    axes.axhline(0.0, color=MUTED, linestyle=(0, (1, 1.5)), linewidth=1.2, label=say("flag none"))
    # Flagging all falls without bound as the threshold nears 1.
    highest = max(*curve.model, *curve.flag_all, 0.01)
    axes.set(xlabel=say("threshold on P(상)"), ylabel=say("net benefit"), xlim=(0, 1), ylim=(-0.25 * highest, 1.08 * highest))
    legend(figure)
    return say("Net benefit of flagging 상 by threshold")


@chart(WIDTH, 275)
def reliability(figure: Figure, confidence: Sequence[float], correct: Sequence[bool], num_bins: int = 15) -> str:
    """Share of right predictions by stated confidence, over a histogram of the confidences.

    The bins are those of `metrics.expected_calibration_error`, closed on the right, so that picture and figure agree.
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
            [mean, mean], wilson(right, int(counts[index])), color=color, alpha=0.45, linewidth=3, solid_capstyle="round"
        )
        upper.plot(mean, right / counts[index], "o", color=color, markersize=6)
    lower.bar((np.arange(num_bins) + 0.5) / num_bins, counts, width=0.9 / num_bins, color=color, alpha=0.6)
    upper.set(ylabel=say("share right"), ylim=(0, 1.02), xlim=(0.3, 1.0))  # of three classes the likeliest has 1/3 or more
    lower.set(xlabel=say("confidence of the predicted class"), ylabel=say("rows"))
    lower.grid(False, axis="x")
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    figure.align_ylabels()
    return say("Reliability of the predicted probabilities")
