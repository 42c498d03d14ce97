"""A linear model of the embeddings: multinomial logistic regression on standardised inputs, as scikit-learn fits it.

Shapes: N rows, D inputs (those of the modalities in use, side by side), C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from threadpoolctl import threadpool_limits

from urgency_ray.examples.dataset import NUM_CLASSES
from urgency_ray.model.batch import ROWS_PER_FORWARD
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.training.data import TrainingData

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-9, 5))
"""Candidates for C, scikit-learn's inverse strength of the ridge penalty: half decades from 3e-5 to 100, strong to weak."""
FOLDS = 5
MAX_ROWS = 50_000
"""Of more rows a stratified sample is fitted: the figures of a linear model have long settled there."""
CHOICE_ROWS = 5_000
"""Of more rows a stratified sample chooses C: a prior's width, which more rows do not change, and nearly all of the time."""
MANY_ROWS = 10_000
MAX_STEPS = 500
FALLBACK = 0.01
"""C where it cannot be chosen: the middle of what other data chose."""
TOLERANCE = 1e-4
FINAL_TOLERANCE = 1e-6
"""Of the last fit's gradient: probabilities are then those of the optimum to 1e-4."""
NEVER = -30.0
"""Logit of a class that the rows do not hold."""
# Beyond its best C the loss grows and the fits take ever longer: two candidates in a row that are worse end the search.
PATIENCE = 2


@dataclass(frozen=True)
class Penalty:
    """A C chosen by cross-validation.

    Attributes:
        c: of the least log loss over the rows held out.
        held_out: class probabilities of each row by a model that has not seen it, (N, C).
    """

    c: float
    held_out: NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """What `fit_linear` came to.

    Attributes:
        loss: mean log loss on the rows that were fitted.
        rows: numbers of those that chose C, a sample where there were more than `CHOICE_ROWS`; all of them where it was given.
        penalty: how C was chosen; None where it was given, or where there was too little to choose it by.
    """

    loss: float
    rows: NDArray[np.int64]
    penalty: Penalty | None


def fit_linear(
    model: UrgencyClassifier, data: TrainingData, rows: NDArray[np.int64], *, c: float | None, balanced: bool, seed: int
) -> LinearFit:
    """Fill a linear classifier's weights with those of the logistic regression on some labelled examples.

    Args:
        model: its statistics are set already.
        data: embeddings and labels.
        rows: numbers of the examples.
        c: inverse strength of the penalty; None chooses it by `choose_penalty`.
        balanced: whether classes weigh the same, whatever their rows.
        seed: of the folds, and of the sample where there are more than `MAX_ROWS` rows.
    """
    choosing, rows, penalty = rows, sample_rows(data, rows, seed), None
    inputs, labels = linear_inputs(model, data, rows), data.urgency[rows]
    if c is None:
        choosing = sample_rows(data, choosing, seed, CHOICE_ROWS)
        groups = choosing if data.groups is None else data.groups[choosing]
        few = inputs if np.array_equal(choosing, rows) else linear_inputs(model, data, choosing)
        penalty = choose_penalty(few, data.urgency[choosing], groups, balanced=balanced, seed=seed)
        c = FALLBACK if penalty is None else penalty.c
    # The last digits are for tests against other libraries; of many rows they would take minutes.
    precise = len(rows) < MANY_ROWS
    fresh = unfitted(balanced, tol=FINAL_TOLERANCE if precise else TOLERANCE)
    exact = inputs.astype(np.float64) if precise else inputs
    fitted = regress(exact, labels, c, fresh) if len(np.unique(labels)) > 1 else None
    weights, bias = all_classes(fitted, inputs.shape[1], labels)
    with torch.no_grad():
        model.urgency.weight.copy_(torch.from_numpy(weights))
        model.urgency.bias.copy_(torch.from_numpy(bias))
        logits = model.urgency(torch.from_numpy(inputs))
        loss = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)))
    return LinearFit(loss, choosing, penalty)


def choose_penalty(
    inputs: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    balanced: bool,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
) -> Penalty | None:
    """The C of the least log loss over rows held out, by stratified folds that keep groups together; a function of the seed.

    Args:
        inputs: (N, D), standardised.
        labels: (N,) classes.
        groups: (N,); rows of one group are never on both sides.
        balanced: as in `fit_linear`.
        seed: of the folds.
        penalties: candidates for C, strong to weak.

    Returns:
        None where a class is missing, or has too few groups to be on both sides.
    """
    folds = grouped_folds(labels, groups, seed)
    if folds is None:
        return None
    models = [unfitted(balanced) for _ in folds]
    tried: list[tuple[float, Penalty]] = []
    for c in penalties:
        told = np.zeros((len(labels), NUM_CLASSES))
        for model, (fitted, held_out) in zip(models, folds, strict=True):
            regress(inputs[fitted], labels[fitted], c, model)
            told[held_out[:, None], model.classes_] = model.predict_proba(inputs[held_out])
        likelihood = np.maximum(told[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
        tried.append((float(-np.log(likelihood).mean()), Penalty(c, told)))
        if len(tried) > PATIENCE and all(loss > min(tried, key=_loss)[0] for loss, _ in tried[-PATIENCE:]):
            break
    return min(tried, key=_loss)[1]


def grouped_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]] | None:
    """(fitted, held out) of up to `FOLDS` stratified folds that keep groups together, each with all classes among the fitted.

    None where a class is missing, or has too few groups to be on both sides.
    """
    counts = [len(np.unique(groups[labels == label])) for label in np.unique(labels)]
    num_folds = min(FOLDS, *counts)
    if num_folds < 2 or len(counts) < 2:
        return None
    folds = list(StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed).split(labels, labels, groups))
    return None if any(len(np.unique(labels[fitted])) < len(counts) for fitted, _ in folds) else folds


def linear_inputs(model: UrgencyClassifier, data: TrainingData, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """What a linear classifier multiplies, (N, D), of some examples."""
    inputs: NDArray[np.float32] | None = None
    with torch.inference_mode():
        for examples in np.array_split(np.arange(len(rows)), -(-len(rows) // ROWS_PER_FORWARD)):
            batch, _ = data.batch(rows[examples], torch.device("cpu"))
            values = model.linear_inputs(batch).numpy()
            if inputs is None:
                inputs = np.empty((len(rows), values.shape[1]), np.float32)
            inputs[examples] = values
    assert inputs is not None, "there are rows"
    return inputs


def few_threads(num_rows: int) -> threadpool_limits:
    """One thread, until the rows are many: threads that wait for each other cost more than they bring to small products."""
    return threadpool_limits(1 if num_rows < MANY_ROWS else None)


def _loss(tried: tuple[float, Penalty]) -> float:
    return tried[0]


def sample_rows(data: TrainingData, rows: NDArray[np.int64], seed: int, most: int = MAX_ROWS) -> NDArray[np.int64]:
    """All of some labelled examples, or a stratified sample of `most` of them."""
    if len(rows) <= most:
        return rows
    kept, _ = train_test_split(rows, train_size=most, stratify=data.urgency[rows], random_state=seed)
    return np.sort(kept)


def unfitted(balanced: bool, tol: float = TOLERANCE) -> LogisticRegression:
    """A logistic regression that goes on from its weights when it is fitted again."""
    return LogisticRegression(max_iter=MAX_STEPS, tol=tol, warm_start=True, class_weight="balanced" if balanced else None)


def regress(
    inputs: NDArray[np.floating[Any]], labels: NDArray[np.int64], c: float, model: LogisticRegression
) -> LogisticRegression:
    """Fit the model, from the weights that it has."""
    model.C = c
    with warnings.catch_warnings(), few_threads(len(labels)):
        # The weak penalties that need more steps lose anyway.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, labels)


def all_classes(
    model: LogisticRegression | None, num_inputs: int, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (C, D) and biases (C,) whose softmax is the model's; a class that is not among the labels is never called."""
    weights = np.zeros((NUM_CLASSES, num_inputs), np.float32)
    bias = np.full(NUM_CLASSES, NEVER, np.float32)
    if model is None:
        bias[labels[0]] = 0.0
    elif len(model.classes_) == 2:
        # scikit-learn keeps one row for two classes, the log odds of the second.
        weights[model.classes_[1]], bias[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weights, bias
