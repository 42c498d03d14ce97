"""A stacked model: discriminant analysis of each modality, and a logistic regression over smooth functions of its scores.

A few hundred calls bear no trunk over hundreds of inputs, but they do bear one over the two scores that each modality comes to.
The scores that the second stage learns from are those of rows held out (Wolpert 1992, Stacked generalization): of rows that the
first stage has seen it would believe too much. The second stage is a kernel logistic regression, its Gaussian kernels on a grid
of points (`model.score_surface`) and its penalty the norm of their function space; the modalities' evidence adds up.

Shapes: N rows, D inputs of a modality, C classes, M modalities, B bumps of a modality.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.score_surface import KNOTS, bumps
from urgency_ray.training.data import TrainingData
from urgency_ray.training.discriminant import held_out_logits
from urgency_ray.training.linear import (
    CHOICE_ROWS,
    all_classes,
    choose_penalty,
    few_threads,
    linear_inputs,
    regress,
    sample_rows,
    unfitted,
)

CONTRASTS = np.array([[-1.0, 0.0, 1.0], [-0.5, 1.0, -0.5]])
"""From the logits of three classes to scores: 상 against 하, and 중 against both."""
WIDTH = 1.3
"""Of a bump, in standard deviations of a score; 1 and 1.8 did as well."""
PENALTIES = tuple(10.0 ** (power / 2) for power in range(-2, 4))
FALLBACK = 1.0
"""C where it cannot be chosen: what most data chose."""


def fit_stacked(
    model: UrgencyClassifier,
    data: TrainingData,
    rows: NDArray[np.int64],
    *,
    shrinkage: float | None,
    balanced: bool,
    seed: int,
) -> float:
    """Fill a stacked classifier's weights; the arguments are those of `discriminant.fit_discriminant`.

    Returns:
        Mean log loss of the second stage on the scores that it was fitted to.
    """
    rows = sample_rows(data, rows, seed)
    inputs, labels = linear_inputs(model, data, rows).astype(np.float64), data.urgency[rows]
    groups = rows if data.groups is None else data.groups[rows]
    surface: Any = model.head
    options: dict[str, Any] = {"shrinkage": shrinkage, "balanced": balanced, "seed": seed}
    scores = [
        _fit_scores(layer, part, labels, groups, options)
        for layer, part in zip(surface.scores, np.split(inputs, np.cumsum(surface.dims)[:-1], axis=1), strict=True)
    ]
    weights, bias, loss = _fit_surface(scores, data, rows, balanced=balanced, seed=seed)
    with torch.no_grad():
        model.urgency.weight.copy_(torch.from_numpy(weights))
        model.urgency.bias.copy_(torch.from_numpy(bias))
    return loss


def _fit_scores(
    layer: nn.Linear, inputs: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], options: dict[str, Any]
) -> Tensor:
    """Fill the layer (D, 2) that makes a modality's scores; return those of the rows, (N, 2), each by a fit without it."""
    with few_threads(len(labels)):
        told, (weights, bias) = held_out_logits(inputs, labels, groups, **options)
    scores = told @ CONTRASTS.T
    mean, width = scores.mean(axis=0), WIDTH * scores.std(axis=0)
    width[width < 1e-6 * np.maximum(np.abs(mean), 1.0)] = 1.0
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(CONTRASTS @ weights / width[:, None]))
        layer.bias.copy_(torch.from_numpy((CONTRASTS @ bias - mean) / width))
    return torch.from_numpy((scores - mean) / width)


def _fit_surface(
    scores: list[Tensor], data: TrainingData, rows: NDArray[np.int64], *, balanced: bool, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float32], float]:
    """Weights (C, M B) and biases (C,) over the bumps of each modality's scores, and their mean log loss."""
    whiten, labels = _whitening(), data.urgency[rows]
    inputs = np.hstack([bumps(part).numpy() @ whiten for part in scores])
    few = np.searchsorted(rows, sample_rows(data, rows, seed, CHOICE_ROWS)) if len(rows) > CHOICE_ROWS else np.arange(len(rows))
    groups = rows if data.groups is None else data.groups[rows]
    penalty = choose_penalty(inputs[few], labels[few], groups[few], balanced=balanced, seed=seed, penalties=PENALTIES)
    several = len(np.unique(labels)) > 1
    fitted = regress(inputs, labels, FALLBACK if penalty is None else penalty.c, unfitted(balanced)) if several else None
    weights, bias = all_classes(fitted, inputs.shape[1], labels)
    loss = -float(log_softmax(inputs @ weights.T + bias, axis=1)[np.arange(len(labels)), labels].mean())
    return np.hstack([part @ whiten.T for part in np.split(weights, len(scores), axis=1)]), bias, loss


def _whitening() -> NDArray[np.float64]:
    """K^-1/2 (B, B) of the kernel K between the grid's points: a ridge penalty then is the norm of the kernel's functions."""
    grid = torch.cartesian_prod(*[torch.tensor(KNOTS, dtype=torch.float64)] * 2)
    values, vectors = np.linalg.eigh(bumps(grid).numpy())
    return np.asarray(vectors / np.sqrt(values) @ vectors.T)
