"""Which embedding rows are the utterances of which call, who speaks them and when. Arrays only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from urgency_ray.schema import CALLER

UNKNOWN_SPEAKER = CALLER + 1


class Utterances(NamedTuple):
    """The R utterance rows of N calls: the rows of a call stand together, in the order of their ids.

    Attributes:
        offsets: int64 (N + 1,); call n has the rows offsets[n] to offsets[n + 1], at least one.
        speaker: int64 (R,): `schema.DISPATCHER`, `schema.CALLER` or `UNKNOWN_SPEAKER` for anyone else.
        span: float32 (R, 2): start and end as shares of the call's time, which ends with its last utterance.
    """

    offsets: NDArray[np.int64]
    speaker: NDArray[np.int64]
    span: NDArray[np.float32]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Utterances of each call, (N,)."""
        return np.diff(self.offsets)

    def rows(self, calls: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of some calls' utterances, call after call, (sum of their counts,)."""
        counts = self.counts[calls]
        before = np.cumsum(counts) - counts
        return np.repeat(self.offsets[calls] - before, counts) + np.arange(counts.sum())


def group_utterances(frame: pd.DataFrame) -> Utterances:
    """The calls of utterance rows that are sorted by call: columns call_id, speaker, start_ms, end_ms (nulls allowed).

    In a call that lacks a time, its utterances share the time evenly in their order.
    """
    call = pd.factorize(frame["call_id"])[0].astype(np.int64)
    assert (np.diff(call) >= 0).all(), "the rows of a call stand together"
    offsets = np.concatenate([[0], np.cumsum(np.bincount(call))])
    start, end = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in ("start_ms", "end_ms"))
    last = np.maximum.reduceat(end, offsets[:-1])[call]
    last[last <= 0] = np.nan
    place, count = np.arange(len(call)) - offsets[call], np.diff(offsets)[call]
    even = np.stack([place / count, (place + 1) / count], axis=1)
    timed = np.stack([start, end], axis=1) / last[:, None]
    untimed = np.logical_or.reduceat(~np.isfinite(timed).all(axis=1), offsets[:-1])[call]
    # A label file may number further speakers.
    speaker = frame["speaker"].fillna(UNKNOWN_SPEAKER).clip(upper=UNKNOWN_SPEAKER).to_numpy(np.int64)
    return Utterances(offsets, speaker, np.where(untimed[:, None], even, timed).astype(np.float32))
