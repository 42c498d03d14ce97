"""The members of an ensemble: models for each fold of train and val, and what they say of the rows that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urgency_ray.config import Config
from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.saved import TASKS
from urgency_ray.scoring.calibration import fit_temperature
from urgency_ray.training.data import TrainingData
from urgency_ray.training.shared import SharedData
from urgency_ray.training.trainer import Job, Trained

EM_STEPS = 200
LEAST_SHARE = 1e-4
LEAST_PROBABILITY = 1e-9
"""A model that rules out what was true is not weighed by an infinite loss."""

Probabilities = dict[str, NDArray[np.float32]]
"""Class probabilities of N examples by task, (N, C)."""


def member_configs(config: Config, linear_c: float | None = None) -> dict[str, Config]:
    """The config of each kind of member, by its name: the config's own model, and those fitted at once that are wanted."""
    kinds: dict[str, Config] = {config.model.name: config}
    if config.train.linear_member:
        kinds["linear"] = linear_config(config).replace({"train.linear_c": config.train.linear_c or linear_c})
    if config.train.discriminant_member:
        kinds["discriminant"] = linear_config(config).replace({"model.name": "discriminant"})
    if config.train.stacked_member:
        kinds["stacked"] = linear_config(config).replace({"model.name": "stacked"})
    return kinds


def linear_config(config: Config) -> Config:
    """The config of a linear model of the same rows and modalities: of urgency alone, on the run's own embeddings."""
    encoder = dict.fromkeys(("model.text_encoder", "model.text_encoder_revision", "model.trainable_layers"))
    head = {"model.name": "linear", "model.urgency_head": "softmax", "model.gradient_checkpointing": False}
    # What only a head of its own could learn, or be picked by.
    weights = ("kl_weight", "focal_weight", "corn_weight", "emd_weight", "sentiment_weight")
    loss = {f"loss.{name}": 0.0 for name in weights} | {"loss.cross_entropy_weight": 1.0}
    return config.replace({**encoder, **head, **loss, "train.select_by": "urgency_macro_f1"})


def member_jobs(
    name: str, config: Config, folds: Sequence[tuple[TrainingData, SharedData]], linear_c: float | None = None
) -> list[Job]:
    """A model of each kind for each fold, kinds one after another.

    Args:
        name: of the ensemble.
        config: of its fusion members.
        folds: the data of each fold, here and for the workers.
        linear_c: the penalty of linear members, where the config leaves it open.
    """
    return [
        Job(f"{name}-{kind}-{fold}", chosen.replace({"train.seed": (config.train.seed + fold) % 2**32}), *data)
        for kind, chosen in member_configs(config, linear_c).items()
        for fold, data in enumerate(folds)
    ]


def join_members(trained: Sequence[Trained], examples: Examples, folds: Sequence[Splits]) -> UrgencyEnsemble:
    """The ensemble of models that were trained by `member_jobs`.

    The folds of a kind share its say evenly; the kinds' shares and the ensemble's temperatures are those of the least log loss
    on rows that the models have not seen.
    """
    starts = range(0, len(trained), len(folds))
    kinds = [[member.model for member in trained[start : start + len(folds)]] for start in starts]
    rows = np.concatenate([fold.val for fold in folds])
    told = [predict_kind(models, examples, folds)[rows] for models in kinds]
    return assemble(kinds, fit_shares(np.stack(told), examples.urgency[rows]), examples, folds)


def predict_kind(models: Sequence[UrgencyClassifier], examples: Examples, folds: Sequence[Splits]) -> NDArray[np.float32]:
    """P(urgency class) of the rows in val parts, (N, C), by the model of their fold; 0 elsewhere."""
    alone = UrgencyEnsemble.of(models, range(len(folds)), [1 / len(folds)] * len(folds))
    return predict_unseen(alone, examples, folds)["urgency"]


def assemble(
    kinds: Sequence[Sequence[UrgencyClassifier]], shares: Sequence[float], examples: Examples, folds: Sequence[Splits]
) -> UrgencyEnsemble:
    """The ensemble of models of several kinds, one for each fold, at the temperatures of the least log loss on unseen rows.

    Args:
        kinds: their models, in the order of the folds.
        shares: of the kinds, which sum to 1; the models of a kind have it evenly.
        examples: all rows of the run.
        folds: what the models were trained on, and have not seen.
    """
    rows = np.concatenate([fold.val for fold in folds])
    models = [model for kind in kinds for model in kind]
    weights = [share / len(folds) for share in shares for _ in folds]
    ensemble = UrgencyEnsemble.of(models, [*range(len(folds))] * len(kinds), weights)
    truths = {"urgency": examples.urgency, "sentiment": examples.sentiment}
    for task, probs in predict_unseen(ensemble, examples, folds).items():
        known = rows[truths[task][rows] >= 0]
        if len(known):
            scores = np.log(np.maximum(probs[known], LEAST_PROBABILITY))
            ensemble.temperature[TASKS.index(task)] = fit_temperature(scores, truths[task][known])
    return ensemble


def all_validated(splits: Splits) -> Splits:
    """The splits of an ensemble: each row of train and val was trained on by some members, and is judged by the others."""
    both = np.sort(np.concatenate([splits.train, splits.val]))
    return replace(splits, train=both, val=both)


def predict_unseen(ensemble: UrgencyEnsemble, examples: Examples, folds: Sequence[Splits]) -> Probabilities:
    """Calibrated probabilities of the rows in val parts, by the members that have not seen them; 0 elsewhere."""
    probabilities: Probabilities = {}
    for number, fold in enumerate(folds):
        for task, probs in predict_examples(ensemble.held_out(number), examples, fold.val).items():
            probabilities.setdefault(task, np.zeros((len(examples), probs.shape[1]), np.float32))[fold.val] = probs
    return probabilities


def cross_predict(ensemble: UrgencyEnsemble, examples: Examples, folds: Sequence[Splits]) -> Probabilities:
    """Calibrated probabilities of every example: in a val part by the members that have not seen it, elsewhere by all."""
    probabilities = predict_unseen(ensemble, examples, folds)
    others = np.setdiff1d(np.arange(len(examples)), np.concatenate([fold.val for fold in folds]))
    for task, probs in predict_examples(ensemble, examples, others).items():
        probabilities[task][others] = probs
    return probabilities


def fit_shares(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> list[float]:
    """The weights of K models whose mean has the least log loss, which sum to 1.

    It is a mixture of known components, whose likelihood is concave in the weights: EM climbs it (Dempster, Laird and Rubin
    1977).

    Args:
        probabilities: (K, N, C), of rows that the models have not seen.
        truth: (N,) classes.
    """
    told = likelihoods(probabilities, truth)
    shares = np.full(len(told), 1 / len(told))
    for _ in range(EM_STEPS):
        parts = shares[:, None] * told
        shares = (parts / parts.sum(axis=0)).mean(axis=1)
    # No kind is left without any: what it alone has learnt, the sentiment, is a mean over its own shares.
    shares = np.maximum(shares, LEAST_SHARE)
    return [float(share) for share in shares / shares.sum()]


def likelihoods(probabilities: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """What K models give to the truth of each row, (K, N), of (K, N, C) and (N,); never quite nothing."""
    return np.maximum(probabilities[:, np.arange(len(truth)), truth].astype(np.float64), LEAST_PROBABILITY)
