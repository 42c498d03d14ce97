"""A trained classifier over examples: probabilities, predictions.parquet, the blocks of metrics.json."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.examples.splits import group_examples
from urgency_ray.examples.tokens import Tokens
from urgency_ray.examples.utterances import Utterances
from urgency_ray.model.classifier import TASKS, UrgencyClassifier, gather_batch, inference_batches
from urgency_ray.schema import PREDICTION_SCHEMA, SENTIMENT_LABELS, URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.scoring.calibration import apply_temperature
from urgency_ray.scoring.metrics import classification_block, expected_calibration_error


@torch.inference_mode()
def explain_probabilities(
    model: UrgencyClassifier,
    audio: NDArray[np.float32],
    text: NDArray[np.float32],
    acoustic: NDArray[np.float32],
    utterances: Utterances | None = None,
    *,
    tokens: Tokens | None = None,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32] | None]:
    """Calibrated class probabilities by task, (N, C), on the model's device without dropout, and what each utterance weighed.

    Args:
        model: hierarchical where there are utterances, else not.
        audio, text, acoustic: embeddings (R, A), (R, T) and features (R, 5).
        utterances: the rows of each of N calls; None where each of the R rows is an example.
        tokens: the N transcripts; wanted by a model that has a tokenizer, and not read by others.

    Returns:
        The probabilities, and the weights (R,) of the utterances in their calls' decisions, or None without utterances.
    """
    model.eval()
    device = model.urgency.weight.device
    read = tokens if model.tokenizer is not None else None
    num_examples = len(audio) if utterances is None else len(utterances.counts)
    weights = None if utterances is None else np.empty(len(audio), np.float32)
    probs: dict[str, NDArray[np.float32]] = {}
    for examples in inference_batches(np.arange(num_examples), utterances, read):
        logits, shares = model.explain(gather_batch((audio, text, acoustic), utterances, examples, device, read))
        for task, values in model.probabilities(logits).items():
            probs.setdefault(task, np.empty((num_examples, values.shape[1]), np.float32))[examples] = values.cpu().numpy()
        if weights is not None and utterances is not None and shares is not None:
            weights[utterances.rows(examples)] = shares.cpu().numpy()
    return probs, weights


def predict_probabilities(
    model: UrgencyClassifier,
    audio: NDArray[np.float32],
    text: NDArray[np.float32],
    acoustic: NDArray[np.float32],
    tokens: Tokens | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Calibrated class probabilities by task, (N, C), without dropout; arguments as in `explain_probabilities`."""
    return explain_probabilities(model, audio, text, acoustic, tokens=tokens)[0]


def scoring_device(model: UrgencyClassifier) -> str:
    """Where to run a model over all rows: a text encoder is work for a GPU, where this process sees one, heads are not."""
    return "cuda" if model.tokenizer is not None and torch.cuda.is_available() else "cpu"


def predict_examples(model: UrgencyClassifier, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """Calibrated class probabilities of every example, by task, (N, C); the model comes back to the CPU."""
    arrays = examples.audio, examples.text, examples.acoustic, examples.utterances
    probabilities, _ = explain_probabilities(model.to(scoring_device(model)), *arrays, tokens=examples.tokens)
    model.to("cpu")
    return probabilities


def score_splits(
    model: UrgencyClassifier,
    probabilities: dict[str, NDArray[np.float32]],
    examples: Examples,
    splits: Splits,
    *,
    names: tuple[str, ...] = ("val", "test"),
    num_resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
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
    blocks: dict[str, dict[str, Any]] = {}
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
            blocks.setdefault(name, {})[task] = block | {
                "expected_calibration_error_uncalibrated": expected_calibration_error(truth[rows], raw),
                "temperature": temperature[task],
            }
    return blocks


def score_pooled(
    probs: NDArray[np.float32], examples: Examples, rows: NDArray[np.int64], *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """The `classification_block` of urgency on some labelled rows, whatever models made `probs` (N, C); the rest as above."""
    groups = group_examples(examples.keys)
    return _score(examples.urgency[rows], probs[rows], groups[rows], URGENCY_LABELS, num_resamples=num_resamples, seed=seed)


def _score(
    truth: NDArray[np.int64],
    probs: NDArray[np.float32],
    groups: NDArray[np.int64],
    labels: tuple[str, ...],
    *,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
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
