"""Validation curves of several runs in one chart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from urgency_ray.report.language import say
from urgency_ray.report.svg import BLUE, WIDTH, chart, legend
from urgency_ray.training.history import EpochRow

RUN_COLORS = (BLUE, "#e07b16", "#1b9e77", "#b565a7", "#8a6d3b", "#6a63b8")
"""Of the runs in their order, told apart by colour-blind readers; beyond the sixth, lines are dashed."""
MEMBER_WIDTH = 0.8

Histories = Mapping[str, Sequence[EpochRow]]


@chart(WIDTH, 210)
def compare_scores(figure: Figure, histories: Histories) -> str:
    """Validation macro-F1 by epoch of each run, by its name."""
    _draw(figure, histories, lambda row: row.val_macro_f1, say("macro-F1, validation"))
    return say("Validation macro-F1 by epoch of each run")


@chart(WIDTH, 210)
def compare_losses(figure: Figure, histories: Histories) -> str:
    """Validation loss by epoch of each run, by its name."""
    _draw(figure, histories, lambda row: row.val_loss, say("loss, validation"))
    return say("Validation loss by epoch of each run")


def _draw(figure: Figure, histories: Histories, value: Callable[[EpochRow], float], label: str) -> None:
    axes = figure.subplots()
    for number, (name, rows) in enumerate(histories.items()):
        members = [list(group) for _, group in groupby(rows, key=lambda row: row.member)]
        color = RUN_COLORS[number % len(RUN_COLORS)]
        for index, member in enumerate(members):
            axes.plot(
                [row.epoch for row in member],
                [value(row) for row in member],
                color=color,
                label=None if index else name,
                linewidth=MEMBER_WIDTH if len(members) > 1 else None,
                linestyle="solid" if number < len(RUN_COLORS) else (0, (4, 2)),
                marker="." if len(member) == 1 else None,  # one point makes no line
            )
    axes.set(xlabel=say("epoch"), ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure)
