"""A trained classifier over many examples: calibrated probabilities, and what each utterance weighed.

Shapes: N examples, R embedding rows, A audio_dim, T text_dim, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from urgency_ray.examples.dataset import Examples
from urgency_ray.examples.tokens import Tokens
from urgency_ray.examples.utterances import Utterances
from urgency_ray.model.batch import gather_batch, inference_batches
from urgency_ray.model.load import Model


@torch.inference_mode()
def explain_probabilities(
    model: Model,
    audio: NDArray[np.float32],
    text: NDArray[np.float32],
    acoustic: NDArray[np.float32],
    utterances: Utterances | None = None,
    *,
    tokens: Tokens | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32] | None]:
    """Calibrated class probabilities by task, (N, C), on the model's device without dropout, and what each utterance weighed.

    Args:
        model: hierarchical where there are utterances, else not.
        audio, text, acoustic: embeddings (R, A), (R, T) and features (R, 5).
        utterances: the rows of each of N calls; None where each of the R rows is an example.
        tokens: the transcripts; wanted by a model that has a tokenizer, and not read by others.
        numbers: of the N examples, where it is not all of them.

    Returns:
        The probabilities, and the weights (R,) of the utterances in their calls' decisions, or None without utterances.
    """
    model.eval()
    device = model.device
    read = tokens if model.tokenizer is not None else None
    num_examples = len(audio) if utterances is None else len(utterances.counts)
    weights = None if utterances is None else np.empty(len(audio), np.float32)
    probs: dict[str, NDArray[np.float32]] = {}
    wanted = np.arange(num_examples) if numbers is None else numbers
    for examples in inference_batches(wanted, utterances, read):
        logits, shares = model.explain(gather_batch((audio, text, acoustic), utterances, examples, device, read))
        for task, values in model.probabilities(logits).items():
            probs.setdefault(task, np.empty((num_examples, values.shape[1]), np.float32))[examples] = values.cpu().numpy()
        if weights is not None and utterances is not None and shares is not None:
            weights[utterances.rows(examples)] = shares.cpu().numpy()
    return probs if numbers is None else {task: values[numbers] for task, values in probs.items()}, weights


def predict_probabilities(
    model: Model,
    audio: NDArray[np.float32],
    text: NDArray[np.float32],
    acoustic: NDArray[np.float32],
    tokens: Tokens | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Calibrated class probabilities by task, (N, C), without dropout; arguments as in `explain_probabilities`."""
    return explain_probabilities(model, audio, text, acoustic, tokens=tokens)[0]


def scoring_device(model: Model) -> str:
    """Where to run a model over all rows: a text encoder is work for a GPU, where this process sees one, heads are not."""
    return "cuda" if model.tokenizer is not None and torch.cuda.is_available() else "cpu"


def predict_examples(
    model: Model, examples: Examples, numbers: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Calibrated class probabilities by task, (N, C), of every example, or of N of them; the model comes back to the CPU."""
    arrays = examples.audio, examples.text, examples.acoustic, examples.utterances
    probabilities, _ = explain_probabilities(model.to(scoring_device(model)), *arrays, tokens=examples.tokens, numbers=numbers)
    model.to("cpu")
    return probabilities
