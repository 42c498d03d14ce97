"""A saved model in this very process, without Ray: a recording and its words in, the same numbers as `predict` out."""

from __future__ import annotations

import io
import json
import os
import posixpath
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import soundfile

from urgency_ray.calls.files import max_audio_bytes, read_file
from urgency_ray.calls.label import MAX_LABEL_BYTES, NO_LABEL, Label, Utterance, parse_label
from urgency_ray.calls.listed_files import FileFound, Named, look_up, resolve
from urgency_ray.config import Config, DataConfig
from urgency_ray.embedding.stages import EncodeAudio, EncodeText, Row, decode_content, rejected, to_decoded
from urgency_ray.embedding.transcription import Transcribe
from urgency_ray.encoders.probe import blamed, prove_audio_encoder, prove_text_encoder, prove_transcriber
from urgency_ray.errors import Reason, Reject, RequestError
from urgency_ray.model.load import Model, load_model
from urgency_ray.prediction.by_call import HEARD_FIELDS, classify_calls
from urgency_ray.prediction.by_row import Classify
from urgency_ray.prediction.prepare import adopt_transform
from urgency_ray.schema import CALLER, URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.secret import refuse_secret

_FIELDS = ("audio", "sampling_rate", "text", "utterances", "label")


@dataclass(frozen=True)
class Prediction:
    """What a model says of a call, or of one of its utterances.

    Attributes:
        urgency: the most probable of 하, 중, 상; None where there is no prediction.
        probabilities: of each of the three, calibrated; empty where there is no prediction.
        reason, detail: why there is none.
        utterance_id, start_ms, end_ms: of an utterance; None of a call.
        attention: of a hierarchical model, its utterances in their order: `utterance_id`, `start_ms`, `end_ms`, `speaker` and
            `weight`, which sum to 1.
    """

    urgency: str | None
    probabilities: dict[str, float]
    reason: str | None = None
    detail: str | None = None
    utterance_id: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    attention: tuple[dict[str, Any], ...] = ()

    @property
    def heaviest(self) -> dict[str, Any] | None:
        """The utterance that weighed most; None where the model weighs none."""
        return max(self.attention, key=lambda utterance: float(utterance["weight"]), default=None)


class UrgencyPipeline:
    """A model, its encoders and its transcriber, loaded once; safe to call from several threads, which take turns.

    Args:
        model: as `load_model` gives it.
        config: how its embeddings are made, as `adopt_transform` gives it.
        device: torch device of the encoders.

    Raises:
        RequestError: an encoder, or the transcriber, cannot be loaded, or its vectors say nothing.
    """

    def __init__(self, model: Model, config: Config, device: str = "cpu") -> None:
        import torch

        self.model, self.config = model, config
        threads = torch.get_num_threads()
        self._transcribe: Callable[[pa.Table], pa.Table] = _as_it_is
        if config.transcriber.is_used:
            with blamed(config.transcriber):
                self._transcribe = transcribe = Transcribe(config.transcriber, config.data.require_text, device, threads)
            prove_transcriber(config.transcriber, transcribe.transcriber)
        with blamed(config.audio_encoder):
            self._encode_audio = EncodeAudio(config.audio_encoder, device, threads)
        prove_audio_encoder(config.audio_encoder, self._encode_audio.encoder)
        with blamed(config.text_encoder):
            self._encode_text = EncodeText(config.text_encoder, device, threads, None, lambda _: None)
        prove_text_encoder(config.text_encoder, self._encode_text.encoder)
        self._classify = Classify(model, lambda _: None)
        self._turn = threading.Lock()

    @classmethod
    def from_pretrained(cls, model: str, *, device: str | None = None, **overrides: Any) -> Self:
        """Load a model folder and, once, the encoders, and transcriber, that made what it was trained on.

        Args:
            model: model folder of a run: a local path or a URI.
            device: of the encoders; None is `cuda` where there is one.
            overrides: config fields, as `predict` takes them: `**{"text_encoder.name": "/models/koelectra"}` where weights lie
                elsewhere than in training, `**{"transcriber.name": "kresnik/wav2vec2-large-xlsr-korean"}` where calls come
                without words.

        Raises:
            RequestError: no model there, or a transform that cannot be repeated here.
        """
        import torch

        loaded = load_model(model)
        config = adopt_transform(loaded, Config().replace(overrides))
        return cls(loaded, config, device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def __call__(self, calls: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
        """Classify a call, or several in one batch.

        Args:
            calls: each has `audio`: a path or URI, which may go on into an archive as a manifest's do, the bytes of a file, or
                samples (T,) or (T, channels) in -1 to 1 with their `sampling_rate` in Hz; and what was said, unless the model
                is of audio alone, or has a transcriber: `text` (the wanted speakers' words), `utterances` (dicts as in AI-Hub's
                JSON: text, speaker, startAt, endAt) or `label` (the path of such a JSON).

        Returns:
            A `Prediction` for each call; of a model of utterances, a list of them for each call. One alone comes alone.

        Raises:
            RequestError: a call has other keys, or values that are of no use. A recording that cannot be used is no error, but
                a prediction with a reason, as in `predict`.
        """
        if isinstance(calls, Mapping):
            return self._predict([calls])[0]
        return self._predict(calls) if calls else []

    def _predict(self, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
        data, members = self.config.reading, _find_members(calls)
        decoded = [_decode(f"{number:09d}", call, data, members) for number, call in enumerate(calls)]
        rows = [row | {"num_call_rows": len(call)} for call in decoded for row in call]
        table = to_decoded(rows, self.config.transcriber.used_for)
        with self._turn:
            embedded = self._encode_text(self._encode_audio(self._transcribe(table)))
            if self.model.takes_calls:
                return [_to_prediction(row) for row in classify_calls(self.model, embedded).to_pylist()]
            said = iter(self._classify(embedded).to_pylist())
        found = [[_to_prediction(next(said), row) for row in call] for call in decoded]
        return found if self.config.data.unit == "utterance" else [call[0] for call in found]


def _as_it_is(table: pa.Table) -> pa.Table:
    return table


def _find_members(calls: Sequence[Mapping[str, Any]]) -> dict[Named, FileFound]:
    """Where the files are that calls name in archives; each archive is listed once."""
    for call in calls:
        if unknown := sorted(set(call) - set(_FIELDS)):
            raise RequestError(f"{unknown[0]}: no such key of a call; it takes {', '.join(_FIELDS)}")
        for key in ("audio", "label"):
            if isinstance(call.get(key), str):
                refuse_secret(call[key], key)
    paths = (call[key] for call in calls for key in ("audio", "label") if isinstance(call.get(key), str | os.PathLike))
    return look_up(named for named in map(_resolve, paths) if named.member is not None)


def _resolve(path: str | os.PathLike[str]) -> Named:
    return resolve(str(Path.cwd()), os.fspath(path))


def _read(path: str | os.PathLike[str], members: Mapping[Named, FileFound], limit: int, missing: Reason) -> bytes:
    """A file that a call names; `missing` is why it is not read where an archive lacks it."""
    found = members.get(_resolve(path))
    if found is None:
        return read_file(os.fspath(path), None, limit)
    if found.fault:
        raise Reject(found.reason or missing, found.fault)
    return read_file(found.location, found.member, limit)


def _decode(call_id: str, call: Mapping[str, Any], data: DataConfig, members: Mapping[Named, FileFound]) -> list[Row]:
    row = {"call_id": call_id, "example_id": call_id, "provider_split": "unknown", "source_version": ""}
    try:
        label = _read_label(call, data, members)
        content, name = _read_audio(call, data, members)
    except Reject as reject:
        return [rejected(row, reject)]
    return decode_content(content, name, row, label, data)


def _read_label(call: Mapping[str, Any], data: DataConfig, members: Mapping[Named, FileFound]) -> Label:
    given = [key for key in ("text", "utterances", "label") if call.get(key) is not None]
    if len(given) > 1:
        raise RequestError(f"{given[0]} and {given[1]}: give one of them")
    if not given:
        if data.require_text or data.unit == "utterance":
            raise RequestError("text, utterances or label: the model reads what was said: give one of them")
        return NO_LABEL
    (key,) = given
    if key == "text":
        if data.unit == "utterance":
            raise RequestError("text: the model hears utterances: give utterances, with startAt and endAt, or a label")
        return Label((Utterance("0", None, None, str(call["text"]), CALLER),), None, None, None, None)
    if key == "utterances":
        content = json.dumps({"utterances": list(call["utterances"])}, ensure_ascii=False).encode()
    else:
        content = _read(call["label"], members, MAX_LABEL_BYTES, Reason.MISSING_LABEL)
    return parse_label(content, require_urgency=False, require_text=data.require_text)


def _read_audio(call: Mapping[str, Any], data: DataConfig, members: Mapping[Named, FileFound]) -> tuple[bytes, str]:
    """The content of a call's recording, and its name."""
    audio = call.get("audio")
    if isinstance(audio, bytes):
        return audio, "audio"
    if isinstance(audio, str | os.PathLike):
        content = _read(audio, members, max_audio_bytes(data), Reason.MISSING_AUDIO)
        return content, posixpath.basename(_resolve(audio).name)
    samples = np.asarray(audio)
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise RequestError("audio: must be a path, the bytes of a file, or floating samples (T,) or (T, channels)")
    if not isinstance(call.get("sampling_rate"), int):
        raise RequestError("sampling_rate: must be given with samples, in Hz")
    sink = io.BytesIO()
    soundfile.write(sink, samples.astype(np.float32), call["sampling_rate"], format="WAV", subtype="FLOAT")
    return sink.getvalue(), "audio.wav"


def _to_prediction(row: Mapping[str, Any], heard: Mapping[str, Any] | None = None) -> Prediction:
    """That of a row of `predict`'s output; `heard` is the row that it was made of, where that is an utterance's."""
    label, heard = row["urgency_pred"], heard if heard is not None and heard.get("utterance_id") is not None else {}
    probabilities = {name: row[f"prob_{key}"] for name, key in zip(URGENCY_LABELS, URGENCY_KEYS, strict=True)}
    attention = row.get("attention") or ()
    return Prediction(
        urgency=None if label is None else URGENCY_LABELS[label],
        probabilities={} if label is None else probabilities,
        reason=row["reason"],
        detail=row["detail"],
        utterance_id=heard.get("utterance_id"),
        start_ms=heard.get("start_ms"),
        end_ms=heard.get("end_ms"),
        attention=tuple({field.name: utterance[field.name] for field in HEARD_FIELDS} for utterance in attention),
    )
