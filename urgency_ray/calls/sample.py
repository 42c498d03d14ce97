"""A few transcripts of a plan, to look at before the work."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.calls.files import read_file
from urgency_ray.calls.label import MAX_LABEL_BYTES, parse_label
from urgency_ray.calls.transcript import join_transcript
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reject


def sample_transcripts(manifest: pa.Table, data: DataConfig, num_calls: int) -> list[str]:
    """The transcripts of at most `num_calls` calls of a plan, spread over it; calls that cannot be used are passed over.

    Raises:
        UnreachableError: a label cannot be reached.
    """
    usable = manifest.filter(pc.and_(pc.is_null(manifest["reason"]), pc.is_valid(manifest["label_container"])))
    step = max(1, len(usable) // num_calls)
    texts = []
    for call in usable.take(pa.array(range(0, len(usable), step)[:num_calls], pa.int64())).to_pylist():
        try:
            content = read_file(call["label_container"], call["label_member"], MAX_LABEL_BYTES)
            texts.append(join_transcript(parse_label(content, data.require_urgency).utterances, data.speakers))
        except Reject:
            continue
    return [text for text in texts if text]
