"""From scores to probabilities and decisions: temperature scaling and the operating point of 상, both chosen on val.

Everywhere below: N rows of C classes; `logits` is (N, C); `truth` is (N,), 0 to C - 1; `probs_high` is P(상), (N,).
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binom

from urgency_ray.schema import URGENCY_LABELS
from urgency_ray.scoring.blocks import OperatingPoint, ThresholdFigures

TEMPERATURE_RANGE = (0.1, 10.0)
"""Where the likelihood has no optimum (every row right, or worse than chance), the temperature ends at one of these."""


def fit_temperature(logits: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> float:
    """The T in `TEMPERATURE_RANGE` of the least negative log-likelihood of softmax(logits / T) (Guo et al. 2017,
    arXiv:1706.04599).

    The likelihood is convex in 1 / T, so there is one optimum; dividing by T leaves the most probable class as it is.

    Raises:
        ValueError: there are no rows.
    """
    if not len(truth):
        raise ValueError("a temperature needs at least one row")
    scores, rows = np.asarray(logits, np.float64), np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / math.exp(log_temperature), axis=1)[rows, truth].mean())

    bounds = [math.log(end) for end in TEMPERATURE_RANGE]
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def apply_temperature(probs: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Probabilities (N, C) with their logits divided by `temperature`; that of 1 / T takes a temperature T back."""
    with np.errstate(divide="ignore"):
        scores = np.log(np.asarray(probs, np.float64)) / temperature
    return np.asarray(np.exp(log_softmax(scores, axis=1)), np.float64)


def choose_threshold(
    probs_high: NDArray[np.floating[Any]], truth: NDArray[np.int64], recall: float, confidence: float
) -> float | None:
    """The highest t such that calling 상 where P(상) >= t finds at least `recall` of the 상 among new calls, with `confidence`.

    With t the k-th largest of the P(상) of n rows of 상, the recall on calls like them is at least r with the confidence
    P(Binomial(n, r) < k), whatever their distribution (Wilks 1941; the Clopper-Pearson bound of k in n): k is the least that
    comes to `confidence`. The share of these n rows alone, k = r n, would be missed by new calls half of the time. Rows are
    taken for independent draws.

    Args:
        probs_high, truth: of N rows that the model was not trained on.
        recall, confidence: both in (0, 1).

    Returns:
        None where there are fewer rows of 상 than `rows_needed`.
    """
    of_high = np.sort(probs_high[truth == len(URGENCY_LABELS) - 1])[::-1]
    ranks = np.arange(1, len(of_high) + 1)
    kept = np.flatnonzero(binom.cdf(ranks - 1, len(of_high), recall) >= confidence)
    return float(of_high[kept[0]]) if len(kept) else None


def rows_needed(recall: float, confidence: float) -> int:
    """The least number of rows of 상 by which a recall can be promised: even all of them found, fewer would not show it."""
    return math.ceil(math.log1p(-confidence) / math.log(recall) - 1e-9)


def threshold_figures(probs_high: NDArray[np.floating[Any]], truth: NDArray[np.int64], threshold: float) -> ThresholdFigures:
    """What calling 상 where P(상) >= `threshold` finds, and what it costs, on N rows, at least one."""
    high, flagged = truth == len(URGENCY_LABELS) - 1, probs_high >= threshold
    num_rows, num_high, num_flagged, num_found = (
        int(count) for count in (len(truth), high.sum(), flagged.sum(), (high & flagged).sum())
    )
    return ThresholdFigures(
        num_rows=num_rows,
        num_high=num_high,
        num_flagged=num_flagged,
        num_found=num_found,
        flagged_share=num_flagged / num_rows,
        recall=num_found / num_high if num_high else None,
        precision=num_found / num_flagged if num_flagged else None,
        false_alarms_per_high=(num_flagged - num_found) / num_high if num_high else None,
    )


def operating_point(
    probs_high: NDArray[np.floating[Any]],
    truth: NDArray[np.int64],
    splits: dict[str, NDArray[np.int64]],
    *,
    recall: float,
    confidence: float,
) -> OperatingPoint:
    """The threshold that `choose_threshold` finds on the rows of `splits["val"]`, and its `threshold_figures` on each split."""
    of_val = truth[splits["val"]]
    threshold = choose_threshold(probs_high[splits["val"]], of_val, recall, confidence)
    found = OperatingPoint(
        recall_of_high=recall,
        confidence=confidence,
        num_high=int((of_val == len(URGENCY_LABELS) - 1).sum()),
        num_high_needed=rows_needed(recall, confidence),
        threshold=None,
        splits={},
    )
    if threshold is None:
        return found
    # As it is printed. Rounded up, the row that it stands for would no longer be found.
    printed = float(f"{threshold:.6g}")
    threshold = printed if printed <= threshold else float(Context(prec=6, rounding=ROUND_FLOOR).create_decimal(threshold))
    figures = {name: threshold_figures(probs_high[rows], truth[rows], threshold) for name, rows in splits.items()}
    return found.model_copy(update={"threshold": threshold, "splits": figures})


def format_operating_point(point: OperatingPoint) -> str:
    """An `operating_point` as lines of text."""
    asked = f"recall of 상 of at least {point.recall_of_high:g} among new calls, with {100 * point.confidence:g} % confidence"
    if point.threshold is None:
        rows = f"{point.num_high_needed:,} rows of 상, and val has {point.num_high:,}"
        return f"operating point: a {asked}, cannot be promised: that takes at least {rows}"

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = [f"operating point: call 상 where P(상) >= {point.threshold:.6g}, chosen on val for a {asked}"]
    for name, figures in point.splits.items():
        lines.append(
            f"  {name:<5} recall {show(figures.recall)} ({figures.num_found:,} of {figures.num_high:,}), "
            f"precision {show(figures.precision)}, flagged {100 * figures.flagged_share:.1f} % of "
            f"{figures.num_rows:,} rows, {show(figures.false_alarms_per_high)} false alarms for each 상"
        )
    return "\n".join(lines)
