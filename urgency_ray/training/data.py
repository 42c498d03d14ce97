"""What the loop sees of a run: embeddings, the labels of train and val, their statistics, and the order in which rows come.

Every random draw of training over rows is here, a function of (seed, epoch) and never of the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urgency_ray.config import SamplerConfig
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits, class_counts
from urgency_ray.examples.groups import group_examples
from urgency_ray.examples.tokens import Tokens
from urgency_ray.examples.utterances import Utterances
from urgency_ray.model.batch import Batch, gather_batch

SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class TrainingData:
    """What the loop may see: all embeddings, but labels and row numbers of train and val only.

    The workers of a node share one copy, read-only (`shared.SharedData`).

    Attributes:
        audio, text, acoustic: as in `dataset.Examples`, (R, ...).
        urgency, sentiment: int64 (N,); -1 on every test example.
        train, val: numbers of examples.
        utterances: as in `dataset.Examples`: the rows of each call, or None where an example is a row.
        tokens: the transcripts, where the model reads them itself.
        groups: int64 (N,), as `splits.group_examples` gives them; None where each example is one of its own.
    """

    audio: NDArray[np.float32]
    text: NDArray[np.float32]
    acoustic: NDArray[np.float32]
    urgency: NDArray[np.int64]
    sentiment: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    utterances: Utterances | None = None
    tokens: Tokens | None = None
    groups: NDArray[np.int64] | None = None

    @classmethod
    def from_examples(cls, examples: Examples, splits: Splits) -> TrainingData:
        """Hide the test labels, so that nothing in the loop could use them."""
        hidden = np.ones(len(examples), bool)
        hidden[splits.train] = hidden[splits.val] = False
        return cls(
            examples.audio,
            examples.text,
            examples.acoustic,
            np.where(hidden, -1, examples.urgency),
            np.where(hidden, -1, examples.sentiment),
            splits.train,
            splits.val,
            examples.utterances,
            examples.tokens,
            group_examples(examples.keys),
        )

    def rows(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the embedding rows of some examples."""
        return examples if self.utterances is None else self.utterances.rows(examples)

    def batch(self, examples: NDArray[np.int64], device: torch.device) -> tuple[Batch, dict[str, Tensor]]:
        """Inputs and targets of some examples, gathered by index."""
        inputs = gather_batch((self.audio, self.text, self.acoustic), self.utterances, examples, device, self.tokens)
        labels = {"urgency": self.urgency, "sentiment": self.sentiment}
        return inputs, {task: torch.from_numpy(values[examples]).to(device) for task, values in labels.items()}


def column_statistics(values: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each column over `rows`, both (D,); a constant column gets deviation 1.

    Columns that hold no number at all (imported data without acoustic features) get mean 0 and deviation 1.
    """
    total = np.zeros(values.shape[1])
    squares = np.zeros(values.shape[1])
    count = np.zeros(values.shape[1])
    # In pieces: a million rows in float64 at once would be as large as the data again.
    for piece in np.array_split(rows, max(1, len(rows) // 8192)):
        part = values[piece].astype(np.float64)
        known = np.isfinite(part)
        part[~known] = 0.0
        total += part.sum(axis=0)
        squares += (part**2).sum(axis=0)
        count += known.sum(axis=0)
    mean = total / np.maximum(count, 1)
    variance = squares / np.maximum(count, 1) - mean**2
    std = np.sqrt(np.maximum(variance, 0.0))
    std[std <= np.maximum(1e-6 * np.abs(mean), SMALLEST)] = 1.0
    return mean.astype(np.float32), std.astype(np.float32)


def epoch_order(labels: NDArray[np.int64], config: SamplerConfig, seed: int, epoch: int) -> NDArray[np.int64]:
    """Positions into `labels` in the order of one epoch, (N,): a pure function of (seed, epoch), whatever the workers.

    `weighted` draws N times with replacement, a row of class c with weight (N / (3 n_c)) ** power (UrgencySense's sampler);
    `none` visits each row once.
    """
    rng = np.random.default_rng([seed, epoch])
    if config.name == "none":
        return rng.permutation(len(labels))
    counts = class_counts(labels, NUM_CLASSES)
    weights = (len(labels) / (NUM_CLASSES * np.maximum(counts, 1))) ** config.power
    row_weights = weights[labels]
    return rng.choice(len(labels), size=len(labels), replace=True, p=row_weights / row_weights.sum())


def worker_batches(order: NDArray[np.int64], batch_size: int, rank: int, world_size: int) -> Iterator[NDArray[np.int64]]:
    """The batches of one worker: the global batch of `batch_size * world_size` rows, cut evenly among the workers.

    The last global batch may be short. When it has fewer rows than there are workers, every worker takes all of it: the global
    mean over numerators and normalisers stays what one worker would compute, and no worker misses a step.
    """
    size = batch_size * world_size
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        yield batch if len(batch) < world_size else np.array_split(batch, world_size)[rank]
