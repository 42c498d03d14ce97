"""How far words and voice tell the urgency in the synthetic corpus, and the best score that anyone can reach from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

CLASS_SHARES: NDArray[np.float64] = np.array([0.35, 0.34, 0.31])
"""Shares of 하, 중, 상, as in the real set."""

WORDS_RELIABILITY: NDArray[np.float64] = np.array([[0.92, 0.05, 0.03], [0.05, 0.66, 0.29], [0.03, 0.29, 0.68]])
"""P(words cue | urgency), a row an urgency: the words mislead mostly between 중 and 상."""

VOICE_RELIABILITY: NDArray[np.float64] = np.array([[0.68, 0.29, 0.03], [0.29, 0.66, 0.05], [0.03, 0.05, 0.92]])
"""P(voice cue | urgency), a row an urgency: the voice misleads mostly between 하 and 중, so each repairs the other."""


class Ceiling(BaseModel):
    """Best reachable macro-F1, 0 to 1, of who perceives the voice cue only, the words cue only, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: float
    text: float
    fused: float


def ceiling(words: ArrayLike, voice: ArrayLike, class_shares: ArrayLike) -> Ceiling:
    """The best macro-F1 over every deterministic map from what is perceived to an urgency class.

    These are population figures: the macro-F1 on a finite test set scatters around them, above as well as below (standard
    deviation at 200 calls about 0.03 for one cue, 0.02 for both). Classifiers that toss a coin are left out.

    Args:
        words: P(words cue | urgency), (3, 3), rows sum to 1.
        voice: P(voice cue | urgency), (3, 3), rows sum to 1; independent of the words given the urgency.
        class_shares: P(urgency), (3,).
    """
    shares, words, voice = (np.asarray(table, dtype=np.float64) for table in (class_shares, words, voice))
    both = (words[:, :, None] * voice[:, None, :]).reshape(3, 9)
    audio, text, fused = (_best_macro_f1(shares[:, None] * cells) for cells in (voice, words, both))
    return Ceiling(audio=audio, text=text, fused=fused)


def _best_macro_f1(joint: NDArray[np.float64]) -> float:
    """Best macro-F1 over the 3 ** C maps from C cells to 3 classes, for P(urgency, cell) of shape (3, C)."""
    num_cells = joint.shape[1]
    maps = np.indices((3,) * num_cells).reshape(num_cells, -1)
    # F1 of a class is 2 TP / (predicted + true), each a sum over the cells that a map gives to the class.
    f1 = [2 * (joint[y] @ (maps == y)) / (joint.sum(axis=0) @ (maps == y) + joint[y].sum()) for y in range(3)]
    return float(np.mean(f1, axis=0).max())
