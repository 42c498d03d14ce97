"""Transcripts as token ids: cut to a limit, counted, laid end to end, and padded a batch at a time.

Shapes: N texts, T tokens of all texts, B rows of a batch, L tokens of its longest text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TEXTS_AT_ONCE = 8192
PADDED_TOKENS = 16384


class Tokens(NamedTuple):
    """The token ids of N texts, without padding.

    Attributes:
        ids: int32 (T,), one text after the other, special tokens included.
        offsets: int64 (N + 1,); text n is `ids[offsets[n] : offsets[n + 1]]`.
        pad_id: the id that fills up a batch.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    pad_id: int

    def pad(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of some texts (B, L), filled up to the longest of them, and a mask (B, L) of 1 where there is a token."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        places = np.arange(lengths.max())
        mask = places < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, np.int64)
        ids[mask] = self.ids[(starts[:, None] + places)[mask]]
        return ids, mask.astype(np.int64)

    def batches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """`rows`, longest text first, in batches of about `PADDED_TOKENS` tokens, padding included: for inference."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(1, PADDED_TOKENS // int(lengths[order[start]]))
            yield rows[order[start : start + size]]
            start += size


def tokenize(tokenizer: Any, texts: pa.ChunkedArray | pa.Array) -> tuple[Tokens, NDArray[np.int64]]:
    """Token ids of texts, none longer than `tokenizer.model_max_length`; and the tokens beyond it that were cut, (N,).

    Args:
        tokenizer: a fast transformers tokenizer.
        texts: N strings.
    """
    limit = int(tokenizer.model_max_length)
    options = {"verbose": False, "return_attention_mask": False, "return_token_type_ids": False}
    pieces, lengths = [], []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts.slice(start, TEXTS_AT_ONCE).to_pylist()
        ids = tokenizer(part, **options)["input_ids"]
        lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
        too_long = np.flatnonzero(lengths[-1] > limit)
        if len(too_long):
            # The tokenizer knows which special tokens a text that was cut still ends in.
            cut = tokenizer([part[row] for row in too_long], truncation=True, max_length=limit, **options)["input_ids"]
            for row, kept in zip(too_long, cut, strict=True):
                ids[row] = kept
        pieces.append(np.fromiter(chain.from_iterable(ids), np.int32))
    whole = np.concatenate(lengths)
    offsets = np.concatenate([[0], np.minimum(whole, limit).cumsum()])
    return Tokens(np.concatenate(pieces), offsets, int(tokenizer.pad_token_id)), np.maximum(whole - limit, 0)


def describe_cut(num_cut: NDArray[np.int64]) -> str:
    """How many texts were too long and what they lost, in words; `num_cut` as `tokenize` gives it."""
    share = f"{np.count_nonzero(num_cut):,} of {len(num_cut):,} transcripts"
    return f"{share} are longer than model.max_tokens: {num_cut.sum():,} tokens were cut"
