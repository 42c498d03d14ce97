"""What an encoder, or a transcriber, gives, whatever is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
"""What waveforms are decoded to, and all encoders hear."""


@dataclass(frozen=True)
class AudioEmbeddings:
    """N pooled embeddings.

    Attributes:
        vectors: float32 (N, dim).
        num_windows: int32 (N,), windows that each waveform was heard in.
    """

    vectors: NDArray[np.float32]
    num_windows: NDArray[np.int32]

    @classmethod
    def none(cls, dim: int) -> AudioEmbeddings:
        """No embeddings at all, (0, dim)."""
        return cls(np.zeros((0, dim), np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class TextEmbeddings:
    """N pooled embeddings.

    Attributes:
        vectors: float32 (N, dim).
        num_tokens: int32 (N,), tokens in each text, special ones included.
        num_tokens_dropped: int32 (N,), tokens beyond the encoder's limit, which it did not read.
        num_windows: int32 (N,), windows that each text was read in.
    """

    vectors: NDArray[np.float32]
    num_tokens: NDArray[np.int32]
    num_tokens_dropped: NDArray[np.int32]
    num_windows: NDArray[np.int32]

    @classmethod
    def none(cls, dim: int) -> TextEmbeddings:
        """No embeddings at all, (0, dim)."""
        return cls(np.zeros((0, dim), np.float32), *(np.zeros(0, np.int32) for _ in range(3)))


class AudioEncoder(Protocol):
    """Turns waveforms into vectors; a waveform's vector does not depend on the others in the batch.

    Attributes:
        dim: numbers of a vector; where several layers are asked for, of all of them, side by side.
        sample_rate_hz: of what it hears.
    """

    dim: int
    sample_rate_hz: int

    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> AudioEmbeddings:
        """Embed mono waveforms (float32, `sample_rate_hz`, any lengths above zero)."""
        ...


class TextEncoder(Protocol):
    """Turns texts into vectors; a text's vector does not depend on the others in the batch."""

    dim: int

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts."""
        ...


class Transcriber(Protocol):
    """Turns waveforms into words; those of a waveform do not depend on the others in the batch."""

    sample_rate_hz: int

    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str | None]:
        """What is said in mono waveforms (float32, `sample_rate_hz`, any lengths above zero).

        Returns:
            The words of each, as the model spells them, "" where it hears none; None where it gave NaN or infinite values.
        """
        ...


def normalize_rows(vectors: NDArray[np.float32], *, layer_norm: bool, l2: bool) -> NDArray[np.float32]:
    """Layer norm without affine parameters, then unit length, over the last axis of (..., dim); zero rows stay zero.

    The recipes' order: UrgencySense applies both to text, the second to audio.
    """
    if layer_norm:
        centered = vectors - vectors.mean(axis=-1, keepdims=True)
        vectors = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5)
    if l2:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors.astype(np.float32, copy=False)
