"""Hugging Face text encoders: a BERT-like model over whole texts, or over windows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from urgency_ray.config import TextEncoderConfig
from urgency_ray.encoders.base import TextEmbeddings, normalize_rows
from urgency_ray.encoders.hub import load_transformer
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import load_pretrained, longest_input


def load_tokenizer(config: TextEncoderConfig) -> Any:
    """The tokenizer of an encoder, which pads and cuts on the right whatever its files say: positions count from the left.

    Raises:
        RequestError: it cannot be loaded, is none of the fast ones, which alone can cut into windows, or cannot pad.
    """
    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    tokenizer = load_pretrained("text encoder", config.name, lambda: AutoTokenizer.from_pretrained(config.name, **source))
    if not tokenizer.is_fast:
        raise RequestError(
            f"text encoder {config.name}: has no fast tokenizer (tokenizer.json); save one, or choose another model"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise RequestError(f"text encoder {config.name}: its tokenizer knows no words; copy its tokenizer files, too")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise RequestError(f"text encoder {config.name}: its tokenizer has nothing to pad with; choose another model")
        tokenizer.pad_token = tokenizer.eos_token  # behind the mask, any token serves
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


class PretrainedTextEncoder:
    """Texts are sorted by length, padded to the longest of a batch and masked, in attention and in pooling.

    A text beyond the model's limit is cut there, or, with `overflow: window`, read in windows of it (special tokens around
    each); its vector is then the mean of theirs, weighted by their tokens.

    Args:
        config: model name, limit, pooling, normalisation and arithmetic.
        device: torch device.

    Raises:
        RequestError: the model or its tokenizer cannot be loaded.
    """

    def __init__(self, config: TextEncoderConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.tokenizer = load_tokenizer(config)
        self.model: Any
        self.model, _ = load_transformer("text encoder", config, device)
        self.dim = int(self.model.config.hidden_size)
        self.max_tokens = longest_input(self.tokenizer, self.model.config, config.max_tokens)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts: float32 (N, hidden_size); NaN where the tokenizer has not one token for a text."""
        windows = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, return_overflowing_tokens=True, verbose=False
        )
        rows, ids = np.array(windows["overflow_to_sample_mapping"]), windows["input_ids"]
        num_special = self.tokenizer.num_special_tokens_to_add()
        words = np.array([len(window) - num_special for window in ids])
        num_tokens = np.bincount(rows, weights=words, minlength=len(texts)).astype(np.int32) + num_special
        if self.config.overflow == "truncate":
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            rows, words, ids = rows[first], words[first], [ids[window] for window in first]
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
        vectors = normalize_rows(
            (sums / totals).astype(np.float32), layer_norm=self.config.layer_norm, l2=self.config.l2_normalize
        )
        num_read = np.bincount(rows, weights=words, minlength=len(texts)).astype(np.int32) + num_special
        num_windows = np.bincount(rows, minlength=len(texts)).astype(np.int32)
        return TextEmbeddings(vectors, num_tokens, num_tokens - num_read, num_windows)

    def _forward(self, ids: list[list[int]]) -> NDArray[np.float32]:
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        hidden = self.model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = hidden[:, 0] if self.config.pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        return np.asarray(pooled.cpu().numpy())
