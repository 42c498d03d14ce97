"""Paired figures against scikit-learn's and against a loop over resampled groups."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, mean_absolute_error, recall_score

from urgency_ray.scoring.metrics import paired_macro_f1_difference
from urgency_ray.scoring.paired import HIGHER_IS_BETTER, Answers, paired_differences


def draw(rng: np.random.Generator, truth: NDArray[np.int64], skill: float) -> Answers:
    logits = rng.normal(size=(len(truth), 3)) - skill * np.abs(np.arange(3) - truth[:, None])
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Answers(probs.argmax(axis=1), probs)


def test_each_difference_is_that_of_scikit_learn_s_figures() -> None:
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 3, 300), rng.integers(0, 120, 300)
    a, b = (draw(rng, truth, skill) for skill in (1.2, 0.4))
    found = paired_differences(truth, a, b, groups, num_resamples=100, seed=0)
    assert list(found) == list(HIGHER_IS_BETTER)
    of_high = truth == 2
    figures: dict[str, Callable[[Answers], Any]] = {
        "macro_f1": lambda each: f1_score(truth, each.called, average="macro"),
        "accuracy": lambda each: accuracy_score(truth, each.called),
        "recall_high": lambda each: recall_score(truth, each.called, average=None)[2],
        "high_called_low": lambda each: (each.called[of_high] == 0).mean(),
        "under_triage": lambda each: (each.called < truth).mean(),
        "over_triage": lambda each: (each.called > truth).mean(),
        "ordinal_mae": lambda each: mean_absolute_error(truth, each.called),
        "quadratic_kappa": lambda each: cohen_kappa_score(truth, each.called, weights="quadratic"),
        "log_loss": lambda each: log_loss(truth, each.probs),
        "brier": lambda each: ((each.probs - np.eye(3)[truth]) ** 2).sum(axis=1).mean(),
    }
    for name, figure in figures.items():
        assert found[name].difference == pytest.approx(figure(a) - figure(b)), name
    macro_f1 = paired_macro_f1_difference(truth, a.called, b.called, groups, num_resamples=100, seed=0)
    assert (found["macro_f1"].difference, found["macro_f1"].interval) == macro_f1


def test_intervals_are_those_of_a_loop_over_resampled_groups() -> None:
    rng = np.random.default_rng(1)
    truth, groups = rng.integers(0, 3, 200), np.repeat(np.arange(50), 4)
    a, b = (draw(rng, truth, skill) for skill in (1.0, 0.8))
    found = paired_differences(truth, a, b, groups, num_resamples=4000, seed=0)
    losses = -np.log(a.probs[np.arange(200), truth]) + np.log(b.probs[np.arange(200), truth])
    hits = (a.called == truth).astype(float) - (b.called == truth)
    drawn = [np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 50, 50)]) for _ in range(4000)]
    for name, each in (("log_loss", losses), ("accuracy", hits)):
        expected = np.percentile([each[rows].mean() for rows in drawn], [2.5, 97.5])
        assert found[name].interval == pytest.approx(expected, abs=0.012), name


def test_the_verdict_follows_what_is_better() -> None:
    truth = np.arange(300) % 3
    right, wrong = (Answers(called, np.eye(3)[called] * 0.9 + 1 / 30) for called in (truth, (truth + 1) % 3))
    found = paired_differences(truth, right, wrong, np.arange(300), num_resamples=100, seed=0)
    assert {figure.verdict for figure in found.values()} == {"better"}
    back = paired_differences(truth, wrong, right, np.arange(300), num_resamples=100, seed=0)
    assert {figure.verdict for figure in back.values()} == {"worse"}
    same = paired_differences(truth, right, right, np.arange(300), num_resamples=100, seed=0)
    assert {figure.verdict for figure in same.values()} == {"no_better"}


def test_what_the_rows_do_not_define_is_left_out() -> None:
    truth = np.array([0, 1, 0, 1])
    answers = Answers(truth, np.eye(3)[truth])
    found = paired_differences(truth, answers, answers, np.arange(4), num_resamples=100, seed=0)
    assert "recall_high" not in found and "high_called_low" not in found
    assert found["accuracy"].difference == 0.0
