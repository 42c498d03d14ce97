"""Recordings that are no WAV go through plan and decoding as WAVs do."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from urgency_ray.calls.formats import AUDIO_SUFFIXES, format_of
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.embedding.stages import decode_calls

SAMPLES = 0.3 * np.sin(2 * np.pi * 300 * np.arange(8000) / 8000)
LABEL = json.dumps({"utterances": [{"text": "불이 났어요"}], "urgencyLevel": "상"})


def write(folder: Path, name: str, container: str, samples: np.ndarray = SAMPLES) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, samples, 8000, format=container, subtype="PCM_16" if container in ("WAV", "RAW") else None)
    (folder / name).write_bytes(sound.getvalue())
    (folder / name).with_suffix(".json").write_text(LABEL, encoding="utf-8")


def decoded(folder: Path, **changes: Any) -> dict[str, Any]:
    data = DataConfig(root=str(folder), **changes)
    return {row["call_id"]: row for row in decode_calls(plan_calls(data), data).to_pylist()}


def test_each_format_is_a_call_by_its_suffix_in_any_case(tmp_path: Path) -> None:
    containers = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".au": "AU", ".w64": "W64"}
    for number, (suffix, container) in enumerate(containers.items()):
        write(tmp_path, f"a{number}{suffix}", container)
        write(tmp_path, f"b{number}{suffix.upper()}", container)
    write(tmp_path, "c.wave", "WAV")
    rows = decoded(tmp_path)
    assert {row["reason"] for row in rows.values()} == {None}
    assert len(rows) == 2 * len(containers) + 1
    assert all(row["duration_sec"] == pytest.approx(1.0, abs=0.1) for row in rows.values())


def test_samples_without_a_header_want_their_rate(tmp_path: Path) -> None:
    write(tmp_path, "a.pcm", "RAW")
    assert decoded(tmp_path)["a"]["detail"] == "a.pcm: has no header; set data.pcm_rate_hz to its sample rate"
    assert decoded(tmp_path, pcm_rate_hz=8000)["a"]["duration_sec"] == 1.0


def test_what_is_not_read_is_a_call_that_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, "a.m4a", "FLAC")  # whatever its name says
    write(tmp_path, "b.m4a", "WAV")
    write(tmp_path, "c.wav", "WAV")
    for name in ("b.m4a", "c.wav"):
        (tmp_path / name).write_bytes(b"\0\0\0 ftypM4A " + bytes(1000))
    rows = decoded(tmp_path)
    assert rows["a"]["status"] == "embedded"
    assert (rows["b"]["reason"], rows["b"]["detail"]) == (
        "not_audio",
        "b.m4a: MPEG-4 (M4A) is not read; convert it: ffmpeg -i b.m4a b.wav",
    )
    assert rows["c"]["detail"].endswith("ffmpeg -i c.wav c.converted.wav"), "nobody is told to write over the file"


def test_of_copies_in_several_formats_the_wav_is_the_call(tmp_path: Path) -> None:
    for name, container in (("a.flac", "FLAC"), ("a.mp3", "MP3"), ("a.wav", "WAV")):
        write(tmp_path, name, container)
    (call,) = plan_calls(DataConfig(root=str(tmp_path))).to_pylist()
    assert call["audio_container"].endswith("a.wav")
    (tmp_path / "a.wav").unlink()
    (call,) = plan_calls(DataConfig(root=str(tmp_path))).to_pylist()
    assert call["audio_container"].endswith("a.flac")


def test_suffixes_are_each_there_once_and_wav_is_first() -> None:
    assert len(set(AUDIO_SUFFIXES)) == len(AUDIO_SUFFIXES)
    assert AUDIO_SUFFIXES[0] == ".wav"


@pytest.mark.parametrize("content", [b"", b"\xff", b"\xff\xf1\x50", b"RIF", b"{}", b"PK\x03\x04"])
def test_what_is_no_recording_is_none(content: bytes) -> None:
    assert format_of(content, 0) is None
