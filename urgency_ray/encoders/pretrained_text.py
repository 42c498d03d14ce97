"""Hugging Face text encoders: a BERT-like model over whole texts, or over windows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urgency_ray.config import TextEncoderConfig
from urgency_ray.encoders.base import TextEmbeddings, normalize_rows
from urgency_ray.encoders.hub import load_transformer
from urgency_ray.encoders.layers import hidden_states
from urgency_ray.encoders.settings import settle
from urgency_ray.encoders.text_windows import cut_texts, load_tokenizer
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import longest_input

SEE_PADDING = {"canine"}
"""Models whose convolutions read the padding behind a mask."""


class PretrainedTextEncoder:
    """Texts are sorted by length, padded to the longest of a batch and masked, in attention and in pooling.

    A text beyond the model's limit is cut there, or, with `overflow: window`, read in windows of it (special tokens around
    each); its vector is then the mean of theirs, weighted by their tokens. Of a model with a decoder the encoder reads.

    Args:
        config: model name, layers, limit, pooling, normalisation and arithmetic.
        device: torch device.

    Raises:
        RequestError: the model or its tokenizer cannot be loaded, or it has not such layers.
    """

    def __init__(self, config: TextEncoderConfig, device: str = "cpu") -> None:
        self.config = settle(config)
        self.device = device
        self.tokenizer = load_tokenizer(config)
        self.model: Any
        self.model, _ = load_transformer("text encoder", config, device)
        kind = self.model.config.model_type
        if kind in SEE_PADDING:
            raise RequestError(
                f"text encoder {config.name}: a {kind} model sees what a text is padded with, so that its "
                "vector would depend on its neighbours; choose another"
            )
        self.layers = self.config.layers if isinstance(self.config.layers, list) else None
        self.num_layers = 1 if self.layers is None else len(self.layers)
        self.dim = self.num_layers * int(self.model.config.hidden_size)
        self.max_tokens = longest_input(self.tokenizer, self.model.config, self.config.max_tokens)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts: float32 (N, dim), layer by layer; NaN where the tokenizer has not one token for a text."""
        overflow = self.config.overflow == "window"
        ids, rows, words, num_tokens, num_special = cut_texts(self.tokenizer, texts, self.max_tokens, overflow=overflow)
        pooled = np.full((len(ids), self.dim), np.nan, np.float32)
        # Without special tokens a model may get nothing at all of a text, and could not compute.
        order = [window for window in np.argsort(words, kind="stable") if ids[window]]
        for start in range(0, len(order), self.config.batch_size):
            batch = order[start : start + self.config.batch_size]
            pooled[batch] = self._forward([ids[window] for window in batch])
        # A text without a word still has its special tokens, and a vector.
        weights = np.maximum(words, 1)[:, None]
        sums, totals = np.zeros((len(texts), self.dim)), np.zeros((len(texts), 1))
        np.add.at(sums, rows, pooled * weights)
        np.add.at(totals, rows, weights)
        vectors = (sums / totals).astype(np.float32).reshape(len(texts), self.num_layers, -1)
        vectors = normalize_rows(vectors, layer_norm=self.config.layer_norm, l2=self.config.l2_normalize)
        num_read = np.bincount(rows, weights=words, minlength=len(texts)).astype(np.int32) + num_special
        num_windows = np.bincount(rows, minlength=len(texts)).astype(np.int32)
        return TextEmbeddings(vectors.reshape(len(texts), self.dim), num_tokens, num_tokens - num_read, num_windows)

    def _forward(self, ids: list[list[int]]) -> NDArray[np.float32]:
        """Pooled vectors (B, dim)."""
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        states = hidden_states(self.model, batch, self.layers)
        pooled = [self._pool(hidden, batch["attention_mask"]) for hidden in states]
        return np.asarray(torch.cat(pooled, dim=1).cpu().numpy())

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L, D) and their mask (B, L) to (B, D)."""
        if self.config.pooling == "cls":
            return hidden[:, 0]
        if self.config.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        weights = mask.unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)
