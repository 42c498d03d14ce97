"""Several runs as one self-contained page, which shows ids of calls, and no word of them."""

from __future__ import annotations

from typing import Any

from urgency_ray import __version__, storage
from urgency_ray.config import Language
from urgency_ray.report import curves, verdicts, words
from urgency_ray.report.compared import Comparison, Run, differing_fields, disagreements, overlaps
from urgency_ray.report.files import View
from urgency_ray.report.language import say, speaking
from urgency_ray.report.template import markup, render
from urgency_ray.schema import URGENCY_LABELS
from urgency_ray.scoring.paired import HIGHER_IS_BETTER, PairedFigure
from urgency_ray.training.history import EpochRow

TOP_DISAGREEMENTS = 50


def write_comparison(comparison: Comparison, location: str, language: Language) -> None:
    """Write the page of a comparison to a path or URI."""
    with speaking(language):
        storage.write_text(location, render("compare.html.j2", _view(comparison)))


def wanted_history(run: Run) -> list[EpochRow]:
    """The epochs of a run's own model, without those of its ablation; members fitted at once have no curve."""
    rows = run.history or []
    own = [row for row in rows if row.modalities == run.config["model.modalities"]]
    kinds = {(row.member or "").rpartition("-")[0] for row in own}
    return [row for row in own if kinds <= {""} or not (row.member or "").startswith(("linear", "discriminant", "stacked"))]


def _view(comparison: Comparison) -> View:
    runs, apart = comparison.runs, disagreements(comparison)
    histories = {run.name: rows for run in runs if (rows := wanted_history(run))}
    view: View = {
        "version": __version__,
        "labels": URGENCY_LABELS,
        "names": [run.name for run in runs],
        "verdicts": [
            (verdicts.comparison_verdict(run.name, runs[0].name, figures["macro_f1"]), figures["macro_f1"].verdict == "worse")
            for run, figures in zip(runs[1:], comparison.differences, strict=True)
        ],
        "overlaps": overlaps(runs),
        "num_common": len(comparison.truth),
        "num_relabelled": comparison.num_relabelled,
        "figures": [_figure_row(comparison, *measure) for measure in words.measures() if measure[0] in HIGHER_IS_BETTER],
        "classes": [_class_row(comparison, label) for label in URGENCY_LABELS],
        "fields": differing_fields(runs),
        "without_curves": [run.name for run in runs if run.name not in histories],
        "apart": apart[:TOP_DISAGREEMENTS],
        "num_apart": len(apart),
        "num_right": [sum(row.called[index] == row.truth for row in apart) for index in range(len(runs))],
        "num_costly": [sum((row.truth, row.called[index]) == (2, 0) for row in apart) for index in range(len(runs))],
    }
    if histories:
        view["curves_chart"] = markup(curves.compare_scores(histories))
        view["losses_chart"] = markup(curves.compare_losses(histories))
    return view


def _figure_row(comparison: Comparison, key: str, kind: str, name: str, says: str) -> View:
    show = words.share if kind == "share" else words.score
    cells: list[dict[str, Any]] = []
    for block, differences in zip(comparison.blocks, [{}, *comparison.differences], strict=True):
        cell: dict[str, Any] = {"value": show(getattr(block, key))}
        if key == "macro_f1":
            cell["interval"] = words.interval(block)
        if (figure := differences.get(key)) is not None:
            cell["difference"] = _difference(figure, kind)
            cell["beyond"] = "" if figure.verdict == "no_better" else figure.verdict
        cells.append(cell)
    return {"name": name, "says": says, "cells": cells}


def _difference(figure: PairedFigure, kind: str) -> str:
    scale, spec = (100.0, "+.1f") if kind == "share" else (1.0, "+.3f")
    value, low, high = (format(scale * number, spec).replace("-", "−") for number in (figure.difference, *figure.interval))
    return say("%(value)s (%(low)s to %(high)s)", value=value, low=low, high=high)


def _class_row(comparison: Comparison, label: str) -> View:
    figures = [block.per_class[label] for block in comparison.blocks]
    return {"f1": [each.f1 for each in figures], "support": figures[0].support}
