"""A recording that several calls are parts of: decoded once for them, to what each alone would be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from urgency_ray.calls.files import read_file
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.embedding.stages import decode_calls

RATE_HZ = 8000


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in their order."""
    names: list[str] = []

    def note(container: str, *arguments: Any) -> bytes:
        names.append(Path(container).name)
        return read_file(container, *arguments)

    monkeypatch.setattr("urgency_ray.embedding.recordings.read_file", note)
    return names


def plan(folder: Path, *rows: dict[str, Any], **data: Any) -> tuple[pa.Table, DataConfig]:
    """Calls in `a.wav` and `b.wav`, of 6 s in two channels: a rising tone, and noise."""
    time_sec = np.arange(6 * RATE_HZ) / RATE_HZ
    tone, noise = np.sin(2 * np.pi * (200 + 50 * time_sec) * time_sec), np.random.default_rng(0).standard_normal(6 * RATE_HZ)
    for name, level in (("a.wav", 0.3), ("b.wav", 0.1)):
        soundfile.write(folder / name, level * np.stack([tone, 0.3 * noise], axis=1), RATE_HZ)
    lines = [
        json.dumps({"urgency": "중", "utterances": [{"text": "네", "speaker": 1, "start": 0, "end": 1}]} | row) for row in rows
    ]
    (folder / "calls.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = DataConfig(manifest=str(folder / "calls.jsonl"), **data)
    return plan_calls(config), config


PARTS: list[dict[str, Any]] = [
    {"audio": "a.wav", "id": "1", "offset": 0, "duration": 2},
    {"audio": "a.wav", "id": "2", "offset": 2, "duration": 2.5},
    {"audio": "a.wav", "id": "3", "offset": 4},
    {"audio": "a.wav", "id": "4", "offset": 5, "duration": 9},
    {"audio": "b.wav", "id": "5", "offset": 1, "duration": 2},
    {"audio": "b.wav", "id": "6"},
    {"audio": "a.wav", "id": "7", "offset": 3, "duration": 1},
]


@pytest.mark.parametrize(("channel", "times"), [("mean", "abba"), ("right", "abba"), ("caller", "aaaabba")])
def test_parts_are_what_each_alone_is_and_are_read_once(tmp_path: Path, read: list[str], channel: str, times: str) -> None:
    calls, data = plan(tmp_path, *PARTS, channel=channel)
    together = decode_calls(calls, data)
    assert read == [f"{name}.wav" for name in times]
    assert together.equals(pa.concat_tables(decode_calls(calls.slice(row, 1), data) for row in range(len(calls))))
    rows = together.to_pylist()
    assert [row["duration_sec"] for row in rows] == [2.0, 2.5, 2.0, None, 2.0, 6.0, 1.0]
    assert rows[3]["reason"] == "invalid_span"
    assert len({row["waveform"] for row in rows}) == len(rows)


def test_a_file_that_cannot_be_decoded_is_so_for_each_of_its_parts(tmp_path: Path) -> None:
    calls, data = plan(tmp_path, *PARTS[:3])
    (tmp_path / "a.wav").write_bytes(b"RIFF and no more")
    rows = decode_calls(calls, data).to_pylist()
    assert [row["reason"] for row in rows] == ["not_audio"] * 3
