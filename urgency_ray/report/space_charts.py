"""Charts of what a search varied: slices, importances, parallel coordinates, the simplex of a mixture."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from urgency_ray.report import words
from urgency_ray.report.language import say
from urgency_ray.report.svg import BEST_COLOR, BLUE, CARD, GRID, INK, MUTED, PANEL_WIDTH, WIDTH, chart, numbers
from urgency_ray.report.trial_charts import Trials, scatter_trials

SCORES = LinearSegmentedColormap.from_list("scores", ["#6a63b8", "#2f8fb3", "#35a98a", "#e0a81f"])
"""From low to high. By hue more than by lightness: both ends are seen on a light and on a dark card."""
WIDE = 30
"""Values that span more than this ratio, of a field whose scale is not known, are drawn on a logarithmic axis."""


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether the values of a field lie on a scale; choices do not."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_wide(values: Sequence[Any]) -> bool:
    """Whether the values of a field are better seen on a logarithmic scale."""
    return is_numeric(values) and min(values) > 0 and max(values) / min(values) > WIDE


def _short(value: float, _position: int) -> str:
    return f"{value:g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


@chart(PANEL_WIDTH, 140)
def trial_slice(figure: Figure, trials: Trials, field: str, best: int, logarithmic: bool = False) -> str:
    """Validation macro-F1 against one searched field, of trials that have a score and a value of the field."""
    axes = figure.subplots()
    values = [trial[field] for trial in trials]
    if is_numeric(values):
        xs = [float(value) for value in values]
        if logarithmic:
            axes.set_xscale("log")
            subs = (1,) if max(xs) / min(xs) > 300 else (1, 3)
            axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=5))
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        choices = sorted({str(value) for value in values})
        xs = [float(choices.index(str(value))) for value in values]
        axes.set(xticks=range(len(choices)), xticklabels=choices, xlim=(-0.5, len(choices) - 0.5))
        if sum(map(len, choices)) > 22:
            axes.tick_params(axis="x", labelrotation=20)
    scatter_trials(axes, xs, trials, best, 3.2)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(field, color=INK)
    return say("Validation macro-F1 by %(field)s", field=field)


@chart(WIDTH, 40)
def importances(figure: Figure, shares: Mapping[str, float]) -> str:
    """Share of the score's variance that each field explains alone."""
    figure.set_figheight((34 + 19 * len(shares)) / 72)
    axes = figure.subplots()
    names = sorted(shares, key=lambda name: shares[name])
    axes.barh(names, [100 * shares[name] for name in names], color=BLUE, height=0.62)
    for row, name in enumerate(names):
        axes.annotate(f"{100 * shares[name]:.0f} %", (100 * shares[name], row), (4, 0), textcoords="offset points", va="center")
    axes.set(xlabel=say("%% of the variance"))
    axes.margins(x=0.14)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(False, axis="y")
    return say("Importance of each searched field")


def _color_scale(trials: Trials) -> Normalize:
    # A few trials that came to nothing would leave one colour to all others.
    scores = numbers(trials, "val_macro_f1")
    low, high = float(np.quantile(scores, 0.1)), max(scores)
    return Normalize(low if low < high else low - 0.01, high, clip=True)


def _color_strip(axes: Axes, scale: Normalize) -> None:
    # Bars and no image: the page's policy lets the browser load none.
    assert scale.vmin is not None and scale.vmax is not None
    edges = np.linspace(scale.vmin, scale.vmax, 49)
    step = edges[1] - edges[0]
    axes.bar(edges[:-1], 1, width=1.1 * step, align="edge", color=SCORES(np.linspace(0, 1, 48)))
    axes.set(ylim=(0, 1), xlim=(edges[0], edges[-1] + 0.1 * step), xlabel=say("macro-F1, validation"), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _positions(values: Sequence[Any], logarithmic: bool) -> tuple[list[float], str, str]:
    """Where values lie between an axis' ends, 0 to 1 (NaN where there is none), and what the two ends are called."""
    known = [value for value in values if value is not None]
    if is_numeric(known):
        low, high = min(known), max(known)
        scaled = [math.nan if value is None else math.log(value) if logarithmic else float(value) for value in values]
        start, end = (math.log(low), math.log(high)) if logarithmic else (low, high)
        span = (end - start) or 1.0
        return [(value - start) / span for value in scaled], words.value(low, ".2g"), words.value(high, ".2g")
    choices = sorted({str(value) for value in known})
    places = {choice: index / max(1, len(choices) - 1) for index, choice in enumerate(choices)}
    return [math.nan if value is None else places[str(value)] for value in values], choices[0], choices[-1]


@chart(WIDTH, 100)
def parallel(figure: Figure, trials: Trials, fields: Sequence[str], best: int, logarithmic: Collection[str]) -> str:
    """A line a trial down through an axis a field, coloured by its score; the axes lie, so that their names fit a phone."""
    height = 46 * (len(fields) + 1)
    figure.set_figheight((60 + height) / 72)
    axes, strip = figure.subplots(2, height_ratios=(height, 7))
    rows = [*fields, "val_macro_f1"]
    scale = _color_scale(trials)
    places = []
    for row, field in enumerate(rows):
        known, low, high = _positions([trial[field] for trial in trials], field in logarithmic)
        places.append(known)
        name = say("macro-F1, validation") if field == "val_macro_f1" else field
        axes.axhline(row, color=MUTED, linewidth=0.8, zorder=3)
        plate = {"facecolor": CARD, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}  # the lines pass behind the words
        style: dict[str, Any] = {"va": "bottom", "zorder": 4, "textcoords": "offset points", "bbox": plate}
        axes.annotate(low, (0, row), (1, 3), ha="left", color=MUTED, **style)
        axes.annotate(name, (0.5, row), (0, 3), ha="center", color=INK, weight="bold", **style)
        axes.annotate(high, (1, row), (-1, 3), ha="right", color=MUTED, **style)
    for index in sorted(range(len(trials)), key=lambda index: (trials[index]["number"] == best, trials[index]["val_macro_f1"])):
        picked = trials[index]["number"] == best
        color = BEST_COLOR if picked else SCORES(scale(trials[index]["val_macro_f1"]))
        line = [place[index] for place in places]
        axes.plot(line, range(len(rows)), color=color, linewidth=2.6 if picked else 0.9, alpha=1 if picked else 0.7)
    axes.set(xlim=(-0.01, 1.01), ylim=(len(rows) - 0.9, -0.45))
    axes.axis("off")
    _color_strip(strip, scale)
    return say("Parallel coordinates of the trials")


CORNERS = np.array([(0.0, 0.0), (1.0, 0.0), (0.5, math.sqrt(3) / 2)])


@chart(WIDTH, 360)
def simplex(figure: Figure, trials: Trials, fields: Sequence[str], own: Sequence[float], best: int) -> str:
    """Mixtures of three fields as points of a triangle, coloured by their score.

    Args:
        trials: those with a score.
        fields: the three fields, whose values add up to 1.
        own: the config's own mixture, as shares of its total; empty where it has none.
        best: number of the trial picked.
    """
    axes, strip = figure.subplots(2, height_ratios=(300, 7))
    scale = _color_scale(trials)
    axes.fill(*CORNERS.T, facecolor="none", edgecolor=MUTED, linewidth=1)
    for share in (0.25, 0.5, 0.75):
        for corner in range(3):
            ends = [share * CORNERS[corner] + (1 - share) * CORNERS[other] for other in range(3) if other != corner]
            axes.plot(*np.array(ends).T, color=GRID, linewidth=0.8, zorder=0)
    for corner, field in enumerate(fields):
        place = CORNERS[corner] + ((0, 0.03) if corner == 2 else (0, -0.03))
        # Outwards from the edge on which the text ends.
        axes.text(*place, field.split(".")[-1], ha=("left", "right", "center")[corner], va="bottom" if corner == 2 else "top")
    for trial in sorted(trials, key=lambda trial: (trial["number"] == best, trial["val_macro_f1"])):
        x, y = np.array([trial[field] for field in fields]) @ CORNERS
        color = SCORES(scale(trial["val_macro_f1"]))
        if trial["number"] == best:
            axes.plot(x, y, "D", color=BEST_COLOR, markersize=9, markeredgecolor=INK, markeredgewidth=1.2, label=say("picked"))
        else:
            axes.plot(
                x, y, "o", color=color, markersize=6.5, markerfacecolor=color if trial["state"] == "completed" else "none"
            )
    if len(own):
        axes.plot(
            *(np.asarray(own) @ CORNERS), "P", color=INK, markersize=8, markerfacecolor="none", label=say("the config’s own")
        )
    axes.set(aspect="equal", xlim=(-0.06, 1.06), ylim=(-0.1, 0.95))
    axes.axis("off")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", handletextpad=0.4, borderpad=0)
    _color_strip(strip, scale)
    return say("Macro-F1 by mixture of %(fields)s", fields=", ".join(fields))
