"""How a classifier does on some of the calls, beside the others: is it worse on short calls, on quiet ones, in a region?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urgency_ray.schema import URGENCY_LABELS
from urgency_ray.scoring.blocks import Interval
from urgency_ray.scoring.metrics import Classes, group_cells, macro_f1_from_confusion, percentile_interval, resample
from urgency_ray.scoring.suspicions import LEAST_ROWS

LEAST_GROUPS = LEAST_ROWS
"""A slice of fewer calls is not scored: its interval would be narrower than chance."""


@dataclass(frozen=True)
class SliceFigures:
    """Figures of the rows of a slice; intervals are of a bootstrap that resamples the groups of all rows.

    Attributes:
        macro_f1: over the classes that occur in the slice.
        difference: its macro-F1 less that of all other rows; None where these are too few to score.
        recall_high, high_called_low: None where no row is 상.
    """

    num_rows: int
    macro_f1: float
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    num_high: int
    recall_high: float | None
    high_called_low: float | None

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than the rest beyond noise."""
        return self.difference_interval is not None and self.difference_interval[1] < 0


def slice_figures(
    y_true: Classes,
    called: Classes,
    groups: NDArray[Any],
    inside: NDArray[np.bool_],
    *,
    num_resamples: int,
    seed: int,
    num_classes: int = len(URGENCY_LABELS),
) -> SliceFigures | None:
    """Figures of the rows `inside` (N,), of N rows as in `metrics`; None where they are of fewer than `LEAST_GROUPS` groups."""
    if len(np.unique(groups[inside])) < LEAST_GROUPS:
        return None
    # A row of the other part counts in no cell of this one: each group then has the cells of both.
    parts = [_masked_cells(y_true, called, groups, chosen, num_classes) for chosen in (inside, ~inside)]
    cells = np.hstack(parts)
    sums = np.vstack([cells.sum(axis=0), resample(cells, num_resamples, seed)])
    confusions = sums.reshape(-1, 2, num_classes, num_classes)
    scores = macro_f1_from_confusion(confusions, confusions[:1])
    has_rest = len(np.unique(groups[~inside])) >= LEAST_GROUPS
    differences = scores[:, 0] - scores[:, 1]
    own = confusions[0, 0]
    num_high = int(own[-1].sum())
    return SliceFigures(
        num_rows=int(inside.sum()),
        macro_f1=float(scores[0, 0]),
        interval=percentile_interval(scores[1:, 0]),
        difference=float(differences[0]) if has_rest else None,
        difference_interval=percentile_interval(differences[1:]) if has_rest else None,
        num_high=num_high,
        recall_high=float(own[-1, -1] / num_high) if num_high else None,
        high_called_low=float(own[-1, 0] / num_high) if num_high else None,
    )


def _masked_cells(
    y_true: Classes, called: Classes, groups: NDArray[Any], chosen: NDArray[np.bool_], num_classes: int
) -> NDArray[np.float64]:
    if not chosen.any():
        return np.zeros((len(np.unique(groups)), num_classes**2))
    names, group = np.unique(groups, return_inverse=True)
    cells = np.zeros((len(names), num_classes**2))
    cells[np.unique(group[chosen])] = group_cells(y_true[chosen], [called[chosen]], group[chosen], num_classes)
    return cells
