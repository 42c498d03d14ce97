"""Temperatures against independent minimisations, and thresholds against scikit-learn's precision-recall curve."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, precision_recall_curve, precision_score, recall_score

from urgency_ray.scoring.calibration import (
    TEMPERATURE_RANGE,
    apply_temperature,
    choose_threshold,
    fit_temperature,
    format_operating_point,
    operating_point,
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
@given(seed=st.integers(0, 10_000), size=st.integers(3, 60), recall=st.sampled_from([0.05, 0.5, 0.8, 0.9, 0.95, 1.0]))
def test_the_threshold_is_the_highest_of_scikit_learn_s_curve_that_reaches_the_recall(
    seed: Any, size: Any, recall: Any
) -> None:
    rng = np.random.default_rng(seed)
    probs = (rng.integers(0, 20, size) / 20).astype(np.float32)  # with ties
    truth = rng.integers(0, 3, size)
    truth[0] = 2
    precisions, recalls, thresholds = precision_recall_curve(truth == 2, probs)
    reached = recalls[:-1] >= recall - 1e-12
    threshold = choose_threshold(probs, truth, recall)
    assert threshold is not None
    # scikit-learn's thresholds are all scores; ours is one at which a row of the class lies.
    assert threshold == pytest.approx(thresholds[reached].max())
    figures = threshold_figures(probs, truth, threshold)
    called = probs >= threshold
    assert figures.recall == pytest.approx(recall_score(truth == 2, called))
    assert figures.precision == pytest.approx(precision_score(truth == 2, called))
    assert figures.recall == pytest.approx(recalls[:-1][thresholds == thresholds[reached].max()][0])
    assert figures.precision == pytest.approx(precisions[:-1][thresholds == thresholds[reached].max()][0])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1.0, 1e-4, 1e-9]))
def test_the_threshold_as_printed_reaches_the_recall_on_val(seed: int, scale: Any) -> None:
    rng = np.random.default_rng(seed)
    truth, probs = np.append(rng.integers(0, 3, 40), 2), (scale * rng.random(41)).astype(np.float32)
    point = operating_point(probs, truth, {"val": np.arange(41)}, 0.9)
    printed = re.search(r">= (\S+),", format_operating_point(point))
    recall = point.splits["val"].recall
    assert printed is not None and recall is not None
    assert recall_score(truth == 2, probs >= float(printed.group(1))) == pytest.approx(recall)
    assert recall >= 0.9


def test_the_operating_point_by_hand() -> None:
    truth = np.array([2, 2, 2, 2, 0, 1, 1, 2, 2, 0, 0, 0])
    probs = np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.3, 0.1, 0.65, 0.5, 0.7, 0.61, 0.1])
    point = operating_point(probs, truth, {"val": np.arange(7), "test": np.arange(7, 12)}, 0.75)
    assert (point.recall_of_high, point.threshold) == (0.75, 0.6)
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
    assert format_operating_point(point).splitlines() == [
        "operating point: call 상 where P(상) >= 0.6, chosen on val for a recall of 상 of at least 0.75",
        "  val   recall 0.750 (3 of 4), precision 0.750, flagged 57.1 % of 7 rows, 0.250 false alarms for each 상",
        "  test  recall 0.500 (1 of 2), precision 0.333, flagged 60.0 % of 5 rows, 1.000 false alarms for each 상",
    ]


def test_twenty_rows_at_95_percent_may_miss_one() -> None:
    assert choose_threshold(np.arange(20) / 20, np.full(20, 2), 0.95) == 1 / 20


def test_a_recall_without_rows_of_the_class_is_unreachable_and_says_so() -> None:
    truth = np.array([0, 1, 1, 2])
    point = operating_point(np.array([0.1, 0.2, 0.3, 0.4]), truth, {"val": np.arange(3), "test": np.arange(3, 4)}, 0.95)
    assert point.model_dump() == {"recall_of_high": 0.95, "threshold": None, "splits": {}}
    assert format_operating_point(point).endswith("cannot be reached: no row of val is 상")
