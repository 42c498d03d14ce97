"""What one model's figures are less another's on the same rows, with intervals of a bootstrap that scores both at once.

Everywhere below, as in `metrics`: N rows; `y_true` (N,); `groups` (N,) names each row's group of calls, which is drawn whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urgency_ray.scoring.blocks import Interval
from urgency_ray.scoring.metrics import (
    LEAST_PROBABILITY,
    Classes,
    Floats,
    group_cells,
    macro_f1_from_confusion,
    percentile_interval,
    quadratic_kappas,
    resample,
)

HIGHER_IS_BETTER = {
    "macro_f1": True,
    "accuracy": True,
    "recall_high": True,
    "high_called_low": False,
    "under_triage": False,
    "over_triage": False,
    "ordinal_mae": False,
    "quadratic_kappa": True,
    "log_loss": False,
    "brier": False,
}
"""The figures that are compared, by their name in a `ClassificationBlock`, and whether more of it is better."""

Verdict = Literal["better", "no_better", "worse"]


class Answers(NamedTuple):
    """What a model says of N rows: the class that it calls each (N,), and its probabilities (N, C)."""

    called: Classes
    probs: NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PairedFigure:
    """A figure of A less that of B; `verdict` is on A: better or worse where the whole interval is on that side of 0."""

    difference: float
    interval: Interval
    verdict: Verdict


def paired_differences(
    y_true: Classes, a: Answers, b: Answers, groups: NDArray[Any], *, num_resamples: int, seed: int
) -> dict[str, PairedFigure]:
    """The figures of `HIGHER_IS_BETTER` of A less those of B; one that these rows do not define is left out.

    The macro-F1 is that of `paired_macro_f1_difference`, of the same resamples.

    Raises:
        ValueError: no rows, lengths that differ, or a class out of range.
    """
    num_classes = a.probs.shape[1]
    cells = group_cells(y_true, (a.called, b.called), groups, num_classes)
    sums = np.vstack([cells.sum(axis=0), resample(cells, num_resamples, seed)])
    figures = _of_confusions(sums.reshape(-1, 2, num_classes, num_classes))
    losses = _group_losses(y_true, (a.probs, b.probs), groups)
    sums = np.vstack([losses.sum(axis=0), resample(losses, num_resamples, seed)])
    means = sums[:, :-1] / sums[:, -1:]
    figures |= {"log_loss": means[:, :2], "brier": means[:, 2:]}
    found = {}
    for name, better in HIGHER_IS_BETTER.items():
        differences = figures[name][:, 0] - figures[name][:, 1]
        known = differences[1:][np.isfinite(differences[1:])]
        if np.isfinite(differences[0]) and len(known):
            interval = percentile_interval(known)
            found[name] = PairedFigure(float(differences[0]), interval, _verdict(interval, better))
    return found


def _verdict(interval: Interval, higher_is_better: bool) -> Verdict:
    low, high = interval
    if low > 0:
        return "better" if higher_is_better else "worse"
    if high < 0:
        return "worse" if higher_is_better else "better"
    return "no_better"


def _of_confusions(confusions: Floats) -> dict[str, Floats]:
    """Each figure of confusion matrices (R, 2, C, C), (R, 2): the first is of the whole sample; NaN where it is not defined."""
    classes = np.arange(confusions.shape[-1])
    num_rows, of_high = confusions.sum(axis=(-2, -1)), confusions[..., -1, :].sum(axis=-1)
    distance = np.abs(classes[:, None] - classes)
    num_high = np.where(of_high > 0, of_high, np.nan)
    return {
        "macro_f1": macro_f1_from_confusion(confusions, confusions[:1]),
        "accuracy": np.trace(confusions, axis1=-2, axis2=-1) / num_rows,
        "recall_high": confusions[..., -1, -1] / num_high,
        "high_called_low": confusions[..., -1, 0] / num_high,
        "under_triage": np.tril(confusions, -1).sum(axis=(-2, -1)) / num_rows,
        "over_triage": np.triu(confusions, 1).sum(axis=(-2, -1)) / num_rows,
        "ordinal_mae": (distance * confusions).sum(axis=(-2, -1)) / num_rows,
        "quadratic_kappa": quadratic_kappas(confusions),
    }


def _group_losses(y_true: Classes, probs: tuple[NDArray[Any], NDArray[Any]], groups: NDArray[Any]) -> Floats:
    """Sums over each group, (G, 5): log loss of both, Brier's score of both, rows."""
    _, group = np.unique(groups, return_inverse=True)
    exact = [np.asarray(each, np.float64) for each in probs]
    rows, truth = np.arange(len(y_true)), np.eye(exact[0].shape[1])[y_true]
    columns = [-np.log(np.maximum(each[rows, y_true], LEAST_PROBABILITY)) for each in exact]
    columns += [((each - truth) ** 2).sum(axis=1) for each in exact]
    return np.column_stack([np.bincount(group, weights=column) for column in (*columns, np.ones(len(rows)))])
