"""torch.nn's dropout and transformer layer, made for CPUs and for few tokens: the same functions, the same state dict.

Shapes: B rows, M tokens of a row (one or two), H width, N heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# An element's draw has 16 bits: four of them out of each 64-bit number of the generator.
LEVELS = 2**16


class SixteenBitDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) with a probability rounded to 1/65,536, which the kept elements' scale makes up for.

    On a CPU torch.nn's draws one number for each element on one thread, a fifth of a training step of the fusion model.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape to the same shape."""
        dropped = round(self.p * LEVELS)
        if not self.training or not dropped or input.device.type != "cpu":
            return super().forward(input)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        kept = draws.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - LEVELS // 2
        return input * kept.to(input.dtype).mul_(LEVELS / (LEVELS - dropped))


class FewTokensLayer(nn.TransformerEncoderLayer):
    """A post-norm GELU transformer layer over a handful of tokens, without masks.

    With two tokens, attention is four products of H numbers: as tiny matrix products, one a row and head, they take longer than
    the layer's large ones. Here they are elementwise.

    Args:
        dim: width (H).
        num_heads: attention heads (N).
        feedforward_dim: width of the feed-forward part.
        dropout: probability, everywhere in the layer, attention weights included.
    """

    def __init__(self, dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__(dim, num_heads, feedforward_dim, dropout, activation="gelu", batch_first=True)
        self.dropout, self.dropout1, self.dropout2, self.dropout_weights = (SixteenBitDropout(dropout) for _ in range(4))

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """(B, M, H) to (B, M, H); `nn.TransformerEncoder` hands on the other arguments, which must be as they are by default.

        Raises:
            ValueError: a mask is given.
        """
        if src_mask is not None or src_key_padding_mask is not None or is_causal:
            raise ValueError("FewTokensLayer takes no mask: every token of a row attends to all of them")
        hidden = self.norm1(src + self.dropout1(self._attend(src)))
        fed = self.linear2(self.dropout(functional.gelu(self.linear1(hidden))))
        result: Tensor = self.norm2(hidden + self.dropout2(fed))
        return result

    def _attend(self, tokens: Tensor) -> Tensor:
        attention, (num_rows, num_tokens, dim) = self.self_attn, tokens.shape
        projected = functional.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
        heads = projected.view(num_rows, num_tokens, 3, attention.num_heads, dim // attention.num_heads)
        query, key, value = heads.unbind(2)
        # (B, M of the queries, M of the keys, N)
        scores = (query.unsqueeze(2) * key.unsqueeze(1)).sum(-1) * query.shape[-1] ** -0.5
        weights = self.dropout_weights(scores.softmax(dim=2))
        mixed = (weights.unsqueeze(-1) * value.unsqueeze(1)).sum(2)
        result: Tensor = attention.out_proj(mixed.flatten(2))
        return result
