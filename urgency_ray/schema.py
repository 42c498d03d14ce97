"""The contract between extraction and training: column names, Arrow schemas, ordered label names, reject reasons."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import pyarrow as pa

URGENCY_LABELS = ("하", "중", "상")
"""`urgencyLevel` in its natural order: the class index is the position here, never the order of appearance."""
URGENCY_KEYS = ("low", "mid", "high")
"""ASCII names of the urgency classes, in the same order, for column names."""
PROVIDER_SPLITS = ("training", "validation", "test", "unknown")
"""Values of `provider_split`: the provider's own, and what a manifest can name beside them."""
SENTIMENT_LABELS = ("불안/걱정", "당황/난처", "중립", "기타부정")
ACOUSTIC_FEATURES = ("duration_sec", "speech_ratio", "energy_mean", "peak_amp", "peak_to_rms")
DISPATCHER, CALLER = 0, 1
"""Values of `speaker` in a label file."""

METADATA_KEY = b"urgency_ray"
"""Parquet schema metadata key of the transform's fingerprint (JSON)."""


class Status(StrEnum):
    EMBEDDED = "embedded"
    REJECTED = "rejected"


class TextSource(StrEnum):
    """Where the words of a row come from."""

    LABEL = "label"
    TRANSCRIBER = "transcriber"


MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("call_id", pa.string(), nullable=False),
        pa.field("audio_container", pa.string()),
        pa.field("audio_member", pa.string()),
        pa.field("label_container", pa.string()),
        pa.field("label_member", pa.string()),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("provider_split", pa.string(), nullable=False),
        pa.field("region", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""One row a call, as planned before any file is opened.

`*_container` is the path of a zip or tar (then `*_member` is the member's raw name; of an archive inside it, that one's raw
name, a NUL, and the member's) or of the file itself (then `*_member` is null). `reason` is set where the call is rejected.
`num_bytes` is the size of the audio file; `version` changes when a file of the call does (CRC-32 of a zip's member,
modification time and size of a tar's, modification time of a plain file).
"""

LISTED_SCHEMA = pa.schema(
    [
        *MANIFEST_SCHEMA,
        pa.field("label", pa.large_string()),
        pa.field("start_ms", pa.int64()),
        pa.field("end_ms", pa.int64()),
        pa.field("speaker_id", pa.string()),
        pa.field("group_id", pa.string()),
    ]
)
"""The plan of calls that a user's manifest lists: what that says of a call beside its files.

`label` is JSON with the fields of a label file: the whole label, or where there is a label file, what counts in place of its
fields. `start_ms` and `end_ms` are the part of the audio file that is the call; null is its start, or its end. `speaker_id` and
`group_id` name who calls, and whatever else calls have in common: see `split.group_by`. Here `provider_split` can be test, too.
"""

ROW_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field("example_id", pa.string(), nullable=False),
    pa.field("call_id", pa.string(), nullable=False),
    pa.field("utterance_id", pa.string()),
    pa.field("provider_split", pa.string(), nullable=False),
    pa.field("start_ms", pa.int64()),
    pa.field("end_ms", pa.int64()),
    pa.field("speaker", pa.int8()),
    pa.field("text", pa.string()),
    pa.field("urgency", pa.int8()),
    pa.field("sentiment", pa.string()),
    pa.field("disaster_large", pa.string()),
    pa.field("disaster_medium", pa.string()),
    pa.field("region", pa.string()),
    pa.field("audio_sha256", pa.string()),
    *(pa.field(name, pa.float32()) for name in ACOUSTIC_FEATURES),
    pa.field("num_call_rows", pa.int32()),
    pa.field("source_version", pa.string()),
    pa.field("speaker_id", pa.string()),
    pa.field("group_id", pa.string()),
    pa.field("text_source", pa.string()),
)
"""Columns that decoding makes and that need no encoder.

`num_call_rows` counts the rows of the row's call, rejects included; `source_version` is the manifest's `version` of its files;
`speaker_id` and `group_id` are those of a listed call; `text_source` is a `TextSource`, null where there is no text.
"""

OUTCOME_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)

WORD_ERROR_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field("num_letters", pa.int32()),
    pa.field("num_letter_errors", pa.int32()),
    pa.field("num_words", pa.int32()),
    pa.field("num_word_errors", pa.int32()),
)
"""Of a row that was transcribed though its label has words: letters and words of the label, and the transcriber's errors."""

COUNT_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field("num_windows", pa.int32()),
    pa.field("num_tokens", pa.int32()),
    pa.field("num_tokens_dropped", pa.int32()),
    pa.field("num_text_windows", pa.int32()),
    *WORD_ERROR_FIELDS,
)
"""What the models did with a row: windows heard, tokens in the text, tokens not read, windows read, and `WORD_ERROR_FIELDS`."""

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("call_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("urgency", pa.int8()),
        pa.field("urgency_pred", pa.int8()),
        *(pa.field(f"prob_{key}", pa.float32()) for key in URGENCY_KEYS),
    ]
)
"""predictions.parquet of a run folder; `predict` appends reason and detail, since its rejects are rows too."""


def embedding_schema(audio_dim: int, text_dim: int, fingerprint: dict[str, Any] | None = None) -> pa.Schema:
    """Schema of the embeddings parquet: rows, counts, embeddings (fixed_size_list<float32>), status, reason, detail.

    Args:
        audio_dim: width of `audio_embedding`.
        text_dim: width of `text_embedding`.
        fingerprint: what made the embeddings (encoders, revisions, pooling, window, code version), kept as metadata.
    """
    embeddings = (
        pa.field("audio_embedding", pa.list_(pa.float32(), audio_dim)),
        pa.field("text_embedding", pa.list_(pa.float32(), text_dim)),
    )
    metadata = {METADATA_KEY: json.dumps(fingerprint, sort_keys=True).encode()} if fingerprint is not None else None
    return pa.schema([*ROW_FIELDS, *COUNT_FIELDS, *embeddings, *OUTCOME_FIELDS], metadata=metadata)
