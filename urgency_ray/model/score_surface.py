"""A smooth surface over the scores of each modality: what a linear model of them cannot say.

A score that tells much tells no more than it does: where the words of a call are sure but words mislead in three calls of ten,
the odds level off, and a plane through the scores would let them grow.

Shapes: B examples, D inputs, M modalities in use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NUM_SCORES = 2
"""Scores of a modality: three classes differ in two."""
KNOTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Where the bumps stand along a score, in widths of theirs; beyond the last the surface is level."""
NUM_BUMPS = len(KNOTS) ** NUM_SCORES
"""Of a modality: one for each pair of knots."""


def bumps(scores: Tensor) -> Tensor:
    """Gaussian bumps of width 1 around each point of the grid of knots: (..., 2) to (..., 25)."""
    knots = torch.tensor(KNOTS, dtype=scores.dtype, device=scores.device)
    first, second = (-0.5 * (scores.clamp(KNOTS[0], KNOTS[-1]).unsqueeze(-1) - knots) ** 2).exp().unbind(dim=-2)
    return (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)


class ScoreSurface(nn.Module):
    """The bumps of each modality's scores, side by side; a linear layer over them adds up what the modalities say.

    Args:
        dims: inputs of each modality, in their order.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = list(dims)
        self.scores = nn.ModuleList(nn.Linear(dim, NUM_SCORES) for dim in dims)
        self.out_dim = NUM_BUMPS * len(self.dims)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, D) to (B, 25 M)."""
        parts = zip(self.scores, torch.split(inputs, self.dims, dim=-1), strict=True)
        return torch.cat([bumps(layer(part)) for layer, part in parts], dim=-1)
