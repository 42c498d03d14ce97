"""Figures of metrics.json against scikit-learn, explicit loops and arithmetic."""

from __future__ import annotations

import json
import math
import re
import time
import tracemalloc
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    precision_recall_fscore_support,
    recall_score,
)

from urgency_ray.schema import SENTIMENT_LABELS, URGENCY_LABELS
from urgency_ray.scoring import metrics
from urgency_ray.scoring.metrics import (
    classification_block,
    expected_calibration_error,
    format_report,
    macro_f1_from_confusion,
    paired_macro_f1_difference,
)
from urgency_ray.scoring.suspicions import describe_absent

# Truth down, prediction across:  하  중  상
#                             하   2   1   0
#                             중   0   1   1
#                             상   1   0   2
Y_TRUE = np.array([0, 0, 0, 1, 1, 2, 2, 2])
Y_PRED = np.array([0, 0, 1, 1, 2, 0, 2, 2])


def certain(y_pred: Any, num_classes: int = 3) -> Any:
    return np.eye(num_classes, dtype=np.float32)[y_pred]


def block_of(
    y_true: Any,
    y_pred: Any,
    *,
    groups: Any = None,
    labels: Any = URGENCY_LABELS,
    num_resamples: Any = 200,
    seed: Any = 0,
    ordinal: Any = True,
    probs: Any = None,
) -> Any:
    probs = certain(y_pred, len(labels)) if probs is None else probs
    groups = np.arange(len(y_true)) if groups is None else groups
    return classification_block(y_true, y_pred, probs, groups, labels, num_resamples=num_resamples, seed=seed, ordinal=ordinal)


def clustered_rows(num_groups: Any, rng: Any, accuracy: Any = 0.6) -> Any:
    """Calls of 1 to 8 rows that share a class and, mostly, the fate of their predictions."""
    sizes = rng.integers(1, 9, num_groups)
    groups = np.repeat(np.arange(num_groups), sizes)
    y_true = np.repeat(rng.choice(3, num_groups, p=[0.5, 0.3, 0.2]), sizes)
    right = np.repeat(rng.random(num_groups) < accuracy, sizes) ^ (rng.random(len(groups)) < 0.1)
    return y_true, np.where(right, y_true, (y_true + rng.integers(1, 3, len(groups))) % 3), groups


def loop_bootstrap(y_true: Any, predictions: Any, groups: Any, statistic: Any, num_resamples: Any = 4000) -> Any:
    """The cluster bootstrap as its definition reads: draw groups, take all their rows, compute."""
    rng = np.random.default_rng(99)
    rows = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    figures = []
    for _ in range(num_resamples):
        drawn = np.concatenate([rows[index] for index in rng.integers(0, len(rows), len(rows))])
        figures.append(statistic(y_true[drawn], *(y_pred[drawn] for y_pred in predictions)))
    return np.percentile(figures, [2.5, 97.5])


def loop_macro_f1(y_true: Any, y_pred: Any, num_classes: int = 3) -> Any:
    scores = []
    for label in range(num_classes):
        hits = ((y_true == label) & (y_pred == label)).sum()
        named = (y_true == label).sum() + (y_pred == label).sum()
        scores.append(2 * hits / named if named else 0.0)
    return sum(scores) / num_classes


def test_block_by_hand() -> None:
    block = block_of(Y_TRUE, Y_PRED).model_dump(exclude_unset=True)
    for figure in ("macro_f1", "quadratic_kappa"):
        interval = block.pop(f"{figure}_interval")
        assert interval[0] < block[figure] < interval[1]
    curve = block.pop("net_benefit")
    # By chance: rows (3, 2, 3), columns (3, 2, 3); squared distances 1 beside the diagonal and 4 in the corners.
    by_chance = (1 * (3 * 2 + 2 * 3 + 2 * 3 + 3 * 2) + 4 * (3 * 3 + 3 * 3)) / 8
    assert block == {
        "num_rows": 8,
        "accuracy": 5 / 8,
        "macro_f1": pytest.approx((4 / 6 + 2 / 4 + 4 / 6) / 3),
        "per_class": {
            "하": {"precision": 2 / 3, "recall": 2 / 3, "f1": 4 / 6, "support": 3},
            "중": {"precision": 1 / 2, "recall": 1 / 2, "f1": 2 / 4, "support": 2},
            "상": {"precision": 2 / 3, "recall": 2 / 3, "f1": 4 / 6, "support": 3},
        },
        "confusion": [[2, 1, 0], [0, 1, 1], [1, 0, 2]],
        "quadratic_kappa": pytest.approx(1 - (1 + 1 + 4) / by_chance),
        "ordinal_mae": (1 + 1 + 2) / 8,
        "recall_high": 2 / 3,
        "high_called_low": 1 / 3,
        "under_triage": 1 / 8,
        "over_triage": 2 / 8,
        # Of 3 x 5 pairs of a 상 and another row, 2 x 4 are in order and 2 x 1 + 1 x 4 are ties.
        "auroc_high": pytest.approx((8 + 6 / 2) / 15),
        # Three rows are flagged at P(상) = 1, two of them rightly; at 0 all eight.
        "auprc_high": pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 8),
        "log_loss": pytest.approx(-3 * math.log(np.finfo(np.float32).tiny) / 8),
        "brier": 3 * 2 / 8,
        "expected_calibration_error": 3 / 8,  # certain of every row, wrong on three
    }
    assert curve["thresholds"] == pytest.approx([0.05 * number for number in range(1, 20)])
    # Certain rows are flagged at every threshold: two found, one false alarm, of eight.
    assert curve["model"] == pytest.approx([(2 - t / (1 - t)) / 8 for t in curve["thresholds"]])
    assert curve["flag_all"] == pytest.approx([(3 - 5 * t / (1 - t)) / 8 for t in curve["thresholds"]])


def test_what_cannot_be_told_apart_has_no_rank() -> None:
    for y_true in (np.array([2, 2]), np.array([0, 1])):
        block = block_of(y_true, np.array([2, 0]))
        assert (block.auroc_high, block.auprc_high) == (None, None)
    assert block_of(np.array([1, 1]), np.array([1, 1])).quadratic_kappa_interval is None


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_block_agrees_with_scikit_learn(pairs: Any) -> None:
    y_true, y_pred = np.array(pairs).T
    block = block_of(y_true, y_pred, num_resamples=10)
    classes = [0, 1, 2]
    assert block.num_rows == len(pairs)
    assert block.accuracy == pytest.approx(accuracy_score(y_true, y_pred))
    assert block.macro_f1 == pytest.approx(f1_score(y_true, y_pred, average="macro"))
    assert block.confusion == confusion_matrix(y_true, y_pred, labels=classes).tolist()
    assert block.ordinal_mae == pytest.approx(mean_absolute_error(y_true, y_pred))
    columns = precision_recall_fscore_support(y_true, y_pred, labels=classes, zero_division=0)
    for label, *expected in zip(URGENCY_LABELS, *columns, strict=True):
        assert list(block.per_class[label].model_dump().values()) == pytest.approx(expected)
    if len({*y_true, *y_pred}) == 1:
        assert block.quadratic_kappa is None
    else:
        kappa = cohen_kappa_score(y_true, y_pred, labels=classes, weights="quadratic")
        assert block.quadratic_kappa == pytest.approx(kappa, abs=1e-12)
    if (y_true == 2).any():
        recall = recall_score(y_true, y_pred, labels=[2], average=None)[0]
        assert block.recall_high == pytest.approx(recall)
        assert block.high_called_low == pytest.approx((y_pred[y_true == 2] == 0).mean())
    else:
        assert block.recall_high is None
        assert block.high_called_low is None
    json.dumps(block.model_dump(), allow_nan=False)


def test_sentiment_has_no_ordinal_figures_and_the_same_keys() -> None:
    y_true = np.array([0, 1, 3, 0, 1], np.int8)
    block = block_of(y_true, np.array([0, 1, 3, 1, 1]), labels=SENTIMENT_LABELS, ordinal=False)
    ordinal = ("quadratic_kappa", "ordinal_mae", "recall_high", "high_called_low", "under_triage", "over_triage", "auroc_high")
    for name in (*ordinal, "auprc_high", "net_benefit", "quadratic_kappa_interval"):
        assert getattr(block, name) is None
    assert list(block.model_dump(exclude_unset=True)) == list(block_of(Y_TRUE, Y_PRED).model_dump(exclude_unset=True))
    assert list(block.per_class) == list(SENTIMENT_LABELS)
    assert np.shape(block.confusion) == (4, 4)


def test_block_holds_plain_python_values() -> None:
    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                yield from walk(part)
        else:
            yield type(value)

    block = block_of(Y_TRUE.astype(np.int8), Y_PRED.astype(np.int32)).model_dump(mode="json", exclude_unset=True)
    assert set(walk(block)) == {int, float}
    assert json.loads(json.dumps(block, allow_nan=False)) == block


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_true": np.array([0, 1, 3])}, "classes must be 0 to 2 but got 0 to 3"),
        ({"y_true": np.array([0, -1, 2])}, "classes must be 0 to 2 but got -1 to 2"),
        ({"y_pred": np.array([0, 1])}, r"the same rows, at least one, but got \[3, 2, 3\]"),
        ({"groups": np.array([0, 1])}, r"the same rows, at least one, but got \[3, 3, 2\]"),
        ({"probs": np.ones((3, 2))}, r"shape \(3, 3\) but got \(3, 2\)"),
        ({"probs": np.full((3, 3), np.nan)}, "probs must be finite"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    rows = {"y_true": np.arange(3), "y_pred": np.arange(3), "groups": np.arange(3), "probs": np.eye(3)} | change
    with pytest.raises(ValueError, match=message):
        classification_block(**rows, labels=URGENCY_LABELS, num_resamples=10, seed=0, ordinal=True)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        block_of(np.array([], int), np.array([], int))


def test_macro_f1_of_many_matrices_is_that_of_each() -> None:
    confusions = np.random.default_rng(0).integers(0, 4, (5, 7, 3, 3))
    # A class that occurs nowhere, in some of them.
    confusions[0, :, 2] = confusions[0, :, :, 2] = 0
    scores = macro_f1_from_confusion(confusions)
    assert scores.shape == (5, 7)
    for index in np.ndindex(5, 7):
        cells = confusions[index].ravel()
        y_true, y_pred = np.repeat(np.arange(9) // 3, cells), np.repeat(np.arange(9) % 3, cells)
        assert scores[index] == pytest.approx(f1_score(y_true, y_pred, average="macro"))


def test_macro_f1_of_an_empty_matrix_is_zero() -> None:
    assert macro_f1_from_confusion(np.zeros((3, 3), int)) == 0.0


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_is_that_of_a_loop_over_bins(num_bins: int) -> None:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet([0.6, 0.6, 0.6], 500).astype(np.float32)
    y_true = rng.integers(0, 3, 500)
    error = 0.0
    for index in range(num_bins):
        inside = [
            (float(row.max()), int(row.argmax()) == truth)
            for row, truth in zip(probs, y_true, strict=True)
            if index / num_bins < row.max() <= (index + 1) / num_bins
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            error += len(inside) / 500 * abs(accuracy - confidence)
    assert expected_calibration_error(y_true, probs, num_bins) == pytest.approx(error)


def test_calibration_error_by_hand() -> None:
    # Two rows in one bin, 0.9 sure, one of them right; then two rows in bins of their own.
    assert expected_calibration_error(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]])) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]])) == pytest.approx(0.1 / 2 + 0.4 / 2)
    # A bin holds its upper end: 0.5 is in the first of two. And what rounding put above 1 is in the last.
    halves = np.array([[0.5, 0.5], [0.75, 0.25]])
    assert expected_calibration_error(np.array([1, 0]), halves, num_bins=2) == pytest.approx(0.5 / 2 + 0.25 / 2)
    assert expected_calibration_error(np.array([0]), np.array([[1.0000001, 0.0]])) == pytest.approx(0.0, abs=1e-6)


def test_interval_is_that_of_a_loop_over_resampled_calls() -> None:
    y_true, y_pred, groups = clustered_rows(25, np.random.default_rng(2))
    low, high = block_of(y_true, y_pred, groups=groups, num_resamples=4000).macro_f1_interval
    expected = loop_bootstrap(y_true, [y_pred], groups, loop_macro_f1)
    assert [low, high] == pytest.approx(expected, abs=0.02)
    # Resampling rows instead would promise too much: what tells the two apart is far above the noise.
    narrow = block_of(y_true, y_pred, num_resamples=4000).macro_f1_interval
    assert high - low > 1.4 * (narrow[1] - narrow[0])


def test_interval_of_single_row_groups_is_that_of_a_loop() -> None:
    """The case in which many groups have equal cells and are drawn as one outcome."""
    rng = np.random.default_rng(3)
    y_true = rng.integers(0, 3, 100)
    y_pred = np.where(rng.random(100) < 0.6, y_true, rng.integers(0, 3, 100))
    expected = loop_bootstrap(y_true, [y_pred], np.arange(100), loop_macro_f1)
    assert block_of(y_true, y_pred, num_resamples=4000).macro_f1_interval == pytest.approx(expected, abs=0.02)


def test_interval_depends_on_the_seed_and_not_on_names_or_order_of_rows() -> None:
    rng = np.random.default_rng(4)
    y_true, y_pred, groups = clustered_rows(50, rng)
    interval = block_of(y_true, y_pred, groups=groups).macro_f1_interval
    names = np.array([f"call-{name:03}" for name in groups])
    order = rng.permutation(len(groups))
    assert block_of(y_true, y_pred, groups=groups).macro_f1_interval == interval
    assert block_of(y_true, y_pred, groups=names.astype(object)).macro_f1_interval == interval
    assert block_of(y_true[order], y_pred[order], groups=names[order]).macro_f1_interval == interval
    assert block_of(y_true, y_pred, groups=groups, seed=1).macro_f1_interval != interval


def test_interval_does_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    y_true, y_pred, groups = clustered_rows(50, np.random.default_rng(5))
    interval = block_of(y_true, y_pred, groups=groups).macro_f1_interval
    monkeypatch.setattr(metrics, "MAX_WEIGHTS", 1000)
    assert block_of(y_true, y_pred, groups=groups).macro_f1_interval == interval


def test_single_group_has_a_point_for_an_interval() -> None:
    block = block_of(Y_TRUE, Y_PRED, groups=np.zeros(8, int))
    assert block.macro_f1_interval == pytest.approx((block.macro_f1,) * 2)


def test_bootstrap_of_many_calls_is_fast_and_small() -> None:
    """30 rows a call, as utterances are: hardly two calls have equal cells, so nothing is saved by merging them."""
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(10_000), 30)
    y_true, y_pred = rng.integers(0, 3, (2, len(groups)))
    probs = certain(y_pred)
    started = time.perf_counter()
    block_of(y_true, y_pred, groups=groups, probs=probs, num_resamples=1000)
    assert time.perf_counter() - started < 5.0  # well below 2 s on two idle CPUs
    tracemalloc.start()
    block_of(y_true, y_pred, groups=groups, probs=probs, num_resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6  # all weights at once would take 160 MB


def test_paired_difference_is_that_of_a_loop_over_resampled_calls() -> None:
    rng = np.random.default_rng(7)
    y_true, pred_a, groups = clustered_rows(80, rng, accuracy=0.7)
    pred_b = np.where(rng.random(len(y_true)) < 0.8, pred_a, rng.integers(0, 3, len(y_true)))
    found, interval = paired_macro_f1_difference(y_true, pred_a, pred_b, groups, num_resamples=4000, seed=0)
    f1_a, f1_b = (f1_score(y_true, y_pred, average="macro") for y_pred in (pred_a, pred_b))
    assert found == pytest.approx(f1_a - f1_b)

    def difference(truth: Any, a: Any, b: Any) -> Any:
        return loop_macro_f1(truth, a) - loop_macro_f1(truth, b)

    assert interval == pytest.approx(loop_bootstrap(y_true, [pred_a, pred_b], groups, difference), abs=0.02)
    # Pairing cancels what both share, so the interval is narrower than that of either score.
    wide = block_of(y_true, pred_a, groups=groups, num_resamples=4000).macro_f1_interval
    assert interval[1] - interval[0] < 0.7 * (wide[1] - wide[0])


def test_paired_difference_of_equals_is_exactly_zero() -> None:
    assert paired_macro_f1_difference(Y_TRUE, Y_PRED, Y_PRED, np.arange(8), num_resamples=100, seed=0) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("labels", [URGENCY_LABELS, SENTIMENT_LABELS, ("low", "mid", "high")])
def test_report_lines_up_in_a_terminal(labels: Any) -> None:
    block = block_of(Y_TRUE, Y_PRED, labels=labels, ordinal=False)
    header, *lines = format_report(block).splitlines()
    assert header.split() == ["class", "precision", "recall", "F1", "support"]
    assert [line.split()[0] for line in lines] == [*labels, "accuracy", "macro-F1"]

    def ends(line: Any) -> Any:
        """Where each word ends, in places of a terminal."""
        places = "".join(sign * 2 if unicodedata.east_asian_width(sign) in "WF" else sign for sign in line)
        return [match.end() for match in re.finditer(r"\S+", places)]

    _, precision, recall, f1, support = ends(header)
    for line in lines[: len(labels)]:
        assert ends(line)[1:] == [precision, recall, f1, support]
    assert ends(lines[-2])[1:] == [f1, support]
    assert ends(lines[-1])[1] == f1


def test_report_states_the_figures() -> None:
    block = block_of(Y_TRUE, Y_PRED)
    low, high = block.macro_f1_interval
    lines = [line.split() for line in format_report(block).splitlines()]
    assert lines[2] == ["중", "0.500", "0.500", "0.500", "2"]
    assert lines[4] == ["accuracy", "0.625", "8"]
    assert lines[5] == f"macro-F1 0.611 95 % interval {low:.3f} to {high:.3f}".split()


def test_a_class_that_does_not_occur_does_not_count_and_is_named() -> None:
    block = block_of(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    # F1 of 하 is 4 / 5, of 중 2 / 3; 상 is neither truth nor prediction.
    assert block.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    words = "no row of test is 상: macro-F1 is the mean over the classes that occur in truth or predictions"
    assert list(describe_absent(block, "test")) == [words]
    # One that is predicted alone counts 0.
    assert block_of(np.array([0, 0]), np.array([0, 2])).macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert list(describe_absent(block_of(np.array([0, 1, 2]), np.array([0, 0, 0])), "val")) == []
