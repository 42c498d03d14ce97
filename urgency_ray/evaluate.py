"""A trained classifier over examples: probabilities, predictions.parquet, the blocks of metrics.json."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from urgency_ray.dataset import Examples, Splits, group_examples
from urgency_ray.metrics import classification_block
from urgency_ray.model import UrgencyClassifier, gather_batch, inference_batches
from urgency_ray.schema import PREDICTION_SCHEMA, SENTIMENT_LABELS, URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.tokens import Tokens
from urgency_ray.utterances import Utterances


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
    """Class probabilities by task, (N, C), in the model's evaluation mode and on its device, and what each utterance weighed.

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
        for task, scores in logits.items():
            values = scores.float().softmax(dim=-1).cpu().numpy()
            probs.setdefault(task, np.empty((num_examples, values.shape[1]), np.float32))[examples] = values
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
    """Class probabilities by task, (N, C), in the model's evaluation mode; arguments as in `explain_probabilities`."""
    return explain_probabilities(model, audio, text, acoustic, tokens=tokens)[0]


def predict_examples(model: UrgencyClassifier, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """Class probabilities of every example, by task, (N, C); the model comes back to the CPU."""
    # A text encoder over every transcript is work for a GPU, where this process sees one; heads over embeddings are not.
    device = "cuda" if model.tokenizer is not None and torch.cuda.is_available() else "cpu"
    arrays = examples.audio, examples.text, examples.acoustic, examples.utterances
    probabilities, _ = explain_probabilities(model.to(device), *arrays, tokens=examples.tokens)
    model.to("cpu")
    return probabilities


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
