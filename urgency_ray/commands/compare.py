"""`urgency-ray compare`: runs side by side on the test calls that all of them have, as a table and as a page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from urgency_ray.config import Config
from urgency_ray.report import verdicts, words
from urgency_ray.report.compared import Comparison, compare_runs, differing_fields, disagreements, overlaps
from urgency_ray.report.comparison import write_comparison
from urgency_ray.run_folder import RunFolder
from urgency_ray.schema import URGENCY_LABELS
from urgency_ray.scoring.metrics import num_columns
from urgency_ray.scoring.paired import HIGHER_IS_BETTER, PairedFigure
from urgency_ray.secret import blot

log = logging.getLogger(__name__)

SHOWN_CALLS = 10


def compare(config: Config, runs: Sequence[str], output: str | None = None) -> str:
    """Compare each run with the first; print a table, write a page, and return where that is.

    Args:
        config: its resamples, their seed, and the language of the page.
        runs: two run folders or more, local paths or URIs.
        output: where the page goes; None is compare.html in the first run folder.

    Raises:
        RequestError: the runs cannot be compared; the text names the one that cannot.
    """
    comparison = compare_runs(runs, config)
    target = RunFolder(runs[0]).comparison if output is None else output
    write_comparison(comparison, target, config.report.language)
    print(blot(format_comparison(comparison)))
    log.info("page: %s", target)
    return target


def format_comparison(comparison: Comparison) -> str:
    """The comparison in lines for the terminal: common calls, figures, settings, and where they disagree."""
    names, apart = [run.name for run in comparison.runs], disagreements(comparison)
    parts = [_align([("test calls", *names), *_overlap_rows(comparison)]), _align([("", *names), *_figure_rows(comparison)])]
    parts += list(_verdicts(comparison))
    fields = [(field, *values) for field, values in differing_fields(comparison.runs).items()]
    parts.append(_align([("settings that differ", *names), *fields]) if fields else "no setting differs")
    common = len(comparison.truth)
    parts.append(f"called differently: {len(apart):,} of {common:,} common calls")
    if apart:
        rows = [
            (row.example_id, URGENCY_LABELS[row.truth], *(_answer(*pair) for pair in zip(row.called, row.probs, strict=True)))
            for row in apart[:SHOWN_CALLS]
        ]
        parts[-1] += ", those first that they are surest of"
        parts.append(_align([("call", "true", *names), *rows]))
    return "\n\n".join(parts)


def _overlap_rows(comparison: Comparison) -> list[Sequence[str]]:
    found, common = overlaps(comparison.runs), f"{len(comparison.truth):,}"
    rows: list[Sequence[str]] = [
        ("with a label", *(f"{one.num_rows:,}" for one in found)),
        ("common to all", *(common for _ in found)),
        ("in this test alone", *(f"{one.num_alone:,}" for one in found)),
        ("in train or val of another", *(f"{one.num_learnt_from:,}" for one in found)),
    ]
    if comparison.num_relabelled:
        rows.append(("left out: other labels", *(f"{comparison.num_relabelled:,}" for _ in found)))
    return rows


def _figure_rows(comparison: Comparison) -> Iterable[Sequence[str]]:
    for key, _, name, _ in words.MEASURES:
        if key in HIGHER_IS_BETTER:
            scores = [words.score(getattr(block, key)) for block in comparison.blocks]
            paired = ["", *(_difference(figures.get(key)) for figures in comparison.differences)]
            yield (name, *(f"{score} {difference}".rstrip() for score, difference in zip(scores, paired, strict=True)))


def _difference(figure: PairedFigure | None) -> str:
    if figure is None:
        return ""
    low, high = figure.interval
    return f"({figure.difference:+.3f}: {low:+.3f} to {high:+.3f}){' *' if figure.verdict != 'no_better' else ''}"


def _verdicts(comparison: Comparison) -> Iterable[str]:
    first = comparison.runs[0].name
    said = [
        verdicts.comparison_verdict(run.name, first, figures["macro_f1"])
        for run, figures in zip(comparison.runs[1:], comparison.differences, strict=True)
    ]
    yield "\n".join([f"in brackets: less {first}, and the 95 % interval of that; * beyond noise", *said])


def _answer(called: int, probs: Sequence[float]) -> str:
    return f"{URGENCY_LABELS[called]} {' '.join(f'{p:.2f}' for p in probs)}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, where Korean takes two places."""
    widths = [max(num_columns(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell + " " * (width - num_columns(cell)) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
