"""What a model must beat: the majority class, and linear models of the same rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from urgency_ray.config import Config
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits, class_counts
from urgency_ray.model.inference import predict_examples
from urgency_ray.scoring.blocks import AgainstBaseline, ClassificationBlock
from urgency_ray.scoring.scores import compare_called, score_pooled
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model
from urgency_ray.training.linear import fit_linear
from urgency_ray.training.members import all_validated, linear_config

log = logging.getLogger(__name__)

MODALITIES = ("audio", "text", "fused")


@dataclass(frozen=True)
class Baseline:
    """A simple model, fitted on the rows of train and val.

    Attributes:
        block: its urgency block on test.
        called: class of each example, (N,).
        cv_macro_f1: over train and val, each row by a model that has not seen it; what the best baseline is chosen by.
        c: of a linear model, the penalty that cross-validation chose.
    """

    block: ClassificationBlock
    called: NDArray[np.int64]
    cv_macro_f1: float
    c: float | None = None


def fit_baselines(config: Config, examples: Examples, splits: Splits) -> dict[str, Baseline]:
    """`majority`, `linear_audio`, `linear_text` and `linear_fused` (`training.linear`), in seconds.

    Args:
        config: its loss section says whether classes weigh the same; seeds and resamples are its own as well.
        examples: the rows of the run.
        splits: the model's own: test is scored once, by each.
    """
    both = all_validated(splits)
    data = TrainingData.from_examples(examples, both)
    found = {"majority": _majority(config, examples, both)}
    for name in MODALITIES:
        chosen = linear_config(config.replace({"model.modalities": name}))
        model, balanced = build_model(chosen, data), chosen.loss.class_weights == "balanced"
        fit = fit_linear(model, data, both.train, c=None, balanced=balanced, seed=chosen.split.seed)
        probs = predict_examples(model, examples)["urgency"]
        score, c = 0.0, None
        if fit.penalty is not None:
            held_out, c = fit.penalty.held_out.argmax(axis=1), fit.penalty.c
            score = float(f1_score(examples.urgency[fit.rows], held_out, average="macro"))
        found[f"linear_{name}"] = Baseline(_block(probs, examples, both, config), probs.argmax(axis=1), score, c)
    return found


def best_baseline(baselines: Mapping[str, Baseline]) -> str:
    """The one of the best cross-validated macro-F1; test has no say."""
    return max(baselines, key=lambda name: baselines[name].cv_macro_f1)


def penalty(baselines: Mapping[str, Baseline], modalities: str) -> float | None:
    """What cross-validation chose for the linear model of these modalities, where it was fitted."""
    baseline = baselines.get(f"linear_{modalities}")
    return None if baseline is None else baseline.c


def compare(
    called: NDArray[np.int64], baselines: Mapping[str, Baseline], examples: Examples, splits: Splits, config: Config
) -> AgainstBaseline:
    """Test macro-F1 of a model that calls each example so, less that of the best baseline, on the same resamples."""
    name, num_resamples, seed = best_baseline(baselines), config.train.bootstrap_samples, config.split.seed
    other = baselines[name].called
    difference, interval = compare_called(called, other, examples, splits.test, num_resamples=num_resamples, seed=seed)
    low, high = interval
    verdict: Literal["better", "no_better", "worse"] = "better" if low > 0 else "worse" if high < 0 else "no_better"
    return AgainstBaseline(baseline=name, macro_f1=difference, interval=interval, verdict=verdict)


def format_against(against: AgainstBaseline) -> str:
    """The verdict on a model, in a line."""
    words = {"better": "better beyond noise than", "no_better": "no better beyond noise than", "worse": "worse than"}
    low, high = against.interval
    amount = f"{against.macro_f1:+.3f} macro-F1 on test, 95 % {low:+.3f} to {high:+.3f}"
    return f"the model is {words[against.verdict]} the best baseline, {against.baseline} ({amount})"


def _majority(config: Config, examples: Examples, splits: Splits) -> Baseline:
    labels = examples.urgency[splits.train]
    counts = class_counts(labels, NUM_CLASSES)
    probs = np.tile((counts / counts.sum()).astype(np.float32), (len(examples), 1))
    called = probs.argmax(axis=1)
    score = float(f1_score(labels, called[splits.train], average="macro", zero_division=0))
    return Baseline(_block(probs, examples, splits, config), called, score)


def _block(probs: NDArray[np.float32], examples: Examples, splits: Splits, config: Config) -> ClassificationBlock:
    num_resamples, seed = config.train.bootstrap_samples, config.split.seed
    return score_pooled(probs, examples, splits.test, num_resamples=num_resamples, seed=seed)
