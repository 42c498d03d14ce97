"""One label file for many calls is named where it is missed."""

import json
from pathlib import Path
from typing import Any

import pytest

from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig

LABEL = {"utterances": [{"text": "불이 났어요"}], "urgencyLevel": "상"}
ADVICE = "one JSON file for each call is read, named as its recording"


def details(folder: Path) -> dict[str, Any]:
    return {call["call_id"]: call["detail"] for call in plan_calls(DataConfig(root=str(folder))).to_pylist()}


@pytest.mark.parametrize(
    "content", [json.dumps([LABEL, LABEL]), json.dumps({"a": LABEL, "b": LABEL}), json.dumps(LABEL) + "\n" + json.dumps(LABEL)]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_recordings_without_a_label_are_told_of_one_file_for_all(content: str, encoding: str, tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    (tmp_path / "labels.json").write_bytes(content.encode(encoding))
    assert details(tmp_path) == {
        "a": f"no JSON has this stem; labels.json holds several labels: {ADVICE}",
        "b": f"no JSON has this stem; labels.json holds several labels: {ADVICE}",
        "labels": f"no recording has this stem; it holds several labels: {ADVICE}",
    }


def test_recordings_without_a_label_are_told_of_lists_of_calls(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "b.json"):
        (tmp_path / name).write_bytes(b"RIFF")
    (tmp_path / "Labels.CSV").write_text("file_id,text,urgency_y\na,네,0\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("a", encoding="utf-8")
    told = "no JSON has this stem; not read: Labels.CSV (a list of calls is given as --data.manifest)"
    assert details(tmp_path) == {"a": told, "b": None}
    (tmp_path / "Labels.CSV").unlink()
    assert details(tmp_path) == {"a": "no JSON has this stem", "b": None}


def test_a_label_of_one_call_is_no_collection(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.json").write_text(json.dumps(LABEL), encoding="utf-8")
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\x00")
    assert details(tmp_path) == {
        "a": "no JSON has this stem",
        "b": "no recording has this stem",
        "c": "no recording has this stem",
    }
