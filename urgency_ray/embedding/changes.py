"""Whether calls whose files changed still say what they said: digests of what decoding makes of them. No encoder, no Ray.

A modification time alone says little: a copy, a sync or a touch changes it and not a byte. An embedding is a function of a
row's waveform and text, so a call whose rows are the same before the encoders need not be embedded again; where a transcriber
writes the text down, that is a function of the waveform, too.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa

from urgency_ray.config import DataConfig
from urgency_ray.embedding.stages import Transcribes, decode_calls
from urgency_ray.schema import ROW_FIELDS, TextSource

PLANNED_COLUMNS = ("source_version", "provider_split", "region")
"""Columns of a row that the plan alone says."""
COMPARED_COLUMNS = [*(field.name for field in ROW_FIELDS if field.name not in PLANNED_COLUMNS), "reason", "detail"]
_DIGEST_BYTES = 8


def digest_calls(manifest: pa.Table, data: DataConfig, transcribes: Transcribes) -> pa.Table:
    """Read and decode calls as `decode_calls` does: manifest rows to what `digest_rows` gives."""
    return digest_rows(decode_calls(manifest, data, transcribes))


def digest_rows(rows: pa.Table) -> pa.Table:
    """Columns `call_id` and `digest` (uint64), a row a call.

    Args:
        rows: has `COMPARED_COLUMNS`, in any order; of a call's rows in several tables, `sum_digests` adds up what they give.
    """
    digests = pa.array([_digest(row) for row in rows.select(COMPARED_COLUMNS).to_pylist()], pa.uint64())
    return sum_digests(pa.table({"call_id": rows["call_id"], "digest": digests}))


def sum_digests(table: pa.Table) -> pa.Table:
    """The digests of each call added up; whatever the order of its rows, their sum, which wraps around, is the same."""
    summed = table.group_by("call_id").aggregate([("digest", "sum")])
    return summed.select(["call_id", "digest_sum"]).rename_columns(["call_id", "digest"])


def _digest(row: dict[str, Any]) -> int:
    if row.pop("text_source") == TextSource.TRANSCRIBER:
        row["text"] = None
    # The last bits of the acoustic features are those of a machine's arithmetic; the audio has a digest of its own.
    plain = [f"{value:.4g}" if isinstance(value, float) else value for value in row.values()]
    return int.from_bytes(hashlib.sha256(json.dumps(plain).encode()).digest()[:_DIGEST_BYTES])
