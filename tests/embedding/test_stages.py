import io
import json
import struct
import subprocess
import sys
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import AudioEncoderConfig, DataConfig, TextEncoderConfig
from urgency_ray.embedding.rows import Passed
from urgency_ray.embedding.stages import EncodeAudio, EncodeText, decode_calls
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import ACOUSTIC_FEATURES

MADE_HERE = Fingerprint(audio_encoder={"name": "a"}, text_encoder={"name": "t"}, code_version="0")


SPEAKERS = (0, 1, 1, 1, 1)
SPANS = ((0, 900), (1000, 2000), (2000, 2300), (2500, 9000), (2000, 1000))
TEXTS = ("119입니다", "불이 났어요", "네", "***[개인정보]", "빨리요")


@pytest.fixture
def call(tmp_path: Path) -> Any:
    samples = (8000 * np.sin(2 * np.pi * 300 * np.arange(3 * 8000) / 8000)).astype("<i2")
    sound = io.BytesIO()
    with wave.open(sound, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    (tmp_path / "a_1.wav").write_bytes(sound.getvalue())
    label = {
        "_id": "a",
        "urgencyLevel": "상",
        "sentiment": "불안/걱정",
        "disasterLarge": "화재",
        "disasterMedium": "일반화재",
        "endAt": None,
        "utterances": [
            {"id": f"u{i}", "startAt": start, "endAt": end, "text": text, "speaker": speaker}
            for i, ((start, end), text, speaker) in enumerate(zip(SPANS, TEXTS, SPEAKERS, strict=True))
        ],
    }
    (tmp_path / "a_1.json").write_text(json.dumps(label, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "b_2.wav").write_bytes(b"")
    (tmp_path / "b_2.json").write_text(json.dumps(label), encoding="utf-8")
    return DataConfig(root=str(tmp_path))


def decode(data: Any, **changes: Any) -> Any:
    data = DataConfig(**{**data.model_dump(), **changes})
    return decode_calls(plan_calls(data), data).to_pylist()


def test_a_call_is_one_row_with_all_its_words(call: Any) -> None:
    good, bad = decode(call)
    assert good["example_id"] == good["call_id"] == "a_1"
    assert good["text"] == "119입니다 불이 났어요 네 빨리요"
    assert (good["urgency"], good["sentiment"], good["disaster_medium"]) == (2, "불안/걱정", "일반화재")
    assert (good["start_ms"], good["end_ms"], good["duration_sec"]) == (0, 3000, 3.0)
    assert len(np.frombuffer(good["waveform"], np.float32)) == 48000
    assert (bad["call_id"], bad["status"], bad["reason"], bad["waveform"]) == ("b_2", "rejected", "empty_audio", b"")


def test_the_caller_s_words_alone(call: Any) -> None:
    assert decode(call, speakers="caller")[0]["text"] == "불이 났어요 네 빨리요"


def test_utterances_are_rows_cut_from_one_decoded_call(call: Any) -> None:
    *rows, bad = decode(call, unit="utterance")
    assert [row["utterance_id"] for row in rows] == ["u0", "u1", "u2", "u4", "u3"]  # by their starts
    assert [row["reason"] for row in rows] == [None, None, "too_short", "invalid_span", "no_text"]
    assert bad["reason"] == "empty_audio"
    heard = rows[1]
    assert (heard["start_ms"], heard["end_ms"], heard["duration_sec"], heard["speaker"]) == (1000, 2000, 1.0, 1)
    assert len({row["example_id"] for row in rows}) == 5
    assert {row["urgency"] for row in rows} == {2}
    assert len({row["audio_sha256"] for row in rows}) == 1


def test_an_utterance_of_zeros_is_silent(call: Any, tmp_path: Path) -> None:
    content = bytearray((tmp_path / "a_1.wav").read_bytes())
    content[44 + 16_000 : 44 + 32_000] = bytes(16_000)  # the second of three, and the resampler's reach on both sides is not
    (tmp_path / "a_1.wav").write_bytes(content)
    label = json.loads((tmp_path / "a_1.json").read_text(encoding="utf-8"))
    label["utterances"][1] |= {"startAt": 1200, "endAt": 1800}
    (tmp_path / "a_1.json").write_text(json.dumps(label), encoding="utf-8")
    rows = decode(call, unit="utterance")
    assert [row["reason"] for row in rows[:2]] == [None, "silent_audio"]


def test_an_utterance_that_outlasts_the_audio_is_cut_at_its_end(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "a_1.json"
    label = json.loads(path.read_text(encoding="utf-8"))
    label["utterances"][3]["text"] = "연기가 많아요"
    path.write_text(json.dumps(label), encoding="utf-8")
    row = decode(call, unit="utterance")[4]
    assert (row["status"], row["start_ms"], row["end_ms"], row["duration_sec"]) == ("embedded", 2500, 3000, 0.5)


def change_turns(tmp_path: Path, *turns: Any) -> None:
    path = tmp_path / "a_1.json"
    label = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(label | {"utterances": turns}), encoding="utf-8")


def test_a_call_needs_words_alone_and_an_utterance_its_span(call: Any, tmp_path: Path) -> None:
    change_turns(tmp_path, {"text": "불이 났어요"}, {"text": None}, {"text": "빨리요", "startAt": 0, "endAt": 900})
    assert decode(call)[0]["text"] == "불이 났어요 빨리요"
    rows = decode(call, unit="utterance")[:3]
    assert [row["reason"] for row in rows] == ["invalid_span", "invalid_span", None]
    assert "startAt or endAt" in rows[0]["detail"]


def test_an_utterance_that_starts_before_the_audio_is_cut_at_its_start(call: Any, tmp_path: Path) -> None:
    change_turns(tmp_path, {"text": "불이 났어요", "startAt": -400, "endAt": 700}, {"text": "네", "startAt": -400, "endAt": -1})
    early, before = decode(call, unit="utterance")[:2]
    assert (early["status"], early["start_ms"], early["end_ms"], early["duration_sec"]) == (
        "embedded",
        0,
        700,
        pytest.approx(0.7),
    )
    assert before["reason"] == "invalid_span"


@pytest.mark.parametrize("text", ["***[개인정보]", "(웃음)", ". . ?", "b/ n/", ""])
def test_signs_and_marks_alone_are_no_text(call: Any, tmp_path: Path, text: str) -> None:
    change_turns(tmp_path, {"text": text, "startAt": 0, "endAt": 900}, {"text": "?", "startAt": 900, "endAt": 1900})
    assert decode(call)[0]["reason"] == "no_text"
    assert [row["reason"] for row in decode(call, unit="utterance")[:2]] == ["no_text", "no_text"]


def test_without_words_a_call_is_kept_where_none_are_required(call: Any, tmp_path: Path) -> None:
    change_turns(tmp_path, {"text": "***"})
    (tmp_path / "c_3.wav").write_bytes((tmp_path / "a_1.wav").read_bytes())
    assert [row["reason"] for row in decode(call)] == ["no_text", "empty_audio", "missing_label"]
    wordless = {"require_text": False, "require_urgency": False}
    assert [row["reason"] for row in decode(call, **wordless)] == [None, "empty_audio", None]
    assert [row["text"] for row in decode(call, **wordless)] == ["", None, ""]
    assert decode(call, require_text=False)[2]["reason"] == "missing_label"
    assert decode(call, **wordless, unit="utterance")[-1]["reason"] == "missing_label"
    config = DataConfig(**call.model_dump() | wordless)
    table = EncodeText(TextEncoderConfig(), "cpu", 1, None, print)(
        EncodeAudio(AudioEncoderConfig(), "cpu", 1)(decode_calls(plan_calls(config), config))
    )
    assert table["status"].to_pylist() == ["embedded", "rejected", "embedded"]


def test_a_call_has_a_least_length(call: Any) -> None:
    assert decode(call, min_call_sec=3.0)[0]["status"] == "embedded"
    row = decode(call, min_call_sec=3.1)[0]
    assert (row["reason"], row["detail"]) == ("too_short", "3.000 s; at least 3.1 s")


def test_what_was_decided_of_a_recording_is_said_of_each_row(call: Any, tmp_path: Path) -> None:
    sound = (tmp_path / "a_1.wav").read_bytes()
    (tmp_path / "a_1.wav").write_bytes(sound[:40] + struct.pack("<I", 16_000) + sound[44:])
    said = "the header declares 1.0 s and samples follow: all 3.0 s are read"
    assert (decode(call)[0]["duration_sec"], decode(call)[0]["detail"]) == (3.0, said)
    assert {row["detail"] for row in decode(call, unit="utterance") if row["status"] == "embedded"} == {said}


def test_times_in_seconds_are_noticed(call: Any, tmp_path: Path) -> None:
    change_turns(tmp_path, {"text": "네", "startAt": 0.0, "endAt": 1.2}, {"text": "불이 났어요", "startAt": 1.2, "endAt": 2.9})
    (row, _) = decode(call, unit="utterance")
    assert (row["example_id"], row["reason"]) == ("a_1", "invalid_span")
    assert "seconds" in row["detail"]
    assert decode(call)[0]["status"] == "embedded"


def test_a_label_that_outlasts_its_audio_is_said(call: Any, tmp_path: Path) -> None:
    assert decode(call)[0]["detail"] is None
    change_turns(tmp_path, *({"text": "네", "startAt": 1000 * second, "endAt": 1000 * second + 900} for second in range(6)))
    row = decode(call)[0]
    assert (row["status"], row["detail"]) == ("embedded", "3 of 6 utterances start after the audio ends, at 3.0 s")


def test_only_the_caller_s_utterances_are_rows(call: Any) -> None:
    rows = decode(call, unit="utterance", speakers="caller")
    assert [row["speaker"] for row in rows] == [1, 1, 1, 1, None]


def test_encoding_keeps_rejects_and_gives_the_contract_s_columns(call: Any) -> None:
    sent: list[Any] = []
    table = EncodeAudio(AudioEncoderConfig(), "cpu", 1)(decode_calls(plan_calls(call), call))
    table = EncodeText(TextEncoderConfig(), "cpu", 1, MADE_HERE, sent.append)(table)
    contract = "example_id call_id utterance_id provider_split start_ms end_ms speaker text urgency sentiment disaster_large"
    contract += " disaster_medium region audio_sha256 audio_embedding text_embedding status reason detail"
    assert {*contract.split(), *ACOUSTIC_FEATURES} <= set(table.schema.names)
    assert table.schema.field("audio_embedding").type == pa.list_(pa.float32(), 288)
    assert Fingerprint.of_schema(table.schema) == MADE_HERE
    assert [row is None for row in table["audio_embedding"].to_pylist()] == [False, True]
    assert [row is None for row in table["text_embedding"].to_pylist()] == [False, True]
    assert sent == [Passed(2.0, 3.0, {table["reason"][1].as_py(): 1.0})]


def test_an_embedding_that_is_not_finite_is_a_reject(call: Any, tmp_path: Path) -> None:
    for name in ("c_3", "d_4"):
        for suffix in ("wav", "json"):
            (tmp_path / f"{name}.{suffix}").write_bytes((tmp_path / f"a_1.{suffix}").read_bytes())
    hear, read = EncodeAudio(AudioEncoderConfig(), "cpu", 1), EncodeText(TextEncoderConfig(), "cpu", 1, None, print)
    healthy = read(hear(decode_calls(plan_calls(call), call))).to_pylist()
    overflow(hear, row=1, value=np.inf)
    overflow(read, row=1, value=np.nan)  # of those that the audio encoder left
    rows = read(hear(decode_calls(plan_calls(call), call))).to_pylist()
    assert [row["reason"] for row in rows] == [None, "empty_audio", "invalid_embedding", "invalid_embedding"]
    assert [row["status"] for row in rows] == ["embedded", "rejected", "rejected", "rejected"]
    assert [row["detail"].split()[1] for row in rows[2:]] == ["audio", "text"]
    assert (rows[2]["audio_embedding"], rows[2]["num_windows"]) == (None, None)
    assert [rows[index]["text_embedding"] for index in (2, 3)] == [None, None]
    assert rows[:2] == healthy[:2]


def overflow(stage: Any, row: Any, value: Any) -> None:
    """Let the stage's encoder give one value that is no number, as arithmetic of few bits can."""
    encode = stage.encoder.encode

    def encode_badly(inputs: Any) -> Any:
        encoded = encode(inputs)
        encoded.vectors[row, 5] = value
        return encoded

    stage.encoder.encode = encode_badly


MEASURE = """
import re, sys
from pathlib import Path
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.embedding.stages import decode_calls

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

data = DataConfig(root=sys.argv[1], max_call_sec=60.0)
rows = plan_calls(data)
decode_calls(rows.filter([call == "a_1" for call in rows["call_id"].to_pylist()]), data)  # what any call costs
before = peak_kib()
for row in decode_calls(rows, data).to_pylist():
    print(row["call_id"], row["reason"])
print("MiB", (peak_kib() - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
def test_hostile_files_are_rejected_in_little_memory(call: Any, tmp_path: Path) -> None:
    sound, label = ((tmp_path / f"a_1.{suffix}").read_bytes() for suffix in ("wav", "json"))
    streamed = sound[:40] + b"\xff\xff\xff\xff" + sound[44:]
    bomb = sound[:40] + struct.pack("<I", 100 << 20) + bytes(100 << 20)
    with zipfile.ZipFile(tmp_path / "bombs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.wav", bomb)
        archive.writestr("../above.wav", sound)
        archive.writestr("liar.wav", bomb)
    content = bytearray((tmp_path / "bombs.zip").read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 1000)  # the size that the directory promises
    (tmp_path / "bombs.zip").write_bytes(content)
    files = {
        "huge_data": sound[:40] + b"\xf0\xff\xfe\x7f" + sound[44:],
        "huge_rate": sound[:24] + b"\xff\xff\xff\xff" + sound[28:],
        "no_rate": sound[:24] + bytes(4) + sound[28:],
        "wide": streamed[:22] + struct.pack("<HIIHH", 16, 384_000, 384_000 * 32, 32, 16) + streamed[36:],
        "many_channels": sound[:22] + b"\xff\xff" + sound[24:],
        "streamed": streamed,
    }
    for stem, wav in files.items():
        (tmp_path / f"{stem}.wav").write_bytes(wav)
    for stem in ("bomb", "above", "liar", *files):
        (tmp_path / f"{stem}.json").write_bytes(label)
    (tmp_path / "wrong_types.wav").write_bytes(sound)
    (tmp_path / "wrong_types.json").write_text('{"utterances": [{"startAt": [], "endAt": {}, "text": 5}]}', encoding="utf-8")
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    *lines, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert dict(line.split() for line in lines) == {
        "a_1": "None",
        "b_2": "empty_audio",
        "above": "None",
        "bomb": "file_too_large",
        "liar": "unreadable_file",
        "huge_data": "truncated_audio",
        "huge_rate": "not_audio",
        "no_rate": "not_audio",
        "wide": "too_short",
        "many_channels": "not_audio",
        "streamed": "None",
        "wrong_types": "invalid_label",
    }
    assert int(memory.split()[1]) < 64


def test_a_batch_of_rejects_alone_passes(call: Any) -> None:
    rejects = decode_calls(plan_calls(call).slice(1), call)
    table = EncodeText(TextEncoderConfig(), "cpu", 1, None, print)(EncodeAudio(AudioEncoderConfig(), "cpu", 1)(rejects))
    assert table["status"].to_pylist() == ["rejected"]
