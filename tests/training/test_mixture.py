"""The models of a search as one: who is picked, and what the pick is worth on rows that none of them has seen."""

import numpy as np
import pytest
from fitting import SMALL
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from test_members import NUM_FOLDS, make_examples, train_here

from urgency_ray.config import Config
from urgency_ray.examples.splits import val_folds
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.training.members import cross_predict, predict_kind
from urgency_ray.training.mixture import Library, choose_beyond_noise, select_greedily

pytestmark = pytest.mark.usefixtures("one_thread")


def sure_of(truth: NDArray[np.int64], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A model that gives 0.9 to the truth where it knows, and to the class after it elsewhere."""
    said = np.where(where, truth, (truth + 1) % 3)
    return np.where(np.eye(3)[said] == 1, 0.9, 0.05).astype(np.float32)


def test_models_that_know_different_rows_share_and_one_that_knows_none_is_left_out() -> None:
    truth = np.arange(600) % 3
    half = np.arange(600) < 300
    told = np.stack([sure_of(truth, half), sure_of(truth, ~half), sure_of(truth, half & ~half)])
    first, second, useless = select_greedily(told, truth)
    assert first == pytest.approx(0.5, abs=0.06)
    assert first + second == pytest.approx(1)
    assert useless == 0


def test_one_that_knows_all_is_picked_alone() -> None:
    truth = np.arange(90) % 3
    told = np.stack([sure_of(truth, truth >= 1), sure_of(truth, truth >= 0), sure_of(truth, truth < 1)])
    assert select_greedily(told, truth) == [0.0, 1.0, 0.0]


def test_what_the_search_began_with_is_kept_unless_another_is_better_beyond_noise() -> None:
    defaults = np.random.default_rng(0).exponential(0.5, 400)
    # Better by 0.01 on every row; and by 0.01 in the mean of rows that differ by 1: a standard error of 1 / sqrt(400) = 0.05.
    surely, perhaps = defaults - 0.01, defaults - 0.01 - np.tile([1.0, -1.0], 200)
    assert choose_beyond_noise({"defaults": defaults, "winner": defaults, "ensemble": surely}) == "ensemble"
    assert choose_beyond_noise({"defaults": defaults, "winner": perhaps, "ensemble": defaults}) == "defaults"
    assert choose_beyond_noise({"defaults": defaults, "winner": defaults, "ensemble": defaults + 0.1}) == "defaults"


def test_what_each_is_worth_on_unseen_rows() -> None:
    config = Config().replace(SMALL | {"train.members": NUM_FOLDS})
    examples, splits = make_examples()
    folds = val_folds(examples, splits, config.split, NUM_FOLDS, "train.members")
    candidates: dict[str, list[UrgencyClassifier]] = {
        f"trial {seed}": [one.model for one in train_here(config.replace({"train.seed": seed}), examples, folds)]
        for seed in (0, 10)
    }
    library = Library(candidates, examples, folds, seed=0)
    rows = np.concatenate([fold.val for fold in folds])
    truth = examples.urgency[rows]
    told = {name: predict_kind(models, examples, folds)[rows] for name, models in candidates.items()}
    for name, probs in told.items():
        exact = probs.astype(np.float64) / probs.sum(axis=1, keepdims=True, dtype=np.float64)
        assert library.log_losses([name]).mean() == pytest.approx(log_loss(truth, exact, labels=range(3)), rel=1e-4)
    both = library.log_losses(list(candidates), greedily=True).mean()
    assert both < max(library.log_losses([name]).mean() for name in candidates)

    ensemble, shares = library.mix()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    mixed = sum(share * told[name] for name, share in shares.items())
    tempered = mixed ** (1 / float(ensemble.temperature[0]))
    expected = tempered / tempered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cross_predict(ensemble, examples, folds)["urgency"][rows], expected, rtol=1e-4)
