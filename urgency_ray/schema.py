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
SENTIMENT_LABELS = ("불안/걱정", "당황/난처", "중립", "기타부정")
ACOUSTIC_FEATURES = ("duration_sec", "speech_ratio", "energy_mean", "peak_amp", "peak_to_rms")
DISPATCHER, CALLER = 0, 1
"""Values of `speaker` in a label file."""

METADATA_KEY = b"urgency_ray"
"""Parquet schema metadata key of the transform's fingerprint (JSON)."""


class Status(StrEnum):
    EMBEDDED = "embedded"
    REJECTED = "rejected"


class Reason(StrEnum):
    """Why a call, or an utterance, is not embedded. Each value is what a user reads in extract.json and in the report."""

    MISSING_AUDIO = "missing_audio"  # a label without a WAV of the same stem
    MISSING_LABEL = "missing_label"  # a WAV without a label of the same stem
    DUPLICATE_STEM = "duplicate_stem"  # a second WAV or label of a stem already seen
    UNREADABLE_ARCHIVE = "unreadable_archive"  # not a zip, or its directory is damaged
    UNREADABLE_FILE = "unreadable_file"  # encrypted, damaged, or the read failed
    UNSAFE_NAME = "unsafe_name"  # absolute member name, or one with ".."
    FILE_TOO_LARGE = "file_too_large"  # larger than the longest call could be
    INVALID_JSON = "invalid_json"  # not JSON, or not UTF-8
    INVALID_LABEL = "invalid_label"  # a field missing or of the wrong type
    MISSING_URGENCY = "missing_urgency"  # urgencyLevel absent or null
    UNKNOWN_URGENCY = "unknown_urgency"  # urgencyLevel outside 하, 중, 상
    NO_TEXT = "no_text"  # no words left in the transcript
    NOT_AUDIO = "not_audio"  # not a WAV that libsndfile can decode
    EMPTY_AUDIO = "empty_audio"  # zero bytes, or a header without samples
    TRUNCATED_AUDIO = "truncated_audio"  # the header promises more samples than there are
    TOO_LONG = "too_long"  # longer than data.max_call_sec
    INVALID_SAMPLES = "invalid_samples"  # NaN or infinite samples
    SILENT_AUDIO = "silent_audio"  # every sample is zero
    TOO_SHORT = "too_short"  # an utterance under data.min_utterance_sec once cut at the end of the audio
    INVALID_SPAN = "invalid_span"  # an utterance that ends before it starts, or starts after the audio ends


class Reject(Exception):  # noqa: N818 - not an error of the program: a fact about one input
    """An input that cannot be used. `detail` says more, and never holds words of a transcript or an address."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[Reject], tuple[Reason, str]]:
        return Reject, (self.reason, self.detail)


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

`*_container` is the path of a zip (then `*_member` is the member's raw name) or of the file itself (then `*_member` is null).
`reason` is set where the call is rejected already. `num_bytes` is the size of the audio file; `version` changes when a file of
the call does (CRC-32 of an archive's member, modification time of a plain file).
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
)
"""Columns that decoding makes and that need no encoder; `num_call_rows` counts the rows of the row's call, rejects included."""

OUTCOME_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)

COUNT_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field("num_windows", pa.int32()),
    pa.field("num_tokens", pa.int32()),
    pa.field("num_tokens_dropped", pa.int32()),
    pa.field("num_text_windows", pa.int32()),
)
"""What the encoders did with a row: windows heard, tokens in the text, tokens not read, windows read."""

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


def read_fingerprint(schema: pa.Schema) -> dict[str, Any] | None:
    """The fingerprint kept by `embedding_schema`, or None where the parquet has none."""
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        return None
    value = json.loads(raw)
    assert isinstance(value, dict)
    return value
