"""What a classifier takes: the inputs of some examples, gathered by index, and in which batches for inference.

Shapes: B examples, R embedding rows (one an example, or one an utterance of a call), A audio_dim, T text_dim, L tokens of the
longest text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urgency_ray.examples.tokens import Tokens
from urgency_ray.examples.utterances import Utterances
from urgency_ray.model.call_attention import Turns, batch_turns

ROWS_PER_FORWARD = 2048


class Batch(NamedTuple):
    """Inputs of a classifier: audio (R, A), text (R, T), acoustic (R, 5), all float32 and as extracted.

    `turns` says which rows make which call; it is None where an example is one row. A model with a text encoder also takes the
    token ids (B, L), L those of the longest text, and a mask (B, L), both int64.
    """

    audio: Tensor
    text: Tensor
    acoustic: Tensor
    turns: Turns | None = None
    token_ids: Tensor | None = None
    token_mask: Tensor | None = None


def gather_batch(
    embeddings: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    utterances: Utterances | None,
    examples: NDArray[np.int64],
    device: torch.device,
    tokens: Tokens | None = None,
) -> Batch:
    """The inputs of some examples, out of audio (R, A), text (R, T) and acoustic (R, 5) of all, gathered by index.

    Args:
        embeddings: audio, text, acoustic.
        utterances: which rows make which call; None where an example is a row.
        examples: numbers of calls, or of rows.
        device: where to.
        tokens: the transcripts, for a model that reads them itself.
    """
    rows = examples if utterances is None else utterances.rows(examples)
    turns = None if utterances is None else batch_turns(utterances, examples, device)
    audio, text, acoustic = (torch.from_numpy(values[rows]).to(device) for values in embeddings)
    padded = [None, None] if tokens is None else [torch.from_numpy(part).to(device) for part in tokens.pad(examples)]
    return Batch(audio, text, acoustic, turns, *padded)


def inference_batches(
    examples: NDArray[np.int64], utterances: Utterances | None, tokens: Tokens | None
) -> Iterable[NDArray[np.int64]]:
    """`examples` in batches for forward passes without gradients; those of like length together, since padding is work."""
    if tokens is not None:
        return tokens.batches(examples)
    counts = np.ones(len(examples), np.int64) if utterances is None else utterances.counts[examples]
    order = np.argsort(counts, kind="stable")
    full = np.flatnonzero(np.diff((np.cumsum(counts[order]) - 1) // ROWS_PER_FORWARD)) + 1
    return (batch for batch in np.split(examples[order], full) if len(batch))
