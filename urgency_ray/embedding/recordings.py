"""The recordings of calls, read and decoded: one of which several calls are parts once, where these come one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from urgency_ray.calls.audio import Heard, decode_audio
from urgency_ray.calls.channels import Turn
from urgency_ray.calls.files import max_audio_bytes, read_file
from urgency_ray.calls.label import Label
from urgency_ray.config import DataConfig
from urgency_ray.encoders.base import SAMPLE_RATE_HZ
from urgency_ray.schema import CALLER
from urgency_ray.storage import suffix


class Recording(NamedTuple):
    """A decoded file: the SHA-256 of its content, and all that is heard of it at 16 kHz."""

    sha256: str
    heard: Heard


def decode_recording(content: bytes, name: str, label: Label, data: DataConfig, start_ms: int = 0) -> Recording:
    """Decode a file.

    Args:
        content: all of it.
        name: its name, whose suffix says of headerless samples what they are.
        label: who speaks when in the call, by which a channel may be picked.
        data: as `Config.reading` has it.
        start_ms: where in the file the call starts.

    Raises:
        Reject: as `decode_audio` does.
    """
    turns = [
        Turn(start_ms + turn.start_ms, start_ms + turn.end_ms, turn.speaker == CALLER)
        for turn in label.utterances
        if turn.start_ms is not None and turn.end_ms is not None and turn.speaker is not None
    ]
    heard = decode_audio(
        content,
        SAMPLE_RATE_HZ,
        data.max_call_sec,
        name=name,
        channel=data.channel,
        turns=turns,
        pcm_rate_hz=data.pcm_rate_hz,
    )
    return Recording(hashlib.sha256(content).hexdigest(), heard)


class Recordings:
    """Reads and decodes the recordings of planned calls, of which it keeps the last, where that has several."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._place: tuple[str, str | None] | None = None
        self._last: Recording | None = None

    def decode(self, call: Mapping[str, Any], label: Label) -> Recording:
        """The recording of a row of `MANIFEST_SCHEMA` or `LISTED_SCHEMA`.

        Raises:
            Reject: the file cannot be read, or as `decode_audio` does.
        """
        place = call["audio_container"], call["audio_member"]
        start_ms, end_ms = call.get("start_ms"), call.get("end_ms")
        # The caller's channel is each call's own.
        is_part = (start_ms is not None or end_ms is not None) and self._data.channel != "caller"
        if is_part and self._last is not None and place == self._place:
            return self._last
        self._place, self._last = None, None
        content = read_file(*place, max_audio_bytes(self._data))
        name = call["call_id"] + suffix(place[1] or place[0])
        recording = decode_recording(content, name, label, self._data, start_ms or 0)
        if is_part:
            self._place, self._last = place, recording
        return recording
