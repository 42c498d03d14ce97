"""A trained classifier over examples: probabilities, predictions.parquet, the blocks of metrics.json."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from urgency_ray.dataset import Examples, Splits, group_examples
from urgency_ray.metrics import classification_block
from urgency_ray.model import UrgencyClassifier, gather_batch
from urgency_ray.schema import PREDICTION_SCHEMA, SENTIMENT_LABELS, URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.utterances import Utterances

ROWS_PER_FORWARD = 2048


@torch.inference_mode()
def explain_probabilities(
    model: UrgencyClassifier,
    audio: NDArray[np.float32],
    text: NDArray[np.float32],
    acoustic: NDArray[np.float32],
    utterances: Utterances | None = None,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32] | None]:
    """Class probabilities by task, (N, C), in the model's evaluation mode, and what each utterance weighed.

    Args:
        model: hierarchical where there are utterances, else not.
        audio, text, acoustic: embeddings (R, A), (R, T) and features (R, 5).
        utterances: the rows of each of N calls; None where each of the R rows is an example.

    Returns:
        The probabilities, and the weights (R,) of the utterances in their calls' decisions, or None without utterances.
    """
    model.eval()
    device = model.urgency.weight.device
    counts = np.ones(len(audio), np.int64) if utterances is None else utterances.counts
    # Calls of like length together: what pads the shorter ones of a batch is work for nothing.
    order = np.argsort(counts, kind="stable")
    weights = None if utterances is None else np.empty(len(audio), np.float32)
    parts: dict[str, list[NDArray[np.float32]]] = {}
    full = np.flatnonzero(np.diff((np.cumsum(counts[order]) - 1) // ROWS_PER_FORWARD)) + 1
    for examples in np.split(order, full):
        logits, shares = model.explain(gather_batch((audio, text, acoustic), utterances, examples, device))
        for task, values in logits.items():
            parts.setdefault(task, []).append(values.float().softmax(dim=-1).cpu().numpy())
        if weights is not None and utterances is not None and shares is not None:
            weights[utterances.rows(examples)] = shares.cpu().numpy()
    back = np.argsort(order)
    return {task: np.concatenate(values)[back] for task, values in parts.items()}, weights


def predict_probabilities(
    model: UrgencyClassifier, audio: NDArray[np.float32], text: NDArray[np.float32], acoustic: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Class probabilities by task, (N, C), of embeddings (N, A), (N, T) and features (N, 5), in the model's evaluation mode."""
    return explain_probabilities(model, audio, text, acoustic)[0]


def predict_examples(model: UrgencyClassifier, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """Class probabilities of every example, by task, (N, C)."""
    return explain_probabilities(model, examples.audio, examples.text, examples.acoustic, examples.utterances)[0]


def score_splits(
    probabilities: dict[str, NDArray[np.float32]],
    examples: Examples,
    splits: Splits,
    *,
    names: tuple[str, ...] = ("val", "test"),
    num_resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """`splits` of metrics.json: a block of figures for each split and task.

    Args:
        probabilities: by task, (N, C), as `predict_examples` gives them.
        examples: the N rows.
        splits: which rows belong where.
        names: splits to score.
        num_resamples: bootstrap resamples (of groups of calls) behind the interval.
        seed: of the bootstrap.
    """
    groups = group_examples(examples.keys)
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
            blocks.setdefault(name, {})[task] = classification_block(
                truth[rows],
                probs[rows].argmax(axis=1),
                probs[rows],
                groups[rows],
                labels,
                num_resamples=num_resamples,
                seed=seed,
                ordinal=task == "urgency",
            )
    return blocks


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
