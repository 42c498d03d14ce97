"""A user's own list of calls: each of its rows is a call or a reject that says where in the file it stands."""

import gzip
import io
import json
import wave
import zipfile
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from call_files import put, tarred, zipped

from urgency_ray.calls.plan import plan_calls
from urgency_ray.calls.sample import sample_transcripts
from urgency_ray.config import DataConfig
from urgency_ray.embedding.stages import decode_calls
from urgency_ray.errors import RequestError
from urgency_ray.schema import LISTED_SCHEMA


def tone(path: Path, seconds: float) -> None:
    samples = (8000 * np.sin(2 * np.pi * 300 * np.arange(round(8000 * seconds)) / 8000)).astype("<i2")
    sink = io.BytesIO()
    with wave.open(sink, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sink.getvalue())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seconds in (("a.wav", 3), ("b.wav", 2), ("day/a.wav", 2), ("long.wav", 10)):
        tone(tmp_path / "wavs" / name, seconds)
    (tmp_path / "a.json").write_text(
        json.dumps({"utterances": [{"text": "불이 났어요"}], "urgencyLevel": "하", "sentiment": "중립"}), encoding="utf-8"
    )
    return tmp_path


def lines(*rows: Any) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def listed(folder: Path, content: Any, name: str = "calls.jsonl", **data: Any) -> dict[str, dict[str, Any]]:
    """The decoded rows of a manifest, by example_id."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = DataConfig(manifest=str(path), **data)
    plan = plan_calls(config)
    assert plan.schema.equals(LISTED_SCHEMA)
    return {row["example_id"]: row for row in decode_calls(plan, config).to_pylist()}


def refused(folder: Path, content: Any, name: str = "calls.jsonl", **data: Any) -> str:
    with pytest.raises(RequestError) as caught:
        listed(folder, content, name, **data)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--data.manifest {folder / name}: ")
    return str(caught.value).partition(f"{name}: ")[2]


FIRST = {"audio_filepath": "wavs/a.wav", "text": "불이 ***[개인정보] 났어요", "urgency": "상"}


def test_a_row_is_a_call_cleaned_as_any_other(folder: Path) -> None:
    (row,) = listed(folder, lines(FIRST | {"sentiment": "중립", "disaster_large": "화재", "region": "강원"})).values()
    assert (row["call_id"], row["text"], row["urgency"], row["duration_sec"]) == ("a", "불이 났어요", 2, 3.0)
    assert (row["sentiment"], row["disaster_large"], row["region"]) == ("중립", "화재", "강원")
    assert row["provider_split"] == "unknown"


def as_parquet(rows: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("calls.csv", lambda row: f"{','.join(row)}\n{','.join(row.values())}\n".encode()),
        ("calls.csv", lambda row: b"\xef\xbb\xbf" + f"{','.join(row)}\r\n{','.join(row.values())}\r\n".encode()),
        ("excel.csv", lambda row: f"{';'.join(row)}\n{';'.join(row.values())}\n".encode("cp949")),
        ("calls.tsv", lambda row: "\t".join(row).encode("utf-16") + f"\n{chr(9).join(row.values())}\n".encode("utf-16-le")),
        ("calls.jsonl", lambda row: lines(row).encode()),
        ("calls.json", lambda row: lines(row).encode()),
        ("list.json", lambda row: json.dumps([row]).encode()),
        ("list.json", lambda row: json.dumps([row]).encode("utf-16")),
        ("calls.jsonl.gz", lambda row: gzip.compress(lines(row).encode())),
        ("calls.parquet", lambda row: as_parquet([row])),
    ],
)
def test_every_kind_of_file_says_the_same(folder: Path, name: str, write: Any) -> None:
    (row,) = listed(folder, write(FIRST), name).values()
    assert (row["call_id"], row["text"], row["urgency"]) == ("a", "불이 났어요", 2)


def test_columns_of_other_names_are_named_in_the_config(folder: Path) -> None:
    content = "file,label,said\nwavs/a.wav,2,불이 났어요\n"
    names = {"audio": "file", "text": "said", "urgency": "label"}
    (row,) = listed(folder, content, "calls.csv", manifest_columns=names).values()
    assert (row["text"], row["urgency"]) == ("불이 났어요", 2)
    with pytest.raises(ValueError, match="words is nothing that a manifest says; name columns of audio, id, text"):
        DataConfig(manifest_columns={"words": "said"})
    assert "said, which data.manifest_columns names for text; its columns are audio, text" in refused(
        folder, "audio,text\na.wav,x\n", "calls.csv", manifest_columns={"text": "said"}
    )


@pytest.mark.parametrize(
    ("value", "urgency"), [("하", 0), ("중", 1), (2, 2), ("1", 1), (0.0, 0), ("HIGH", 2), ("low", 0), (" 상 ", 2)]
)
def test_urgencies_are_labels_keys_or_classes(folder: Path, value: Any, urgency: int) -> None:
    assert listed(folder, lines(FIRST | {"urgency": value}))["a"]["urgency"] == urgency


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        (FIRST | {"urgency": "urgent"}, "unknown_urgency", "urgencyLevel"),
        (FIRST | {"urgency": 3}, "unknown_urgency", "urgencyLevel"),
        (FIRST | {"urgency": None}, "missing_urgency", "urgencyLevel"),
        (FIRST | {"text": None}, "no_text", "transcript"),
        (FIRST | {"text": ["가"]}, "invalid_label", "utterances[0].text"),
        (FIRST | {"split": "fold3"}, "invalid_row", "line 2 of the manifest: split: must be train, val or test"),
        (FIRST | {"duration": "3 s"}, "invalid_row", "line 2 of the manifest: duration: must be a number of seconds"),
        (FIRST | {"offset": -1}, "invalid_row", "offset: must be a number of seconds, from 0 on"),
        (FIRST | {"duration": 3000}, "invalid_span", "both must be in seconds"),
        (FIRST | {"audio_filepath": None}, "invalid_row", "line 2 of the manifest: names no audio"),
        (FIRST | {"audio_filepath": "불이 났어요\n"}, "missing_audio", "line 2 of the manifest: the audio: no such file"),
        (FIRST | {"audio_filepath": "no.wav"}, "missing_audio", "no.wav: no such file; paths are relative to the manifest's"),
        (FIRST | {"audio_filepath": "a.json/no.wav"}, "missing_audio", "its folder cannot be read"),
        (FIRST | {"audio_filepath": "http://x/a.wav"}, "missing_audio", "nor a URI of a kind that is read"),
        (FIRST | {"audio_filepath": "wavs"}, "missing_audio", "a folder, not a file"),
        (FIRST | {"utterances": "[{"}, "invalid_row", "utterances: no JSON"),
        (FIRST | {"utterances": [1]}, "invalid_row", "utterances: must be a list of objects"),
        (FIRST | {"label": "a.json"}, "invalid_row", "label and text: both say the words"),
        (FIRST | {"label": "상"}, "invalid_row", "label: must be the path of a .json file"),
        (FIRST | {"text": "\ud800"}, "invalid_row", "half of a character"),
        ({"audio": "wavs/a.wav", "label": "b.json"}, "missing_label", "the label of wavs/a.wav: no such file"),
    ],
)
def test_a_bad_row_is_a_reject_that_says_where_and_the_others_are_read(
    folder: Path, row: dict[str, Any], reason: str, words: str
) -> None:
    first = {"audio": "wavs/b.wav", "text": "네", "urgency": "하"}
    content = f"{lines(first)}{json.dumps(row)}\n"
    good, bad = sorted(listed(folder, content).values(), key=lambda row: row["status"])
    assert (good["call_id"], good["status"]) == ("b", "embedded")
    assert (bad["status"], bad["reason"]) == ("rejected", reason)
    assert words in bad["detail"]
    assert "났어요" not in bad["detail"]


def test_lines_that_are_no_rows_are_rejects_with_the_number_of_the_line(folder: Path) -> None:
    rows = listed(folder, f'{lines(FIRST)}{{\n\n[1]\n{{"text": "a", "text": "b"}}\n{"[" * 100_000}\n')
    assert {name: row["reason"] for name, row in rows.items()} == {
        "a": None,
        "calls.jsonl:2": "invalid_row",
        "calls.jsonl:4": "invalid_row",
        "calls.jsonl:5": "invalid_row",
        "calls.jsonl:6": "invalid_row",
    }
    rows = listed(folder, "audio,text,urgency\nwavs/a.wav,가,상\nwavs/b.wav,나\n", "calls.csv")
    assert rows["b"]["detail"] == "line 3 of the manifest: has 2 fields, and the header 3"


DAMAGED = "audio,text,urgency\nwavs/b.wav,불이,low\nwavs/a.wav,물이,high\n".encode().replace("물".encode(), b"\xeb\xac\xc8")
"""UTF-8 with one wrong byte; as cp949, which it is too, both texts would be others."""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("calls.txt", "x", "must end in .csv, .tsv, .jsonl, .json or .parquet"),
        ("calls.csv", "", "holds no rows"),
        ("calls.csv", "audio,text,urgency\n", "holds no rows"),
        ("calls.csv", "audio,text\nwavs/a.wav,x\n", "has no column for urgency or label"),
        ("calls.csv", "audio,urgency\nwavs/a.wav,상\n", "has no column for text or utterances or label"),
        ("calls.csv", "text,urgency\nx,상\n", "has no column for audio"),
        ("calls.csv", "audio,audio\nx,y\n", "its header has audio more than once"),
        ("calls.csv", 'audio,text,urgency\na.wav,"x,상\n', "no CSV: unexpected end of data"),
        ("calls.csv", b"audio,text\n\xff\xff\xff,x\n", "line 2 column 1: neither UTF-8 nor another encoding that is read"),
        ("calls.csv", "audio,text\n".encode("utf-16")[:-1], "UTF-16 that is damaged, or cut off; save it again as UTF-8"),
        ("calls.csv", DAMAGED, "line 3 column 12: neither UTF-8 nor another encoding that is read (UTF-16, cp949)"),
        ("calls.jsonl", b"\n" + DAMAGED, "line 4 column 12: neither UTF-8 nor"),
        ("calls.jsonl", "audio,text\n", "has no column for audio"),
        ("calls.json", "[1, ", "no JSON: "),
        ("calls.parquet", b"PAR1", "cannot be read: "),
        ("calls.parquet", as_parquet(pa.table([["a"], ["b"]], names=["text", "text"])), "has text more than once"),
        ("calls.jsonl.gz", b"no gzip", "cannot be read: "),
    ],
)
def test_a_file_that_is_no_manifest_is_one_line(folder: Path, name: str, content: Any, words: str) -> None:
    assert words in refused(folder, content, name)


def test_a_manifest_that_is_not_there_and_one_beside_a_root(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--data\.manifest .*no\.csv: no such file"):
        plan_calls(DataConfig(manifest=str(tmp_path / "no.csv")))
    with pytest.raises(ValueError, match="give one of them"):
        DataConfig(root="calls", manifest="calls.csv")


def test_what_is_not_wanted_needs_no_column(folder: Path) -> None:
    (row,) = listed(folder, lines({"audio": "wavs/a.wav"}), require_text=False, require_urgency=False).values()
    assert (row["status"], row["text"], row["urgency"]) == ("embedded", "", None)


def test_ids_are_given_or_the_stems_with_folder_and_offset_where_these_repeat(folder: Path) -> None:
    said = {"text": "네", "urgency": "하"}
    segment = {"audio": "wavs/long.wav", "duration": 2.5, **said}
    rows = listed(
        folder,
        lines(
            {"audio": "wavs/a.wav", **said},
            {"audio": str(folder / "wavs" / "day" / "a.wav"), **said},
            {"audio": "wavs/b.wav", "id": 7, **said},
            segment | {"offset": 0},
            segment | {"offset": 2.5},
            segment | {"offset": 2.5},
            segment | {"offset": 7.5},
        ),
    )
    day = f"{folder / 'wavs' / 'day'}:a"
    assert set(rows) == {"wavs:a", day, "7", "long@0", "long@2500", "long@2500#2", "long@7500"}
    assert rows["long@2500#2"]["reason"] == "duplicate_id"
    assert rows["long@2500#2"]["detail"].startswith("line 6 of the manifest: line 5 has this id")
    assert [rows[name]["duration_sec"] for name in ("long@0", "long@2500", "long@7500")] == [2.5, 2.5, 2.5]


def test_a_row_that_can_be_used_keeps_its_id_whatever_comes_before_it(folder: Path) -> None:
    rows = listed(folder, lines(FIRST | {"split": "?"}, FIRST))
    assert {name: row["reason"] for name, row in rows.items()} == {"a": None, "a#2": "invalid_row"}


def test_a_label_file_counts_but_for_what_the_row_says_itself(folder: Path) -> None:
    rows = listed(
        folder,
        lines(
            {"audio": "wavs/a.wav", "label": "a.json"},
            {"audio": "wavs/b.wav", "label": str(folder / "a.json"), "urgency": "상"},
        ),
    )
    assert [(rows[name]["text"], rows[name]["urgency"], rows[name]["sentiment"]) for name in "ab"] == [
        ("불이 났어요", 0, "중립"),
        ("불이 났어요", 2, "중립"),
    ]


def test_utterances_are_those_of_a_label_or_in_seconds_as_lhotse_has_them(folder: Path) -> None:
    cut = {
        "id": "cut-1",
        "start": 1.0,
        "duration": 4.0,
        "supervisions": [{"start": 2.0, "duration": 1.0, "text": "둘"}, {"start": 0.5, "duration": 1.0, "text": "하나"}],
        "recording": {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "wavs/long.wav"}]},
        "urgency": "중",
    }
    turns = [
        {"startAt": 0, "endAt": 900, "text": "네", "speaker": 0},
        {"startAt": 1000, "endAt": 2000, "text": "불", "speaker": 1},
    ]
    content = lines(cut, {"audio": "wavs/a.wav", "utterances": json.dumps(turns), "urgency": "중"})
    rows = listed(folder, content)
    assert (rows["cut-1"]["text"], rows["cut-1"]["duration_sec"], rows["a"]["text"]) == ("하나 둘", 4.0, "네 불")
    rows = listed(folder, content, unit="utterance")
    assert [(row["text"], row["start_ms"], row["end_ms"], row["speaker"]) for row in rows.values()] == [
        ("네", 0, 900, 0),
        ("불", 1000, 2000, 1),
        ("하나", 500, 1500, None),
        ("둘", 2000, 3000, None),
    ]


def test_a_text_with_a_duration_is_one_utterance(folder: Path) -> None:
    row = {"audio": "wavs/long.wav", "offset": 1, "duration": 2, "text": "불", "urgency": "상"}
    (made,) = listed(folder, lines(row), unit="utterance").values()
    assert (made["example_id"], made["start_ms"], made["end_ms"], made["text"]) == ("long/0000", 0, 2000, "불")


def test_a_duration_that_is_all_but_that_of_the_file_takes_all_of_it(folder: Path) -> None:
    rows = [listed(folder, lines(FIRST | {"duration": seconds}))["a"] for seconds in (2.95, 3.05, 2.5)]
    assert [row["duration_sec"] for row in rows] == [3.0, 3.0, 2.5]


def test_names_on_disk_may_be_of_another_unicode_form(folder: Path) -> None:
    tone(folder / normalize("NFD", "신고 1.wav"), 1)
    assert listed(folder, lines(FIRST | {"audio_filepath": normalize("NFC", "신고 1.wav")}))["신고 1"]["duration_sec"] == 1.0


LABEL = json.dumps({"utterances": [{"text": "물이 새요"}], "urgencyLevel": "중"}).encode()


@pytest.fixture
def archives(folder: Path) -> Path:
    sound = (folder / "wavs" / "b.wav").read_bytes()
    korean = normalize("NFD", "신고/가.wav")
    put(folder / "zips" / "TS_서울.zip", zipped({"calls/a.wav": sound, korean: sound, "no.wav": b"RIFF"}))
    put(folder / "zips" / "TL_서울.ZIP", zipped({"a.json": LABEL}, zipfile.ZIP_DEFLATED))
    put(folder / "zips" / "old.tar", tarred({"./day/a.wav": sound}))
    deep = zipped({"deepest.zip": zipped({"a.wav": sound})})
    put(folder / "zips" / "outer.zip", zipped({"inner.zip": zipped({"x/a.wav": sound}), "deep.zip": deep}))
    put(folder / "zips" / "cut.zip", zipped({"a.wav": sound})[:-30])
    put(folder / "zips" / "folder.zip" / "a.wav", sound)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "zips/TS_서울.zip/calls/a.wav",
        "zip://calls/a.wav::zips/TS_서울.zip",
        "zip://신고/가.wav::zips/TS_서울.zip",
        normalize("NFD", "zips/TS_서울.zip/신고/가.wav"),
        "zips/old.tar/day/a.wav",
        "tar://day/a.wav::zips/old.tar",
        "zips/outer.zip/inner.zip/x/a.wav",
        "zip://x/a.wav::zip://inner.zip::zips/outer.zip",
        "zips/folder.zip/a.wav",  # a folder of such a name
    ],
)
def test_a_recording_may_lie_in_an_archive_that_stays_packed(archives: Path, name: str) -> None:
    for shown in (name, name.replace("zips/", f"{archives}/zips/"), name.replace("zips/", f"file://{archives}/zips/")):
        (row,) = listed(archives, lines(FIRST | {"audio_filepath": shown})).values()
        assert (row["call_id"][-1], row["status"], row["duration_sec"]) in {("a", "embedded", 2.0), ("가", "embedded", 2.0)}


def test_a_label_may_lie_in_one_too_and_a_manifest_beside_them_in_a_store(archives: Path) -> None:
    row = {"audio": "zips/TS_서울.zip/calls/a.wav", "label": "zip://a.json::zips/TL_서울.ZIP"}
    assert listed(archives, lines(row))["a"]["text"] == "물이 새요"
    plan = plan_calls(DataConfig(manifest=f"file://{archives}/calls.jsonl"))
    assert [call["text"] for call in decode_calls(plan, DataConfig()).to_pylist()] == ["물이 새요"]


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        ({"audio": "zips/old.tar/b.wav"}, "missing_audio", "zips/old.tar/b.wav: no such file in the archive"),
        ({"audio": "zip://b.wav::zips/TS_서울.zip"}, "missing_audio", "zips/TS_서울.zip/b.wav: no such file in the archive"),
        ({"audio": "zips/no.zip/b.wav"}, "missing_audio", "zips/no.zip/b.wav: no such file; paths are relative to"),
        ({"audio": "zips/cut.zip/a.wav"}, "unreadable_archive", "zips/cut.zip/a.wav: no whole zip file"),
        ({"audio": "zips/outer.zip/deep.zip/deepest.zip/a.wav"}, "unreadable_archive", "an archive inside an archive inside"),
        ({"audio": "zip://a.wav::wavs/a.wav"}, "unreadable_archive", "no archive of a kind that is read (.zip, .tar)"),
        ({"audio": "zips/folder.zip/b.wav"}, "missing_audio", "zips/folder.zip/b.wav: no such file; paths"),
        ({"audio": "zips/TS_서울.zip/no.wav"}, "not_audio", ""),
        ({"audio": "wavs/a.wav", "label": "zips/TL_서울.ZIP/b.json"}, "missing_label", "no such file in the archive"),
    ],
)
def test_a_member_that_cannot_be_read_is_a_reject(archives: Path, row: dict[str, Any], reason: str, words: str) -> None:
    good = {"id": "good", "audio": "zips/old.tar/day/a.wav", "text": "네", "urgency": "하"}
    rows = listed(archives, lines(good, {"id": "bad", "urgency": "상"} | ({} if "label" in row else {"text": "가"}) | row))
    assert (rows["good"]["status"], rows["bad"]["reason"]) == ("embedded", reason)
    assert words in rows["bad"]["detail"]


def test_a_member_that_changed_is_a_call_that_changed(archives: Path) -> None:
    row = lines(FIRST | {"audio_filepath": "zips/old.tar/day/a.wav"})
    before = listed(archives, row)["a"]["source_version"]
    put(archives / "zips" / "old.tar", tarred({"day/a.wav": (archives / "wavs" / "a.wav").read_bytes()}))
    after = listed(archives, row)["a"]
    assert after["source_version"] != before and after["duration_sec"] == 3.0


def test_the_split_that_a_row_names(folder: Path) -> None:
    names: list[Any] = ["train", "Training", "val", "validation", "dev", "test", None]
    rows = listed(folder, lines(*(FIRST | {"id": f"c{number}", "split": name} for number, name in enumerate(names))))
    assert [row["provider_split"] for row in rows.values()] == [*["training"] * 2, *["validation"] * 3, "test", "unknown"]


def test_speakers_and_groups_come_along(folder: Path) -> None:
    rows = listed(folder, lines(FIRST | {"speaker": "S 1"}, FIRST | {"id": "b", "caller_id": 7, "group": "서울"}))
    assert [(row["speaker_id"], row["group_id"], row["speaker"]) for row in rows.values()] == [
        ("S 1", None, None),
        ("7", "서울", None),
    ]


def test_a_change_of_a_row_or_of_its_audio_is_a_change_of_the_call(folder: Path) -> None:
    def version(**changes: Any) -> Any:
        return listed(folder, lines(FIRST | changes))["a"]["source_version"]

    before = version()
    assert before == version(note="said by nobody")
    assert len({before, version(text="네"), version(urgency="하"), version(duration=2), version(group="g")}) == 5
    tone(folder / "wavs" / "a.wav", 4)
    assert version() != before


def test_transcripts_to_look_at_before_the_work(folder: Path) -> None:
    path = folder / "calls.jsonl"
    path.write_text(lines(FIRST, {"audio": "wavs/b.wav", "label": "a.json"}), encoding="utf-8")
    data = DataConfig(manifest=str(path))
    assert sample_transcripts(plan_calls(data), data, 5) == ["불이 났어요", "불이 났어요"]
