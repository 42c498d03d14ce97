"""Texts as token ids that a model reads at once: cut at its limit, or in windows of it, with special tokens around each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from urgency_ray.config import TextEncoderConfig
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import load_pretrained


class Windows(NamedTuple):
    """W windows of N texts.

    Attributes:
        ids: token ids of each window, special ones included.
        rows: int64 (W,), whose each is, in order.
        words: int64 (W,), tokens of each that are not special.
        num_tokens: int32 (N,), tokens of each text, special ones included, whatever is cut.
        num_special: tokens around each window.
    """

    ids: list[list[int]]
    rows: NDArray[np.int64]
    words: NDArray[np.int64]
    num_tokens: NDArray[np.int32]
    num_special: int


def load_tokenizer(config: TextEncoderConfig) -> Any:
    """The tokenizer of an encoder, which pads and cuts on the right whatever its files say: positions count from the left.

    Raises:
        RequestError: it cannot be loaded, knows no words, or cannot pad.
    """
    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    tokenizer = load_pretrained("text encoder", config.name, lambda: AutoTokenizer.from_pretrained(config.name, **source))
    if not _knows_words(tokenizer):
        raise RequestError(f"text encoder {config.name}: its tokenizer knows no words; copy its tokenizer files, too")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise RequestError(f"text encoder {config.name}: its tokenizer has nothing to pad with; choose another model")
        tokenizer.pad_token = tokenizer.eos_token  # behind the mask, any token serves
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def _knows_words(tokenizer: Any) -> bool:
    special = set(tokenizer.all_special_tokens)
    # One that was made without its files knows these alone, and each twice at most.
    return len(tokenizer) > 2 * len(special) or bool(set(tokenizer.get_vocab()) - special)


def cut_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int, *, overflow: bool) -> Windows:
    """Windows of at most `max_tokens`; without `overflow` the first of each text alone."""
    num_special = tokenizer.num_special_tokens_to_add()
    # A tokenizer in Rust cuts on its own; one in Python cannot, but of single texts it is the same.
    cut = _cut_fast if tokenizer.is_fast else _cut_slow
    ids, rows = cut(tokenizer, texts, max_tokens)
    words = np.array([len(window) - num_special for window in ids])
    num_tokens = np.bincount(rows, weights=words, minlength=len(texts)).astype(np.int32) + num_special
    if not overflow:
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        rows, words, ids = rows[first], words[first], [ids[window] for window in first]
    return Windows(ids, rows, words, num_tokens, num_special)


def _cut_fast(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], NDArray[np.int64]]:
    options = {"truncation": True, "max_length": max_tokens, "return_overflowing_tokens": True, "verbose": False}
    windows = tokenizer(list(texts), **options)
    return windows["input_ids"], np.array(windows["overflow_to_sample_mapping"])


def _cut_slow(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], NDArray[np.int64]]:
    size = max_tokens - tokenizer.num_special_tokens_to_add()
    ids, rows = [], []
    for row, text in enumerate(texts):
        words = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, max(1, len(words)), size):
            ids.append(tokenizer.build_inputs_with_special_tokens(words[start : start + size]))
            rows.append(row)
    return ids, np.array(rows)
