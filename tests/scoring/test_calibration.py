"""Temperatures against independent minimisations, and thresholds against scikit-learn's precision-recall curve."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.metrics import log_loss, precision_score, recall_score

from urgency_ray.scoring.calibration import (
    TEMPERATURE_RANGE,
    apply_temperature,
    choose_threshold,
    fit_temperature,
    format_operating_point,
    operating_point,
    rows_needed,
    threshold_figures,
)
from urgency_ray.scoring.metrics import expected_calibration_error


def softmax(logits: Any) -> Any:
    return torch.from_numpy(logits).softmax(-1).numpy()


def draw_rows(size: int, factor: Any = 1.0, seed: int = 0) -> Any:
    """Logits that are `factor` times too sharp for labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((size, 3))
    truth = (rng.random((size, 1)) > softmax(logits).cumsum(axis=1)[:, :2]).sum(axis=1)
    return factor * logits, truth


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_takes_back_a_known_overconfidence(factor: float) -> None:
    logits, truth = draw_rows(20_000, factor)
    assert fit_temperature(logits.astype(np.float32), truth) == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_has_the_least_log_loss_of_a_grid(seed: int) -> None:
    logits, truth = draw_rows(300, 2.0, seed)
    grid = np.geomspace(*TEMPERATURE_RANGE, 4000)
    probs = softmax(logits / grid[:, None, None])
    # scikit-learn's log_loss takes 3 ms, 4000 of them 10 s: written out, and held against it at every 250th. It clips as well.
    losses = -np.log(probs[:, np.arange(300), truth].clip(np.finfo(float).eps)).mean(axis=1)
    assert losses[::250] == pytest.approx([log_loss(truth, rows, labels=[0, 1, 2]) for rows in probs[::250]])
    assert fit_temperature(logits, truth) == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_a_calibrated_model_has_a_smaller_calibration_error() -> None:
    logits, truth = draw_rows(20_000, 3.0)
    calibrated = softmax(logits / fit_temperature(logits, truth))
    assert expected_calibration_error(truth, softmax(logits)) > 0.1
    assert expected_calibration_error(truth, calibrated) < 0.02


def test_the_temperature_stays_within_its_range() -> None:
    logits = 4 * np.eye(3)[[0, 1, 2, 0]]
    # Near the end, where the loss of rows that are all right is 0 to the last digit.
    assert TEMPERATURE_RANGE[0] <= fit_temperature(logits, np.array([0, 1, 2, 0])) < 1.2 * TEMPERATURE_RANGE[0]
    assert fit_temperature(logits, np.array([1, 2, 0, 1])) == pytest.approx(TEMPERATURE_RANGE[1], rel=1e-3)
    with pytest.raises(ValueError, match="at least one row"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64))


def test_a_temperature_divides_the_logits_and_can_be_taken_back() -> None:
    logits, _ = draw_rows(50)
    np.testing.assert_allclose(apply_temperature(softmax(logits), 2.5), softmax(logits / 2.5))
    np.testing.assert_allclose(apply_temperature(apply_temperature(softmax(logits), 2.5), 1 / 2.5), softmax(logits))
    assert apply_temperature(np.array([[1.0, 0.0, 0.0]]), 3.0).tolist() == [[1.0, 0.0, 0.0]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(3, 200),
    recall=st.sampled_from([0.05, 0.5, 0.8, 0.95]),
    confidence=st.sampled_from([0.1, 0.5, 0.9, 0.99]),
)
def test_the_threshold_is_the_highest_whose_clopper_pearson_bound_is_the_recall(
    seed: Any, size: Any, recall: Any, confidence: Any
) -> None:
    rng = np.random.default_rng(seed)
    probs = (rng.integers(0, 50, size) / 50).astype(np.float32)  # with ties
    truth = rng.integers(0, 3, size)
    truth[0] = 2
    of_high = np.sort(probs[truth == 2])[::-1]
    num_high = len(of_high)
    # The lower bound of k found in n, as a quantile of the beta distribution.
    bounds = {k: beta.ppf(1 - confidence, k, num_high - k + 1) for k in range(1, num_high + 1)}
    reached = [k for k, bound in bounds.items() if bound >= recall]
    threshold = choose_threshold(probs, truth, recall, confidence)
    assert (threshold is None) == (num_high < rows_needed(recall, confidence)) == (not reached)
    if threshold is not None:
        assert threshold == of_high[min(reached) - 1]
        figures, called = threshold_figures(probs, truth, threshold), probs >= threshold
        assert figures.recall == pytest.approx(recall_score(truth == 2, called))
        assert figures.precision == pytest.approx(precision_score(truth == 2, called))


def test_the_recall_on_new_calls_is_as_promised_as_often_as_promised() -> None:
    rng, recall, confidence = np.random.default_rng(0), 0.9, 0.9
    kept = empirical = 0
    for _ in range(2000):
        # P(상) of 80 rows of 상, uniform: the true recall at a threshold t is 1 - t.
        probs = rng.random(80)
        threshold = choose_threshold(probs, np.full(80, 2), recall, confidence)
        assert threshold is not None
        kept += 1 - threshold >= recall
        empirical += 1 - np.sort(probs)[8] >= recall
    # 0.9 within noise (a standard error of 0.007), or more: there are steps between ranks.
    assert 0.88 < kept / 2000 < 0.96
    # The quantile of the rows themselves keeps its word about half of the time.
    assert 0.4 < empirical / 2000 < 0.6


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 1e-4, 1e-9]))
def test_the_threshold_as_printed_reaches_the_recall_on_val(seed: int, scale: Any) -> None:
    rng = np.random.default_rng(seed)
    truth, probs = np.append(rng.integers(0, 3, 40), 2), (scale * rng.random(41)).astype(np.float32)
    point = operating_point(probs, truth, {"val": np.arange(41)}, recall=0.3, confidence=0.7)
    printed = re.search(r">= (\S+),", format_operating_point(point))
    recall = point.splits["val"].recall
    assert printed is not None and recall is not None
    assert recall_score(truth == 2, probs >= float(printed.group(1))) == pytest.approx(recall)
    assert recall >= 0.3


def test_the_operating_point_by_hand() -> None:
    truth = np.array([2, 2, 2, 2, 0, 1, 1, 2, 2, 0, 0, 0])
    probs = np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.3, 0.1, 0.65, 0.5, 0.7, 0.61, 0.1])
    splits = {"val": np.arange(7), "test": np.arange(7, 12)}
    # P(Binomial(4, 0.5) < 3) = 11 / 16: three of the four, for a confidence of 0.6; two would give 5 / 16.
    point = operating_point(probs, truth, splits, recall=0.5, confidence=0.6)
    assert (point.recall_of_high, point.confidence, point.threshold) == (0.5, 0.6, 0.6)
    assert (point.num_high, point.num_high_needed) == (4, 2)
    assert {name: figures.model_dump() for name, figures in point.splits.items()} == {
        "val": {
            "num_rows": 7,
            "num_high": 4,
            "num_flagged": 4,
            "num_found": 3,
            "flagged_share": 4 / 7,
            "recall": 3 / 4,
            "precision": 3 / 4,
            "false_alarms_per_high": 1 / 4,
        },
        "test": {
            "num_rows": 5,
            "num_high": 2,
            "num_flagged": 3,
            "num_found": 1,
            "flagged_share": 3 / 5,
            "recall": 1 / 2,
            "precision": 1 / 3,
            "false_alarms_per_high": 2 / 2,
        },
    }
    asked = "recall of 상 of at least 0.5 among new calls, with 60 % confidence"
    assert format_operating_point(point).splitlines() == [
        f"operating point: call 상 where P(상) >= 0.6, chosen on val for a {asked}",
        "  val   recall 0.750 (3 of 4), precision 0.750, flagged 57.1 % of 7 rows, 0.250 false alarms for each 상",
        "  test  recall 0.500 (1 of 2), precision 0.333, flagged 60.0 % of 5 rows, 1.000 false alarms for each 상",
    ]


def test_too_few_rows_for_a_promise_say_how_many_it_takes() -> None:
    # 0.95 ** 44 is 0.105, 0.95 ** 45 is 0.0994.
    assert rows_needed(0.95, 0.9) == 45
    assert choose_threshold(np.linspace(0, 1, 44), np.full(44, 2), 0.95, 0.9) is None
    assert choose_threshold(np.linspace(0, 1, 45), np.full(45, 2), 0.95, 0.9) == 0.0
    truth = np.array([0, 1, 2, 2])
    probs, splits = np.array([0.1, 0.2, 0.3, 0.4]), {"val": np.arange(3), "test": np.arange(3, 4)}
    point = operating_point(probs, truth, splits, recall=0.95, confidence=0.9)
    assert (point.threshold, point.splits) == (None, {})
    assert format_operating_point(point) == (
        "operating point: a recall of 상 of at least 0.95 among new calls, with 90 % confidence, cannot be promised: "
        "that takes at least 45 rows of 상, and val has 1"
    )
