"""From the utterances of a call to the call: attention that says how much each utterance counted.

Shapes: B calls, R their utterances in all, U the most utterances of one call, D in_dim, H hidden_dim.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from urgency_ray.config import ModelConfig
from urgency_ray.examples.utterances import UNKNOWN_SPEAKER, Utterances


class Turns(NamedTuple):
    """Whose and when the R utterances of a batch are: speaker int64 (R,), span float32 (R, 2), mask bool (B, U).

    The mask holds true where a call has an utterance; read row by row, its true cells are the R utterances in order.
    """

    speaker: Tensor
    span: Tensor
    mask: Tensor


def batch_turns(utterances: Utterances, calls: NDArray[np.int64], device: torch.device) -> Turns:
    """The `Turns` of some calls, whose embeddings are `utterances.rows(calls)`."""
    rows, counts = utterances.rows(calls), utterances.counts[calls]
    mask = np.arange(counts.max()) < counts[:, None]
    return Turns(*(torch.from_numpy(part).to(device) for part in (utterances.speaker[rows], utterances.span[rows], mask)))


class CallAttention(nn.Module):
    """A call as the weighted mean of its utterances, weighted by gated attention (Ilse et al. 2018, arXiv:1802.04712).

    The weight of an utterance depends on the whole call: on who says it, when, and what else is said, through a transformer
    layer over the utterances. What is weighted does not: it is what the trunk made of that utterance alone. So the weights are
    the shares that the utterances have in the call's vector, and a call of one utterance is that utterance. Were the
    transformer's output summed instead, a high weight could fall on an utterance that only passes on what another one says.
    """

    def __init__(self, config: ModelConfig, in_dim: int) -> None:
        super().__init__()
        hidden = config.hidden_dim
        self.project = nn.Linear(in_dim, hidden)
        self.speaker = nn.Embedding(UNKNOWN_SPEAKER + 1, hidden, padding_idx=UNKNOWN_SPEAKER)
        self.span = nn.Linear(2, hidden)
        self.context = nn.TransformerEncoderLayer(
            hidden, config.num_heads, config.feedforward_dim, config.encoder_dropout, activation="gelu", batch_first=True
        )
        self.content = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, utterances: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
        """Utterances (R, D) to calls (B, D) and the utterances' weights (R,), which sum to 1 over each call."""
        tokens = self.project(utterances) + self.speaker(turns.speaker) + self.span(turns.span)
        padded = tokens.new_zeros(*turns.mask.shape, tokens.shape[-1])
        padded[turns.mask] = tokens
        padded = padded + encode_positions(padded.shape[1], padded.shape[2], padded.device)
        context = self.context(padded, src_key_padding_mask=~turns.mask)[turns.mask]
        scores = self.score(self.content(context).tanh() * self.gate(context).sigmoid()).squeeze(-1)
        table = scores.new_full(turns.mask.shape, -torch.inf)
        table[turns.mask] = scores
        weights = table.softmax(dim=-1)[turns.mask]
        call = torch.arange(len(turns.mask), device=scores.device).repeat_interleave(turns.mask.sum(dim=1))
        shares = weights.unsqueeze(-1) * utterances
        return shares.new_zeros(len(turns.mask), shares.shape[-1]).index_add(0, call, shares), weights


def mean_over_calls(utterances: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
    """Utterances (R, D) to the mean of each call's (B, D), and the even weights (R,) of its utterances."""
    counts = turns.mask.sum(dim=1)
    weights = (1 / counts).repeat_interleave(counts).to(utterances.dtype)
    call = torch.arange(len(counts), device=utterances.device).repeat_interleave(counts)
    shares = weights.unsqueeze(-1) * utterances
    return shares.new_zeros(len(counts), shares.shape[-1]).index_add(0, call, shares), weights


def encode_positions(num_positions: int, dim: int, device: torch.device) -> Tensor:
    """Sines and cosines of the place of an utterance in its call (Vaswani et al. 2017), (num_positions, dim): any length."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angles = torch.arange(num_positions, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]
