"""The stages that `pipeline` strings together but for `transcription`, each a function of an Arrow table. They know no Ray.

A call that cannot be used flows on as a row with `status=rejected`, a reason and a detail; an exception here is a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from urgency_ray.calls.audio import Heard, acoustic_features, cut, cut_call
from urgency_ray.calls.channels import is_silent
from urgency_ray.calls.label import Label, Utterance
from urgency_ray.calls.planned import read_label
from urgency_ray.calls.transcript import clean, has_words, join_transcript, wanted_utterances
from urgency_ray.config import AudioEncoderConfig, DataConfig, TextEncoderConfig
from urgency_ray.embedding.recordings import Recording, Recordings, decode_recording
from urgency_ray.embedding.rows import count_passed, embedded_rows, finite_rows, reject_rows, scatter_counts, scatter_vectors
from urgency_ray.encoders.base import SAMPLE_RATE_HZ, AudioEmbeddings, TextEmbeddings
from urgency_ray.encoders.load import is_built_in, load_audio_encoder, load_text_encoder
from urgency_ray.errors import Reason, Reject
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import OUTCOME_FIELDS, ROW_FIELDS, WORD_ERROR_FIELDS, Status, TextSource, embedding_schema

Row = dict[str, Any]
"""A row of a table, or what is known of one so far: values by column."""

Transcribes = Literal["never", "missing", "always"]

DECODED_SCHEMA = pa.schema([*ROW_FIELDS, *WORD_ERROR_FIELDS, pa.field("waveform", pa.large_binary()), *OUTCOME_FIELDS])
"""Between decoding and the audio encoder; `waveform` is float32 samples at 16 kHz, as bytes that cross Arrow uncopied."""


def decode_calls(manifest: pa.Table, data: DataConfig, transcribes: Transcribes = "never") -> pa.Table:
    """Read, check and decode calls: manifest rows to rows of `DECODED_SCHEMA`.

    Args:
        manifest: rows of `MANIFEST_SCHEMA` or `LISTED_SCHEMA`.
        data: as `Config.reading` has it.
        transcribes: see `TranscriberConfig.used_for`.
    """
    recordings = Recordings(data)
    calls = [_decode_call(call, data, recordings) for call in manifest.to_pylist()]
    rows = [row | {"num_call_rows": len(call)} for call in calls for row in call]
    return to_decoded(rows, transcribes)


def to_decoded(rows: Sequence[Row], transcribes: Transcribes) -> pa.Table:
    """Rows as a table of `DECODED_SCHEMA`, which says of each where its words come from, or shall come from."""
    return pa.Table.from_pylist([row | {"text_source": _source(row, transcribes)} for row in rows], schema=DECODED_SCHEMA)


def _source(row: Row, transcribes: Transcribes) -> TextSource | None:
    if row["status"] != Status.EMBEDDED:
        return None
    is_said = has_words(row["text"])
    if transcribes == "always" or (transcribes == "missing" and not is_said):
        return TextSource.TRANSCRIBER
    return TextSource.LABEL if is_said else None


def _decode_call(call: Row, data: DataConfig, recordings: Recordings) -> list[Row]:
    row = {key: call[key] for key in ("call_id", "provider_split", "region")}
    row |= {"example_id": call["call_id"], "source_version": call["version"]}
    row |= {key: call.get(key) for key in ("speaker_id", "group_id")}
    try:
        if call["reason"] is not None:
            raise Reject(Reason(call["reason"]), call["detail"] or "")
        label = read_label(call, data)
        row |= _labelled(label)
        recording = recordings.decode(call, label)
    except Reject as reject:
        return [rejected(row, reject)]
    return _to_rows(recording, row, label, data, span_ms=(call.get("start_ms") or 0, call.get("end_ms")))


def _labelled(label: Label) -> Row:
    return {name: getattr(label, name) for name in ("urgency", "sentiment", "disaster_large", "disaster_medium")}


def decode_content(content: bytes, name: str, row: Row, label: Label, data: DataConfig) -> list[Row]:
    """The rows of a call, but for `num_call_rows`: one, or one an utterance.

    Args:
        content: the whole recording.
        name: its file's name, whose suffix says of headerless samples what they are.
        row: what is known of the call.
        label: who says what, and when.
        data: what makes a row.
    """
    try:
        recording = decode_recording(content, name, label, data)
    except Reject as reject:
        return [rejected(row, reject)]
    return _to_rows(recording, row, label, data, span_ms=(0, None))


def _to_rows(recording: Recording, row: Row, label: Label, data: DataConfig, *, span_ms: tuple[int, int | None]) -> list[Row]:
    """The rows of a call, which is `span_ms` of the recording; None is its end."""
    heard = recording.heard
    try:
        heard = heard._replace(waveform=cut_call(heard.waveform, SAMPLE_RATE_HZ, *span_ms))
        row = row | {"audio_sha256": recording.sha256}
        return [_call_row(row, label, heard, data)] if data.unit == "call" else _utterance_rows(row, label, heard, data)
    except Reject as reject:
        return [rejected(row, reject)]


def rejected(row: Row, reject: Reject) -> Row:
    """The row of a call or an utterance that cannot be used; `row` is what is known of it."""
    return row | {"waveform": b"", "status": Status.REJECTED, "reason": reject.reason, "detail": reject.detail}


def _heard(row: Row, text: str, start_ms: int, waveform: NDArray[np.float32], data: DataConfig) -> Row:
    if data.require_text and not has_words(text):
        raise Reject(Reason.NO_TEXT, "no words left in the transcript")
    if is_silent(waveform):
        raise Reject(Reason.SILENT_AUDIO, "every sample is zero, or the same")
    features = acoustic_features(waveform, SAMPLE_RATE_HZ)
    span = {"start_ms": start_ms, "end_ms": start_ms + round(1000 * len(waveform) / SAMPLE_RATE_HZ)}
    return row | span | features | {"text": text, "waveform": waveform.tobytes(), "status": Status.EMBEDDED}


def _call_row(row: Row, label: Label, heard: Heard, data: DataConfig) -> Row:
    text, duration_sec = join_transcript(label.utterances, data.speakers, data.text_rules), len(heard.waveform) / SAMPLE_RATE_HZ
    if duration_sec < data.min_call_sec:
        raise Reject(Reason.TOO_SHORT, f"{duration_sec:.3f} s; at least {data.min_call_sec:g} s")
    row = _heard(row, text, 0, heard.waveform, data)
    notes = filter(None, (heard.note, _describe_late(label.utterances, duration_sec)))
    return row | {"detail": "; ".join(notes) or None}


def _describe_late(utterances: Sequence[Utterance], duration_sec: float) -> str | None:
    """That a label is of a longer call than the audio, where more than a tenth of its utterances say so."""
    starts = [utterance.start_ms for utterance in utterances if utterance.start_ms is not None]
    late = sum(start >= 1000 * duration_sec for start in starts)
    if late * 10 <= len(starts):
        return None
    return f"{late} of {len(starts)} utterances start after the audio ends, at {duration_sec:.1f} s"


def _utterance_rows(call: Row, label: Label, heard: Heard, data: DataConfig) -> list[Row]:
    wanted = wanted_utterances(label.utterances, data.speakers)
    if not wanted:
        raise Reject(Reason.NO_TEXT, "no utterances of the wanted speakers")
    _refuse_seconds(wanted, len(heard.waveform) / SAMPLE_RATE_HZ)
    call = call | {"detail": heard.note}
    return [_utterance_row(call, position, utterance, heard.waveform, data) for position, utterance in enumerate(wanted)]


def _refuse_seconds(utterances: Sequence[Utterance], duration_sec: float) -> None:
    """Reject times that span the call as seconds, and a hundredth of it at most as the milliseconds that they should be."""
    end = max((utterance.end_ms for utterance in utterances if utterance.end_ms is not None), default=0)
    if 0.1 * duration_sec < end <= 1.5 * duration_sec + 1:
        raise Reject(
            Reason.INVALID_SPAN, f"the last endAt is {end}, of {duration_sec:.1f} s: seconds, where milliseconds are read"
        )


def _utterance_row(call: Row, position: int, utterance: Utterance, waveform: NDArray[np.float32], data: DataConfig) -> Row:
    # Utterance ids repeat now and then within a call: the position keeps example ids unique.
    example_id = f"{call['call_id']}/{position:04d}"
    row = call | {"example_id": example_id, "utterance_id": utterance.id, "speaker": utterance.speaker}
    start_ms, end_ms = utterance.start_ms, utterance.end_ms
    try:
        if start_ms is None or end_ms is None:
            raise Reject(
                Reason.INVALID_SPAN, "startAt or endAt is no number of milliseconds; with data.unit call none is needed"
            )
        start_ms = max(0, start_ms)
        heard = cut(waveform, SAMPLE_RATE_HZ, start_ms, end_ms, data.min_utterance_sec)
        return _heard(row, clean(utterance.text, data.text_rules), start_ms, heard, data)
    except Reject as reject:
        return rejected(row | {"start_ms": start_ms, "end_ms": end_ms}, reject)


def prepare_process(threads: int) -> None:
    """Set how torch works in this process."""
    # Both settings are of the whole process: an actor's, which has one encoder and no more, or the driver's of an `import`.
    import torch

    from urgency_ray.encoders.cpu import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


class EncodeAudio:
    """Ray Data stage around an AudioEncoder: `waveform` becomes `audio_embedding` and `num_windows`."""

    def __init__(self, config: AudioEncoderConfig, device: str, threads: int) -> None:
        if not is_built_in(config):
            prepare_process(threads)
        self.encoder = load_audio_encoder(config, device)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = embedded_rows(table)
        samples = table["waveform"].combine_chunks()
        waveforms = [np.frombuffer(samples[row].as_buffer(), np.float32) for row in rows]
        encoded = self.encoder.encode(waveforms) if waveforms else AudioEmbeddings.none(self.encoder.dim)
        finite = finite_rows(encoded.vectors)
        table = reject_rows(table.drop_columns(["waveform"]), rows[~finite], "the audio encoder gave NaN or infinite values")
        rows, size = rows[finite], len(table)
        table = table.append_column("audio_embedding", scatter_vectors(rows, encoded.vectors[finite], size, self.encoder.dim))
        return table.append_column("num_windows", scatter_counts(rows, encoded.num_windows[finite], size))


class EncodeText:
    """Ray Data stage around a TextEncoder: adds `text_embedding` and token counts, and gives rows their final schema."""

    def __init__(
        self, config: TextEncoderConfig, device: str, threads: int, fingerprint: Fingerprint | None, send: Callable[[Any], None]
    ) -> None:
        if not is_built_in(config):
            prepare_process(threads)
        self.encoder = load_text_encoder(config, device)
        self.fingerprint = fingerprint
        self.send = send

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = embedded_rows(table)
        texts = table["text"].take(pa.array(rows)).to_pylist()
        encoded = self.encoder.encode(texts) if texts else TextEmbeddings.none(self.encoder.dim)
        finite = finite_rows(encoded.vectors)
        table = reject_rows(table, rows[~finite], "the text encoder gave NaN or infinite values")
        rows, size = rows[finite], len(table)
        table = table.append_column("text_embedding", scatter_vectors(rows, encoded.vectors[finite], size, self.encoder.dim))
        table = table.append_column("num_tokens", scatter_counts(rows, encoded.num_tokens[finite], size))
        table = table.append_column("num_tokens_dropped", scatter_counts(rows, encoded.num_tokens_dropped[finite], size))
        table = table.append_column("num_text_windows", scatter_counts(rows, encoded.num_windows[finite], size))
        audio_dim = table.schema.field("audio_embedding").type.list_size
        made_with = None if self.fingerprint is None else self.fingerprint.model_dump()
        schema = embedding_schema(audio_dim, self.encoder.dim, made_with)
        self.send(count_passed(table))
        return table.select(schema.names).cast(schema)
