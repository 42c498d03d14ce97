"""The models of a search as one: greedy selection with replacement on rows that none of them has seen.

Caruana, Niculescu-Mizil, Crew and Ksikes (2004), Ensemble selection from libraries of models, ICML: models are added one at a
time, each as often as it helps; bags of rows keep the selection from following the luck of few.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.training.members import assemble, fit_shares, likelihoods, predict_kind

Name = TypeVar("Name", bound=str)

PICKS, BAGS = 20, 20
BAG_ROWS = 5000
"""Rows of a bag at most: more tell the models apart no better, and cost more."""


class Library:
    """What several models, each one a fold, say of the rows that they have not seen.

    Args:
        candidates: by name, a model for each fold.
        examples: all rows of the run.
        folds: what each model was trained on, and has not seen.
        seed: of the bags of rows.
    """

    def __init__(
        self, candidates: Mapping[str, list[UrgencyClassifier]], examples: Examples, folds: Sequence[Splits], seed: int
    ) -> None:
        self.candidates, self.examples, self.folds, self.seed = candidates, examples, folds, seed
        self.starts = np.cumsum([0, *(len(fold.val) for fold in folds)])
        rows = np.concatenate([fold.val for fold in folds])
        self.truth = examples.urgency[rows]
        self.told = np.stack([predict_kind(models, examples, folds)[rows] for models in candidates.values()])

    def mix(self) -> tuple[UrgencyEnsemble, dict[str, float]]:
        """The ensemble of the least log loss, and the share of each model in it, by name, the largest first."""
        shares = zip(self.candidates, select_greedily(self.told, self.truth, seed=self.seed), strict=True)
        chosen = {name: share for name, share in sorted(shares, key=lambda item: -item[1]) if share > 0}
        kinds = [self.candidates[name] for name in chosen]
        return assemble(kinds, list(chosen.values()), self.examples, self.folds), chosen

    def log_losses(self, names: Sequence[str], *, greedily: bool = False) -> NDArray[np.float64]:
        """Of each row by the ensemble of some of the models, (N,), its shares fitted without the row."""
        told = self.told[[list(self.candidates).index(name) for name in names]]
        mixed = np.zeros(told.shape[1:])
        for start, stop in itertools.pairwise(self.starts):
            kept = np.delete(np.arange(len(mixed)), np.s_[start:stop])
            seen, truth = told[:, kept], self.truth[kept]
            shares = select_greedily(seen, truth, seed=self.seed) if greedily else fit_shares(seen, truth)
            mixed[start:stop] = np.tensordot(shares, told[:, start:stop], axes=1)
        return np.asarray(-np.log(likelihoods(mixed[None], self.truth)[0]))


def choose_beyond_noise(losses: Mapping[Name, NDArray[np.float64]]) -> Name:
    """The name of the least mean loss, unless the first's is within a standard error of it.

    The one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984), on differences row by row.

    Args:
        losses: of the same rows, (N,), by name.
    """
    first, best = next(iter(losses)), min(losses, key=lambda name: losses[name].mean())
    gain = losses[first] - losses[best]
    return best if gain.mean() > gain.std() / np.sqrt(len(gain)) else first


def select_greedily(probabilities: NDArray[np.float32], truth: NDArray[np.int64], *, seed: int = 0) -> list[float]:
    """The shares of K models in a mean of theirs, which sum to 1: how often each was picked, over all bags.

    Args:
        probabilities: (K, N, C), of rows that the models have not seen.
        truth: (N,) classes.
        seed: of the bags, each as many rows as there are, drawn with replacement.
    """
    told = likelihoods(probabilities, truth)
    rng, picked = np.random.default_rng(seed), np.zeros(len(told))
    for _ in range(BAGS):
        bag = told[:, rng.integers(len(truth), size=min(len(truth), BAG_ROWS))]
        total = np.zeros(bag.shape[1])
        for _ in range(PICKS):
            # The mean's divisor is the same for all models: it does not tell them apart.
            best = int(np.log(total + bag).mean(axis=1).argmax())
            total += bag[best]
            picked[best] += 1
    return [float(share) for share in picked / picked.sum()]
