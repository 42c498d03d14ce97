"""A trained classifier over examples: probabilities, predictions.parquet, the blocks of metrics.json."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.examples.groups import group_examples
from urgency_ray.model.load import Model
from urgency_ray.model.saved import TASKS
from urgency_ray.schema import PREDICTION_SCHEMA, SENTIMENT_LABELS, URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.scoring.blocks import ClassificationBlock, Interval, SplitBlocks
from urgency_ray.scoring.calibration import apply_temperature
from urgency_ray.scoring.metrics import classification_block, expected_calibration_error, paired_macro_f1_difference


def score_splits(
    model: Model,
    probabilities: dict[str, NDArray[np.float32]],
    examples: Examples,
    splits: Splits,
    *,
    names: tuple[str, ...] = ("val", "test"),
    num_resamples: int,
    seed: int,
) -> SplitBlocks:
    """`splits` of metrics.json: a `classification_block` for each split and task, with the temperature and the calibration
    error without it.

    Args:
        model: what made the probabilities.
        probabilities: by task, (N, C), as `predict_examples` gives them.
        examples: the N rows.
        splits: which rows belong where.
        names: splits to score.
        num_resamples: bootstrap resamples (of groups of calls) behind the interval.
        seed: of the bootstrap.
    """
    groups = group_examples(examples.keys)
    temperature = dict(zip(TASKS, model.temperature.tolist(), strict=True))
    tasks = {"urgency": (examples.urgency, URGENCY_LABELS), "sentiment": (examples.sentiment, SENTIMENT_LABELS)}
    blocks: SplitBlocks = {}
    for name, split_rows in splits.items():
        if name not in names:
            continue
        for task, probs in probabilities.items():
            truth, labels = tasks[task]
            rows = split_rows[truth[split_rows] >= 0]
            if not len(rows):
                continue
            block = _score(truth[rows], probs[rows], groups[rows], labels, num_resamples=num_resamples, seed=seed)
            raw = apply_temperature(probs[rows], 1 / temperature[task])
            blocks.setdefault(name, {})[task] = block.model_copy(
                update={
                    "expected_calibration_error_uncalibrated": expected_calibration_error(truth[rows], raw),
                    "temperature": temperature[task],
                }
            )
    return blocks


def score_pooled(
    probs: NDArray[np.float32], examples: Examples, rows: NDArray[np.int64], *, num_resamples: int, seed: int
) -> ClassificationBlock:
    """The `classification_block` of urgency on some labelled rows, whatever models made `probs` (N, C); the rest as above."""
    groups = group_examples(examples.keys)
    return _score(examples.urgency[rows], probs[rows], groups[rows], URGENCY_LABELS, num_resamples=num_resamples, seed=seed)


def compare_called(
    called: NDArray[np.int64],
    other: NDArray[np.int64],
    examples: Examples,
    rows: NDArray[np.int64],
    *,
    num_resamples: int,
    seed: int,
) -> tuple[float, Interval]:
    """`paired_macro_f1_difference` of two models on some labelled rows, by the class that each gives to every example, (N,)."""
    groups = group_examples(examples.keys)[rows]
    return paired_macro_f1_difference(
        examples.urgency[rows], called[rows], other[rows], groups, num_resamples=num_resamples, seed=seed
    )


def _score(
    truth: NDArray[np.int64],
    probs: NDArray[np.float32],
    groups: NDArray[np.int64],
    labels: tuple[str, ...],
    *,
    num_resamples: int,
    seed: int,
) -> ClassificationBlock:
    return classification_block(
        truth,
        probs.argmax(axis=1),
        probs,
        groups,
        labels,
        num_resamples=num_resamples,
        seed=seed,
        ordinal=labels == URGENCY_LABELS,
    )


def predictions_table(probs: NDArray[np.float32], examples: Examples, splits: Splits) -> pa.Table:
    """predictions.parquet: a row an example, with its split (`unlabelled` for rows that are in none)."""
    split = np.full(len(examples), "unlabelled", dtype=object)
    for name, rows in splits.items():
        split[rows] = name
    columns = {
        "example_id": examples.keys["example_id"],
        "call_id": examples.keys["call_id"],
        "split": split,
        "urgency": pa.array(examples.urgency, pa.int8(), mask=examples.urgency < 0),
        "urgency_pred": probs.argmax(axis=1).astype(np.int8),
        **{f"prob_{key}": probs[:, index] for index, key in enumerate(URGENCY_KEYS)},
    }
    return pa.table(columns, schema=PREDICTION_SCHEMA)
