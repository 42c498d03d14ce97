"""Labels, recordings, archives and manifests as nobody would write them: one line for each, never a crash or a hang."""

import contextlib
import io
import json
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from call_files import tarred, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from urgency_ray.calls.audio import decode_audio
from urgency_ray.calls.files import read_file
from urgency_ray.calls.label import parse_label
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reject, RequestError

FAST_SEC, NIGHTLY_SEC = 0.0, 150.0
"""For each of five readers; the fast tests take one round of examples."""
EXAMPLES = 40
LONGEST_SEC = 10.0
MORE_MEMORY_KIB = 1 << 20

LABEL = json.dumps(
    {"urgencyLevel": "상", "utterances": [{"id": 1, "startAt": 0, "endAt": 900, "text": "불이 났어요", "speaker": 1}] * 3},
    ensure_ascii=False,
).encode()


def recording(container: str) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, np.sin(np.arange(8000) / 5), 8000, format=container)
    return sink.getvalue()


RECORDINGS = [recording(container) for container in ("WAV", "FLAC", "OGG", "AIFF", "AU", "W64", "RF64")]
MEMBERS = {"TS_서울_화재/a.wav": RECORDINGS[0], "a.json": LABEL, "b/c.wav": b"RIFF"}
ARCHIVES = [zipped(MEMBERS), zipped(MEMBERS, zipfile.ZIP_DEFLATED), tarred(MEMBERS), zipped({"in.zip": zipped(MEMBERS)})]
MANIFESTS = [
    b"audio_filepath,text,urgency,split\na.wav,hello,low,train\nb.wav,,high,val\n",
    b'{"audio_filepath": "a.wav", "text": "x", "duration": 1.0, "offset": 0.5}\n' * 3,
    "audio,label\nin.zip/TS_서울_화재/a.wav,zip://a.json::in.zip\nzip://b/c.wav::in.zip,tar://a.json::a.tar\n".encode(),
]
MEMBER_NAMES = [
    {"audio": name, "label": label}
    for archive in ("a.zip", "a.tar")
    for name in (f"{archive}/TS_서울_화재/a.wav", f"zip://b/c.wav::{archive}", f"{archive}/in.zip/b/c.wav")
    for label in (f"{archive}/a.json", f"zip://a.json::zip://in.zip::{archive}")
]

EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["set", "cut", "drop", "insert", "repeat"]), st.binary(min_size=1, max_size=16)),
    max_size=6,
)


def edit(content: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    """The content with some of its bytes changed."""
    for share, kind, value in edits:
        place = int(share * len(content))
        before, after = content[:place], content[place:]
        content = {
            "set": before + value + after[len(value) :],
            "cut": before,
            "drop": before + after[len(value) :],
            "insert": before + value + after,
            "repeat": before + after[:64] * 8 + after,
        }[kind]
    return content


def read_label(content: bytes, _: Path) -> None:
    parse_label(content, require_urgency=False)


def hear(content: bytes, _: Path) -> None:
    decode_audio(content, 16_000, 60.0, name="a.wav")


def plan_archive(content: bytes, folder: Path) -> None:
    (folder / "a.zip").write_bytes(content)
    read_planned(DataConfig(root=str(folder)))


def plan_members(content: bytes, folder: Path) -> None:
    for name in ("a.zip", "a.tar"):
        (folder / name).write_bytes(content)
    (folder / "calls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in MEMBER_NAMES), encoding="utf-8")
    read_planned(DataConfig(manifest=str(folder / "calls.jsonl")))


def read_planned(data: DataConfig) -> None:
    """Read the files of each call that is planned."""
    for call in plan_calls(data).to_pylist():
        for side in ("audio", "label"):
            if call["reason"] is None and call[f"{side}_container"] is not None:
                with contextlib.suppress(Reject):
                    read_file(call[f"{side}_container"], call[f"{side}_member"], 1 << 20)


def plan_manifest(content: bytes, folder: Path) -> None:
    (folder / "in.zip").write_bytes(ARCHIVES[0])
    (folder / "a.tar").write_bytes(ARCHIVES[2])
    (folder / "calls.csv").write_bytes(content)
    read_planned(DataConfig(manifest=str(folder / "calls.csv")))


READERS: dict[str, tuple[Callable[[bytes, Path], None], list[bytes]]] = {
    "labels": (read_label, [LABEL, LABEL.decode().encode("utf-16"), LABEL.decode().encode("cp949")]),
    "recordings": (hear, RECORDINGS),
    "archives": (plan_archive, ARCHIVES),
    "members that a manifest names": (plan_members, ARCHIVES),
    "manifests": (plan_manifest, MANIFESTS),
}


@pytest.mark.parametrize("seconds", [FAST_SEC, pytest.param(NIGHTLY_SEC, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", READERS)
def test_whatever_the_bytes_say_a_reader_gives_them_up_in_one_line(name: str, seconds: float, tmp_path: Path) -> None:
    read, seeds = READERS[name]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), EDITS)
    def check(seed: bytes, edits: list[tuple[float, str, bytes]]) -> None:
        started, said = time.monotonic(), "read"
        try:
            read(edit(seed, edits), tmp_path)
        except (Reject, RequestError) as error:
            said = str(error)
        assert len(said.splitlines()) == 1
        assert time.monotonic() - started < LONGEST_SEC

    deadline, before = time.monotonic() + seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check()
    while time.monotonic() < deadline:
        check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MORE_MEMORY_KIB
