"""From a function that draws with matplotlib to inline SVG that follows the page's theme and fonts."""

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
from matplotlib.figure import Figure

BLUE = "#2f7fbf"
"""What is drawn in one colour."""
BEST_COLOR = "#e07b16"
"""The trial picked."""

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
WIDTH = 360
"""Points. A card is about 340 px wide on a phone, so a 9 pt text has 8.5 px there, and 13 px on a desk."""
PANEL_WIDTH = 170

P = ParamSpec("P")


def chart(width: float, height: float) -> Callable[[Callable[Concatenate[Figure, P], str]], Callable[P, str]]:
    """Turn a function that draws on a figure and returns a description into one that returns an SVG element.

    Args:
        width: of the figure, in points.
        height: of the figure, in points, unless the function sets another.
    """

    def decorate(draw: Callable[Concatenate[Figure, P], str]) -> Callable[P, str]:
        @wraps(draw)
        def render(*args: P.args, **kwargs: P.kwargs) -> str:
            buffer = io.StringIO()
            with mpl.rc_context(_STYLE), warnings.catch_warnings():
                # Only the browser needs the glyphs.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
                description = draw(figure, *args, **kwargs)
                width_set, height_set = figure.get_size_inches() * 72
                nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
                figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
            return _inline(buffer.getvalue(), width_set, height_set, description)

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


def legend(figure: Figure) -> None:
    """A legend above the axes, in one line."""
    figure.legend(loc="outside upper left", ncols=5, handlelength=1.3, columnspacing=1.3, handletextpad=0.5, borderpad=0)


def numbers(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """A column of the rows, NaN where a row has no value."""
    return [math.nan if row.get(key) is None else float(row[key]) for row in rows]
