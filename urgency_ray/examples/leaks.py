"""Signs that a score is a leak: what should be on one side of a split and is on two."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from urgency_ray.examples.dataset import GROUP_COLUMNS, Examples, Splits
from urgency_ray.examples.splits import provider_test
from urgency_ray.numbering import number_values


def leak_warnings(examples: Examples, splits: Splits) -> list[str]:
    """A line for each split and kind of evidence, with the number of rows; empty where nothing looks like a leak.

    Rows are held against those of the splits that the model or its choice has seen: val against train, test against both. They
    are suspicious where the call is the same; where the audio is, by its hash or, for imported data without one, by its
    embedding, bit for bit (all zeros stand for no audio); or where the transcript is, word for word, unless it is too short
    to tell (`columns.MIN_TEXT_CHARS`); where a manifest names them, also where the speaker or the group is. Where the
    provider's own split has rows of a group of `split.group_by` on both sides, a line says how many are scored with the test.
    """
    lines = []
    for what, keys in _evidence(examples):
        for name, rows, seen in (
            ("val", splits.val, [splits.train]),
            ("test", splits.test, [splits.train, splits.val]),
        ):
            pool = np.concatenate(seen)
            twins = np.zeros(len(rows), bool)
            for key in keys:
                twins |= np.isin(key[rows], key[pool]) & (key[rows] >= 0)
            if twins.any():
                others = "train" if name == "val" else "train or val"
                share = f"{twins.sum():,} of {len(rows):,} {name} rows"
                lines.append(f"possible leak: {share} have the same {what} as a row of {others}; their scores flatter")
    return lines + _mended(examples, splits)


def _mended(examples: Examples, splits: Splits) -> list[str]:
    """What the provider's split would have leaked, had its test rows not taken the rest of their groups along."""
    is_test = examples.keys["provider_split"].to_numpy() == provider_test(examples)
    num_moved = int((~is_test[splits.test]).sum())
    is_used = is_test[splits.test].any() and not is_test[np.concatenate([splits.train, splits.val])].any()
    if "group" not in examples.keys or not is_used or not num_moved:
        return []
    share = f"{num_moved:,} of {len(splits.test):,} test rows"
    words = "were not given for the test, but are of one group with rows that were: they are not trained on"
    return [f"leak in the given split: {share} {words}"]


def _evidence(examples: Examples) -> Iterator[tuple[str, list[NDArray[np.int64]]]]:
    """Kinds of evidence, each with numberings of the rows (N,) by what they have in common; -1 is nothing."""
    kinds = [(what, column) for what, column in GROUP_COLUMNS.items() if column in examples.keys]
    for what, column in (("call", "call_id"), ("audio", "audio_sha256"), ("transcript", "text_sha256"), *kinds):
        codes = number_values(examples.keys[column])
        by_vector = what == "audio" and examples.utterances is None
        yield what, [codes, _vector_keys(examples.audio)] if by_vector else [codes]


def _vector_keys(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """63 bits of a hash of each vector's bytes; -1 where it is all zeros."""
    # One by one: a sort of whole vectors would hold them all a second time.
    keys = np.fromiter((hash(row.tobytes()) for row in vectors), np.int64, count=len(vectors)) & np.iinfo(np.int64).max
    return np.where(vectors.any(axis=1), keys, -1)
