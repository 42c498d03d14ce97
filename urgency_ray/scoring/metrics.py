"""Macro-F1, figures per class, ordinal distance, calibration, and intervals that resample calls. Pure functions of arrays.

A confusion matrix has a row for each true class and a column for each predicted one. Macro-F1 is the mean over the classes that
occur in truth or predictions, as in scikit-learn's `f1_score(average="macro")`; in resamples, over those of the whole sample.

Everywhere below: N rows, at least one; `y_true` and predictions are (N,), of C classes numbered from 0; `probs` is (N, C);
`groups` (N,) names each row's call (or group of calls) by an integer or a string. Rows of one call are not independent draws,
so the intervals are those of a cluster bootstrap, which resamples whole groups (Field and Welsh 2007): percentile, 95 %.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urgency_ray.schema import URGENCY_LABELS
from urgency_ray.scoring.blocks import ClassFigures, ClassificationBlock, Interval, NetBenefit

Classes = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

THRESHOLDS: Floats = np.arange(1, 20) / 20
"""On P(상), of the decision curve."""
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""What log loss takes a probability of 0 for, lest one row make it infinite."""
MAX_WEIGHTS = 4_000_000
"""Bootstrap weights in memory at once (64 MB), however many groups and resamples there are."""


def _ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> Floats:
    """Share of each whole, and 0 where a whole (and so its part) is 0."""
    return np.asarray(parts / np.where(wholes > 0, wholes, 1), np.float64)


def _f1_from_confusion(confusion: NDArray[Any]) -> Floats:
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, _occurrences(confusion))


def _occurrences(confusion: NDArray[Any]) -> NDArray[Any]:
    """How often each class is the truth or predicted, (..., C)."""
    return np.asarray(confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1_from_confusion(confusion: NDArray[Any], whole: NDArray[Any] | None = None) -> Floats:
    """Mean F1 over the classes that occur, (...), of confusion matrices (..., C, C) of counts.

    Args:
        confusion: the matrices.
        whole: those that say which classes occur, where it is not these: of the sample that they were drawn from.
    """
    occurs = _occurrences(confusion if whole is None else whole) > 0
    return np.asarray(_f1_from_confusion(confusion).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1))


def group_cells(y_true: Classes, predictions: Sequence[Classes], groups: NDArray[Any], num_classes: int) -> Floats:
    """Confusion cells of each group, (G, len(predictions) * C * C).

    Raises:
        ValueError: no rows, lengths that differ, or a class out of range.
    """
    lengths = [len(values) for values in (y_true, *predictions, groups)]
    if not lengths[0] or len(set(lengths)) > 1:
        raise ValueError(f"truth, predictions and groups must have the same rows, at least one, but got {lengths}")
    low, high = (int(bound([y_true, *predictions])) for bound in (np.min, np.max))
    if low < 0 or high >= num_classes:
        raise ValueError(f"classes must be 0 to {num_classes - 1} but got {low} to {high}")
    names, group = np.unique(groups, return_inverse=True)
    size = num_classes**2
    cells = [np.bincount(group * size + y_true * num_classes + y_pred, minlength=len(names) * size) for y_pred in predictions]
    return np.hstack([counts.reshape(-1, size) for counts in cells]).astype(np.float64)


def resample(cells: Floats, num_resamples: int, seed: int) -> Floats:
    """Sums of cells (G, K) over G groups drawn with replacement, (num_resamples, K)."""
    # Groups of equal cells are one outcome of the draw: the same distribution, of only C * C outcomes where a call is one row.
    outcomes, counts = np.unique(cells, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, MAX_WEIGHTS // len(outcomes))
    sums = [
        rng.multinomial(len(cells), counts / len(cells), size=min(step, num_resamples - start)).astype(np.float64) @ outcomes
        for start in range(0, num_resamples, step)
    ]
    return np.concatenate(sums)


def percentile_interval(figures: Floats) -> Interval:
    low, high = np.percentile(figures, [2.5, 97.5]).tolist()
    return low, high


def paired_macro_f1_difference(
    y_true: Classes,
    pred_a: Classes,
    pred_b: Classes,
    groups: NDArray[Any],
    *,
    num_resamples: int,
    seed: int,
    num_classes: int = len(URGENCY_LABELS),
) -> tuple[float, Interval]:
    """Macro-F1 of A less that of B and its interval, with both scored on the same `num_resamples` resamples.

    Raises:
        ValueError: no rows, lengths that differ, or a class out of range.
    """
    cells = group_cells(y_true, (pred_a, pred_b), groups, num_classes)
    sums = np.vstack([cells.sum(axis=0), resample(cells, num_resamples, seed)])
    confusions = sums.reshape(-1, 2, num_classes, num_classes)
    scores = macro_f1_from_confusion(confusions, confusions[:1])
    differences = scores[:, 0] - scores[:, 1]
    return float(differences[0]), percentile_interval(differences[1:])


def expected_calibration_error(y_true: Classes, probs: NDArray[np.floating[Any]], num_bins: int = 15) -> float:
    """Expected calibration error, in [0, 1], of the most probable class (Guo et al. 2017, arXiv:1706.04599).

    Of the M = `num_bins` bins of equal width, bin m holds the probabilities in ((m - 1) / M, m / M].
    """
    confidence = probs.max(axis=1).astype(np.float64)
    excess = (probs.argmax(axis=1) == y_true) - confidence
    bins = np.digitize(confidence, np.arange(1, num_bins) / num_bins, right=True)
    # A bin's |accuracy - confidence|, times its share of the rows, is the absolute sum of its excess over N.
    return float(np.abs(np.bincount(bins, weights=excess)).sum() / len(y_true))


def quadratic_kappas(confusions: NDArray[Any]) -> Floats:
    """Quadratic kappa (Cohen 1968) of confusion matrices (..., C, C); NaN where truth and predictions are all of one class."""
    classes = np.arange(confusions.shape[-1])
    squares = (classes[:, None] - classes) ** 2
    by_chance = confusions.sum(axis=-1)[..., :, None] * confusions.sum(axis=-2)[..., None, :]
    expected = (squares * by_chance).sum(axis=(-2, -1)) / np.maximum(confusions.sum(axis=(-2, -1)), 1)
    seen = (squares * confusions).sum(axis=(-2, -1))
    return np.asarray(1.0 - np.divide(seen, expected, out=np.full(seen.shape, np.nan), where=expected > 0))


def _ordinal_figures(confusion: NDArray[np.int64], resampled: Floats) -> dict[str, Any]:
    """Quadratic kappa, mean distance in classes, what became of the highest class, and rows called too low or too high."""
    classes, num_rows = np.arange(len(confusion)), confusion.sum()
    highest, num_highest = confusion[-1], int(confusion[-1].sum())
    kappa, kappas = float(quadratic_kappas(confusion)), quadratic_kappas(resampled)
    known = kappas[np.isfinite(kappas)]
    return {
        "quadratic_kappa": kappa if math.isfinite(kappa) else None,
        "ordinal_mae": float((np.abs(classes[:, None] - classes) * confusion).sum() / num_rows),
        "recall_high": float(highest[-1] / num_highest) if num_highest else None,
        "high_called_low": float(highest[0] / num_highest) if num_highest else None,
        "under_triage": float(np.tril(confusion, -1).sum() / num_rows),
        "over_triage": float(np.triu(confusion, 1).sum() / num_rows),
        "quadratic_kappa_interval": percentile_interval(known) if math.isfinite(kappa) and len(known) else None,
    }


def _figures_of_high(y_true: Classes, probs_high: Floats) -> dict[str, Any]:
    """Ranking and decision curve of P(상); ranks are None where there is nothing to tell apart."""
    # An import of a second, and training's workers, who need the macro-F1 alone, import this module.
    from sklearn.metrics import average_precision_score, roc_auc_score

    high = y_true == len(URGENCY_LABELS) - 1
    both = 0 < high.sum() < len(high)
    return {
        "auroc_high": float(roc_auc_score(high, probs_high)) if both else None,
        "auprc_high": float(average_precision_score(high, probs_high)) if both else None,
        "net_benefit": net_benefit(high, probs_high),
    }


def log_loss(y_true: Classes, probs: NDArray[np.floating[Any]]) -> float:
    """Mean negative log-probability of the true classes; a 0 counts as float32's least."""
    likelihood = probs[np.arange(len(y_true)), y_true]
    return float(-np.log(np.maximum(likelihood, LEAST_PROBABILITY)).mean())


def net_benefit(high: NDArray[np.bool_], probs_high: Floats) -> NetBenefit:
    """The decision curve of N rows: which of them are 상, and P(상)."""
    odds = THRESHOLDS / (1 - THRESHOLDS)
    flagged = probs_high[:, None] >= THRESHOLDS
    found, alarms = (flagged & high[:, None]).mean(axis=0), (flagged & ~high[:, None]).mean(axis=0)
    flag_all = high.mean() - (~high).mean() * odds
    return NetBenefit(
        thresholds=THRESHOLDS.tolist(), model=(found - alarms * odds).tolist(), flag_all=np.asarray(flag_all).tolist()
    )


def classification_block(
    y_true: Classes,
    y_pred: Classes,
    probs: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    labels: Sequence[str],
    *,
    num_resamples: int,
    seed: int,
    ordinal: bool,
) -> ClassificationBlock:
    """One task's block of metrics.json, without its temperature; a figure that these rows do not define is None.

    Not defined are `quadratic_kappa` where truth and predictions are all of one class, and what is said of the highest class
    where it has no rows, or no others are there. The interval of a single group is a point.

    Args:
        y_true, y_pred, probs, groups: as on top of the module; `probs` is for what is said of probabilities.
        labels: names of the C classes, in their order.
        num_resamples: at least 1, behind the interval of the macro-F1.
        seed: of the resamples.
        ordinal: whether the order of the classes has a meaning; false leaves all that follows from it None.

    Raises:
        ValueError: no rows, lengths that differ, a class out of range, or probabilities that are not finite.
    """
    num_rows, num_classes = len(y_true), len(labels)
    if probs.shape != (num_rows, num_classes):
        raise ValueError(f"probs must have shape {(num_rows, num_classes)} but got {probs.shape}")
    if not np.isfinite(probs).all():
        raise ValueError("probs must be finite")
    cells = group_cells(y_true, [y_pred], groups, num_classes)
    confusion = cells.sum(axis=0).astype(np.int64).reshape(num_classes, num_classes)
    resampled = resample(cells, num_resamples, seed).reshape(-1, num_classes, num_classes)
    hits, support = confusion.diagonal(), confusion.sum(axis=1)
    columns = (_ratio(hits, confusion.sum(axis=0)), _ratio(hits, support), _f1_from_confusion(confusion), support)
    rows = zip(labels, *(column.tolist() for column in columns), strict=True)
    certain = np.asarray(probs, np.float64)
    ordinal_figures = _ordinal_figures(confusion, resampled) | _figures_of_high(y_true, certain[:, -1])
    return ClassificationBlock(
        num_rows=num_rows,
        accuracy=float(hits.sum() / num_rows),
        macro_f1=float(macro_f1_from_confusion(confusion)),
        macro_f1_interval=percentile_interval(macro_f1_from_confusion(resampled, confusion)),
        per_class={
            label: ClassFigures(precision=precision, recall=recall, f1=f1, support=count)
            for label, precision, recall, f1, count in rows
        },
        confusion=confusion.tolist(),
        **(ordinal_figures if ordinal else dict.fromkeys(ordinal_figures)),
        log_loss=log_loss(y_true, certain),
        brier=float(((certain - np.eye(num_classes)[y_true]) ** 2).sum(axis=1).mean()),
        expected_calibration_error=expected_calibration_error(y_true, probs),
    )


def num_columns(text: str) -> int:
    """Columns of a terminal that `text` takes: two for a wide character, such as a Korean syllable."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def format_report(block: ClassificationBlock) -> str:
    """A `classification_block` as a plain text table: precision, recall, F1 and support by class, then accuracy and macro-F1.

    Columns line up where wide characters (Korean) take two places, as they do in a terminal.
    """
    rows = [("class", "precision", "recall", "F1", "support")]
    for label, row in block.per_class.items():
        rows.append((label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support)))
    low, high = block.macro_f1_interval
    rows.append(("accuracy", "", "", f"{block.accuracy:.3f}", str(block.num_rows)))
    rows.append(("macro-F1", "", "", f"{block.macro_f1:.3f}", f"95 % interval {low:.3f} to {high:.3f}"))
    first = max(num_columns(row[0]) for row in rows)
    lines = (
        f"{name}{' ' * (first - num_columns(name))}  {precision:>9}  {recall:>6}  {f1:>5}  {last:>7}"
        for name, precision, recall, f1, last in rows
    )
    return "\n".join(lines)
