"""Linear discriminant analysis of the embeddings, its covariance shrunk: as many parameters again as logistic regression has,
but estimated in closed form from all rows of all classes at once, which a few hundred calls bear better.

The classes are taken for normal with one covariance S; a weight is S'^-1 m of a class mean m, where S' = (1 - s) S + s t I
mixes in the mean variance t (Friedman 1989; scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s)`).
Embeddings are not normal, so its probabilities are far too sure of themselves: a temperature mends that.

Shapes: N rows, D inputs as in `training.linear`, C classes, R = min(N, D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from urgency_ray.examples.dataset import NUM_CLASSES, class_counts
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.scoring.calibration import fit_temperature
from urgency_ray.training.data import TrainingData
from urgency_ray.training.linear import NEVER, few_threads, grouped_folds, linear_inputs, sample_rows

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Candidates for s: the more dimensions for a row, the more of it."""
FALLBACK = 0.5
"""Where there are too few calls to choose s by."""

Weights = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weights (C, D) and biases (C,) of a linear model."""


def fit_discriminant(
    model: UrgencyClassifier,
    data: TrainingData,
    rows: NDArray[np.int64],
    *,
    shrinkage: float | None,
    balanced: bool,
    seed: int,
) -> float:
    """Fill a linear classifier's weights with those of the discriminant analysis of some labelled examples.

    Args:
        model: its statistics are set already.
        data: embeddings and labels.
        rows: numbers of the examples; of more than `linear.MAX_ROWS`, a stratified sample is fitted.
        shrinkage: s; None takes that of the least log loss, at its best temperature, over grouped folds held out.
        balanced: whether the classes are taken for equally frequent, or as frequent as here.
        seed: of the folds and of the sample.

    Returns:
        Mean log loss on the rows that were fitted.
    """
    rows = sample_rows(data, rows, seed)
    inputs, labels = linear_inputs(model, data, rows).astype(np.float64), data.urgency[rows]
    groups = rows if data.groups is None else data.groups[rows]
    with few_threads(len(rows)):
        chosen = _choose(inputs, labels, groups, shrinkage=shrinkage, balanced=balanced, seed=seed)
        weights, bias = _Moments.of(inputs, labels).weights(chosen.shrinkage, balanced)
    with torch.no_grad():
        model.urgency.weight.copy_(torch.from_numpy(weights / chosen.temperature))
        # A class that is not there stays away at any temperature.
        model.urgency.bias.copy_(torch.from_numpy(np.where(bias == NEVER, NEVER, bias / chosen.temperature)))
        logits = model.urgency(torch.from_numpy(inputs.astype(np.float32)))
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)))


def held_out_logits(
    inputs: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    shrinkage: float | None,
    balanced: bool,
    seed: int,
) -> tuple[NDArray[np.float64], Weights]:
    """Discriminant functions of each row by a fit that has not seen it, (N, C), and the fit to all rows; without temperature.

    Where there are too few calls to hold any out, the functions are those of the fit to all rows. Arguments as above; `groups`
    (N,) are never on both sides.
    """
    chosen = _choose(inputs, labels, groups, shrinkage=shrinkage, balanced=balanced, seed=seed)
    weights, bias = _Moments.of(inputs, labels).weights(chosen.shrinkage, balanced)
    return inputs @ weights.T + bias if chosen.held_out is None else chosen.held_out, (weights, bias)


class _Choice(NamedTuple):
    """Shrinkage and temperature, of the least log loss on rows held out, and their discriminant functions (N, C)."""

    shrinkage: float
    temperature: float
    held_out: NDArray[np.float64] | None


def _choose(
    inputs: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    shrinkage: float | None,
    balanced: bool,
    seed: int,
) -> _Choice:
    folds = grouped_folds(labels, groups, seed)
    candidates = SHRINKAGES if shrinkage is None else (shrinkage,)
    if folds is None:
        return _Choice(FALLBACK if shrinkage is None else shrinkage, 1.0, None)
    told = np.zeros((len(candidates), len(labels), NUM_CLASSES))
    for fitted, held_out in folds:
        moments = _Moments.of(inputs[fitted], labels[fitted])
        for place, candidate in enumerate(candidates):
            weights, bias = moments.weights(candidate, balanced)
            told[place, held_out] = inputs[held_out] @ weights.T + bias
    temperatures = [fit_temperature(logits, labels) for logits in told]
    losses = [
        -float(log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())
        for logits, temperature in zip(told, temperatures, strict=True)
    ]
    best = int(np.argmin(losses))
    return _Choice(candidates[best], temperatures[best], told[best])


@dataclass(frozen=True)
class _Moments:
    """Of the rows: what the weights for any shrinkage are made of.

    Attributes:
        counts: rows of each class (C,).
        means: of each class (C, D); 0 where it has no rows.
        spread: eigenvalues of the covariance within classes (R,).
        axes: their eigenvectors (D, R).
        variance: the mean of its diagonal.
    """

    counts: NDArray[np.int64]
    means: NDArray[np.float64]
    spread: NDArray[np.float64]
    axes: NDArray[np.float64]
    variance: float

    @classmethod
    def of(cls, inputs: NDArray[np.float64], labels: NDArray[np.int64]) -> _Moments:
        counts = class_counts(labels, NUM_CLASSES)
        means = np.stack([inputs[labels == label].sum(axis=0) for label in range(NUM_CLASSES)])
        means /= np.maximum(counts, 1)[:, None]
        inner = (inputs - means[labels]) / np.sqrt(len(labels))
        variance = float((inner**2).sum() / inputs.shape[1])
        # The smaller of the two Gram matrices has all eigenvalues but zeros.
        if len(labels) < inputs.shape[1]:
            spread, turned = np.linalg.eigh(inner @ inner.T)
            kept = spread > 1e-10 * max(spread.max(), 1e-300)
            return cls(counts, means, spread[kept], inner.T @ turned[:, kept] / np.sqrt(spread[kept]), variance)
        return cls(counts, means, *np.linalg.eigh(inner.T @ inner), variance)

    def weights(self, shrinkage: float, balanced: bool) -> Weights:
        """Weights and biases of the discriminant functions; a class without rows is never called."""
        floor = max(shrinkage * self.variance, 1e-12)
        along = 1.0 / ((1.0 - shrinkage) * np.maximum(self.spread, 0.0) + floor) - 1.0 / floor
        weights = self.means / floor + (self.means @ self.axes * along) @ self.axes.T
        present = self.counts > 0
        shares = np.where(present, 1.0 if balanced else self.counts, 1.0) / (present.sum() if balanced else self.counts.sum())
        bias = np.log(shares) - 0.5 * (self.means * weights).sum(axis=1)
        return weights, np.where(present, bias, NEVER)
