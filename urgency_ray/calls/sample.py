"""A few transcripts of a plan, to look at before the work."""

from __future__ import annotations

import functools

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.calls.planned import read_label
from urgency_ray.calls.transcript import join_transcript
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reject


def sample_transcripts(manifest: pa.Table, data: DataConfig, num_calls: int) -> list[str]:
    """The transcripts of at most `num_calls` calls of a plan, spread over it; calls that cannot be used are passed over.

    Raises:
        UnreachableError: a label cannot be reached.
    """
    has_label = [pc.is_valid(manifest[name]) for name in ("label_container", "label") if name in manifest.column_names]
    usable = manifest.filter(pc.and_(pc.is_null(manifest["reason"]), functools.reduce(pc.or_, has_label)))
    step = max(1, len(usable) // num_calls)
    texts = []
    for call in usable.take(pa.array(range(0, len(usable), step)[:num_calls], pa.int64())).to_pylist():
        try:
            texts.append(join_transcript(read_label(call, data).utterances, data.speakers, data.text_rules))
        except Reject:
            continue
    return [text for text in texts if text]
