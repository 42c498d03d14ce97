"""The blocks of metrics.json, of both tasks, against scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from urgency_ray.config import ModelConfig
from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import predict_examples
from urgency_ray.schema import SENTIMENT_LABELS, URGENCY_LABELS
from urgency_ray.scoring.scores import predictions_table, score_splits

SMALL: dict[str, Any] = {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "feedforward_dim": 16, "head_dim": 8}
TASKS = {"urgency": URGENCY_LABELS, "sentiment": SENTIMENT_LABELS}


@pytest.fixture(scope="module")
def scored() -> Any:
    """(examples, splits, urgency and sentiment by task, probabilities, blocks) of an untrained model with both heads."""
    rng = np.random.default_rng(0)
    size = 300
    keys = pd.DataFrame({"example_id": [f"e{i:03d}" for i in range(size)], "call_id": [f"c{i // 3}" for i in range(size)]})
    keys["audio_sha256"] = None
    audio, text, acoustic = (rng.standard_normal((size, dim)).astype(np.float32) for dim in (6, 5, 5))
    urgency, sentiment = rng.integers(0, 3, size), rng.integers(-1, 4, size)
    examples = Examples(keys, audio, text, acoustic, urgency, sentiment, None)
    splits = Splits(np.arange(120), np.arange(120, 180), np.arange(180, 290))
    torch.manual_seed(0)
    model = UrgencyClassifier(ModelConfig(**SMALL), 6, 5, with_sentiment=True)
    for head in (model.urgency, model.sentiment):
        assert head is not None
        torch.nn.init.normal_(head.weight, std=2.0)
    model.temperature.copy_(torch.tensor([2.5, 0.5]))
    probabilities = predict_examples(model, examples)
    blocks = score_splits(model, probabilities, examples, splits, num_resamples=100, seed=0)
    return examples, splits, {"urgency": urgency, "sentiment": sentiment}, probabilities, blocks


def calibration_error(truth: Any, probs: Any) -> Any:
    """From scikit-learn's reliability curve, weighted by the rows of its bins."""
    confidence, right = probs.max(axis=1).astype(np.float64), probs.argmax(axis=1) == truth
    accuracy, stated = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence), minlength=15)
    return np.abs(accuracy - stated) @ counts[counts > 0] / len(truth)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("task", ["urgency", "sentiment"])
def test_every_figure_is_scikit_learn_s(scored: Any, split: str, task: str) -> None:
    _, splits, labels, probabilities, blocks = scored
    rows = dict(splits.items())[split]
    rows = rows[labels[task][rows] >= 0]
    truth, probs = labels[task][rows], probabilities[task][rows]
    called, classes = probs.argmax(axis=1), list(range(len(TASKS[task])))
    block = blocks[split][task].model_dump(exclude_unset=True)
    low, high = block.pop("macro_f1_interval")
    assert low < block["macro_f1"] < high
    columns = precision_recall_fscore_support(truth, called, labels=classes, zero_division=0)
    per_class = block.pop("per_class")
    assert list(per_class) == list(TASKS[task])
    for row, *expected in zip(per_class.values(), *columns, strict=True):
        assert [row[name] for name in ("precision", "recall", "f1", "support")] == pytest.approx(expected)
    exact = probs / probs.astype(np.float64).sum(axis=1, keepdims=True)
    temperature = {"urgency": 2.5, "sentiment": 0.5}[task]
    raw = torch.from_numpy(probs).log().mul(temperature).softmax(-1).numpy()
    ordinal = {
        "quadratic_kappa": pytest.approx(cohen_kappa_score(truth, called, weights="quadratic")),
        "ordinal_mae": pytest.approx(mean_absolute_error(truth, called)),
        "recall_high": pytest.approx(recall_score(truth, called, labels=[2], average=None)[0]),
        "high_called_low": pytest.approx(confusion_matrix(truth, called, normalize="true", labels=classes)[2, 0]),
        "under_triage": pytest.approx(np.mean(called < truth)),
        "over_triage": pytest.approx(np.mean(called > truth)),
        "auroc_high": pytest.approx(roc_auc_score(truth == 2, probs[:, 2])),
        "auprc_high": pytest.approx(average_precision_score(truth == 2, probs[:, 2])),
    }
    curve, kappas = block.pop("net_benefit"), block.pop("quadratic_kappa_interval")
    if task == "urgency":
        assert kappas[0] < block["quadratic_kappa"] < kappas[1]
        flagged = probs[:, 2] >= 0.25
        benefit = np.mean(flagged & (truth == 2)) - np.mean(flagged & (truth != 2)) / 3
        assert dict(zip(np.round(curve["thresholds"], 2), curve["model"], strict=True))[0.25] == pytest.approx(benefit)
    else:
        assert (curve, kappas) == (None, None)
    assert block == {
        "num_rows": len(rows),
        "accuracy": pytest.approx(accuracy_score(truth, called)),
        "macro_f1": pytest.approx(f1_score(truth, called, average="macro")),
        "confusion": confusion_matrix(truth, called, labels=classes).tolist(),
        **(ordinal if task == "urgency" else dict.fromkeys(ordinal)),
        "log_loss": pytest.approx(log_loss(truth, exact, labels=classes), rel=1e-5),
        "brier": pytest.approx(np.mean(((probs - np.eye(len(classes))[truth]) ** 2).sum(axis=1))),
        "expected_calibration_error": pytest.approx(calibration_error(truth, probs)),
        "expected_calibration_error_uncalibrated": pytest.approx(calibration_error(truth, raw)),
        "temperature": temperature,
    }


def test_the_train_split_is_not_scored(scored: Any) -> None:
    assert set(scored[-1]) == {"val", "test"}


def test_predictions_name_the_split_of_each_row(scored: Any) -> None:
    examples, splits, labels, probabilities, _ = scored
    frame = predictions_table(probabilities["urgency"], examples, splits).to_pandas()
    assert frame["split"].value_counts().to_dict() == {"train": 120, "test": 110, "val": 60, "unlabelled": 10}
    assert (frame["urgency"] == labels["urgency"]).all()
