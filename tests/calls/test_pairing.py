"""Which WAV goes with which label: what lies together, and nothing that is guessed."""

from pathlib import Path
from typing import Any

import pytest
from call_files import plan, put, put_zip, reasons, zipped

from urgency_ray.calls.files import read_file

UNIQUE = "c6b32af2303765571a53e937_20230207120757"


def pairs(root: Path) -> dict[str, tuple[str, str]]:
    """What the two files of each call hold."""
    rows = plan(root)
    sides = ("audio", "label")
    return {
        call_id: tuple(read_file(row[f"{side}_container"], row[f"{side}_member"], 99).decode() for side in sides)  # type: ignore[misc]
        for call_id, row in rows.items()
        if row["reason"] is None
    }


@pytest.mark.parametrize(
    ("wavs", "labels"),
    [
        ("{day}", "{day}"),
        ("{day}/wav", "{day}/json"),
        ("wav/{day}", "json/{day}"),
        ("{day}_wav", "{day}_json"),
        ("Wave/{day}", "Label/{day}"),
        ("1.원천데이터/TS_{day}.zip", "2.라벨링데이터/TL_{day}.zip"),
        ("01.원천데이터/{day}", "02. 라벨링데이터/{day}"),
        ("[원천]{day}.zip", "[라벨]{day}.zip"),
        ("{day}.zip", "{day}.zip"),
        ("{day}.zip/a/b", "{day}.zip/c"),
        ("wav_8k/{day}", "labels/{day}"),
    ],
)
def test_a_counter_that_starts_anew_gives_each_folder_its_own_calls(tmp_path: Path, wavs: str, labels: str) -> None:
    """Day 1 lacks the label of 0001, day 2 its WAV; both have 0002."""
    archives: dict[str, dict[str, bytes]] = {}
    for day, stems in (
        ("2024-01-01", ("0001.wav", "0002.wav", "0002.json")),
        ("2024-01-02", ("0001.json", "0002.wav", "0002.json")),
    ):
        for name in stems:
            folder = (wavs if name.endswith("wav") else labels).format(day=day)
            archive, is_zip, inside = f"{folder}/{name}".partition(".zip/")
            if is_zip:
                archives.setdefault(archive, {})[inside] = f"{day} {Path(name).stem}".encode()
            else:
                put(tmp_path / archive, f"{day} {Path(name).stem}".encode())
    for archive, members in archives.items():
        put(tmp_path / f"{archive}.zip", zipped(members))
    assert sorted(pairs(tmp_path).values()) == [(f"2024-01-0{n} 0002", f"2024-01-0{n} 0002") for n in (1, 2)]
    rows = plan(tmp_path)
    assert all("2024-01-0" in call_id and ":000" in call_id for call_id in rows)
    assert sorted(row["reason"] for row in rows.values() if row["reason"]) == ["missing_audio", "missing_label"]


def test_folders_with_calls_of_their_own_lend_none_to_each_other(tmp_path: Path) -> None:
    for name in ("1/a.wav", "1/a.json", "1/0001.wav", "2/b.wav", "2/b.json", "2/0001.json"):
        put(tmp_path / name)
    assert reasons(plan(tmp_path)) == {"a": None, "b": None, "1:0001": "missing_label", "2:0001": "missing_audio"}


def test_of_many_days_each_keeps_its_own(tmp_path: Path) -> None:
    """The WAV of day 1 has no label; there are two others of its stem."""
    whole = [f"{day}/000{number}.{suffix}" for day in (1, 2, 3) for number in (2, 3) for suffix in ("wav", "json")]
    for name in (*whole, "1/0001.wav", "2/0001.json", "3/0001.json"):
        put(tmp_path / name, name.encode())
    found = reasons(plan(tmp_path))
    assert len(found) == 9
    lost = {call_id: reason for call_id, reason in found.items() if reason}
    assert lost == {"1:0001": "missing_label", "2:0001": "missing_audio", "3:0001": "missing_audio"}


@pytest.mark.parametrize(
    ("names", "call_id"),
    [
        (("1/x.wav", "1/x.json", f"1/{UNIQUE}.wav", "2/y.wav", "2/y.json", f"2/{UNIQUE}.json"), UNIQUE),
        (("recordings/0001.wav", "answers/0001.json"), "0001"),
        (("0001.wav", "0002.wav", "0002.json", "answers/0001.json"), "0001"),
        (("Training/TS_a.zip", "TL_b/0001.json", "other/z.txt"), "0001"),
    ],
)
def test_what_is_there_once_in_the_whole_tree_is_paired(tmp_path: Path, names: Any, call_id: str) -> None:
    for name in names:
        put_zip(tmp_path / name, "0001.wav") if name.endswith(".zip") else put(tmp_path / name)
    assert reasons(plan(tmp_path))[call_id] is None


@pytest.mark.parametrize(
    "names",
    [
        ("a/c.wav 1", "b/c.wav 2", "other/c.json"),
        ("a/c.wav", "b/c.json 1", "d/c.json 2"),
        ("a/c.wav 1", "b/c.wav 2", "d/c.json 1", "e/c.json 2"),
        ("c.wav", "c.json 1", "json/c.json 2"),
    ],
)
def test_of_several_that_differ_none_is_guessed(tmp_path: Path, names: Any) -> None:
    for name in names:
        path, _, content = name.partition(" ")
        put(tmp_path / path, content.encode())
    rows = plan(tmp_path)
    found = reasons(rows)
    if "c" in found:  # what lies side by side is no guess
        assert found == {"c": None, "c#2": "duplicate_stem"}
    else:
        assert list(found.values()) == ["ambiguous_stem"] * len(names)
        assert all("put those of a call side by side" in row["detail"] for row in rows.values())


def test_two_labels_that_differ_in_one_place_are_not_chosen_from(tmp_path: Path) -> None:
    put(tmp_path / "wav" / "c.wav")
    put(tmp_path / "json" / "c.json", b"1")
    put(tmp_path / "labels" / "c.json", b"2")
    assert list(reasons(plan(tmp_path)).values()) == ["ambiguous_stem"] * 3


def test_a_copy_elsewhere_is_a_copy(tmp_path: Path) -> None:
    put(tmp_path / "a" / "c.wav", b"audio")
    put(tmp_path / "b" / "c.wav", b"audio")
    put(tmp_path / "d" / "c.json", b"label")
    put_zip(tmp_path / "e.zip", "c.json", content=b"label")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "c#2": "duplicate_stem"}
    assert rows["c#2"]["detail"] == f"the one used is in {tmp_path}/a/c.wav"


def test_archives_beside_what_was_unpacked_from_them_are_one_copy_a_call(tmp_path: Path) -> None:
    for kind, suffix in (("1.원천데이터/TS_a", "wav"), ("2.라벨링데이터/TL_a", "json")):
        names = [f"{number}.{suffix}" for number in range(3)]
        put_zip(tmp_path / "Training" / f"{kind}.zip", *names)
        for name in names:
            put(tmp_path / "Training" / kind / name)
    rows = plan(tmp_path)
    assert reasons(rows) == {f"{n}{copy}": reason for n in range(3) for copy, reason in (("", None), ("#2", "duplicate_stem"))}
    assert all(row["audio_container"] and row["label_container"] for row in rows.values())


@pytest.mark.parametrize("split", ["Training", "Validation"])
@pytest.mark.parametrize("other", ["Sample", "a", "zz"])
def test_the_copy_whose_path_names_a_split_is_used(tmp_path: Path, split: str, other: str) -> None:
    put(tmp_path / other / "01.원천데이터" / "c.wav", b"audio")
    put(tmp_path / other / "02.라벨링데이터" / "c.json", b"label")
    put_zip(tmp_path / split / "1.원천데이터" / "TS_서울_구급.zip".replace("T", split[0]), "c.wav", content=b"audio")
    put_zip(tmp_path / split / "2.라벨링데이터" / "TL_서울_구급.zip".replace("T", split[0]), "c.json", content=b"label")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "c#2": "duplicate_stem"}
    assert (rows["c"]["provider_split"], rows["c"]["region"]) == (split.lower(), "서울")


def test_a_recording_whose_label_was_edited_stays_one_call_if_its_stem_is_unique(tmp_path: Path) -> None:
    for stem in (UNIQUE, "0001"):
        for folder, label in (("Sample", b"pretty"), ("Validation", b"as it was")):
            put(tmp_path / folder / f"{stem}.wav", stem.encode())
            put(tmp_path / folder / f"{stem}.json", label)
    rows = plan(tmp_path)
    assert reasons(rows) == {UNIQUE: None, f"{UNIQUE}#2": "duplicate_stem", "Sample:0001": None, "Validation:0001": None}
    assert rows[UNIQUE]["provider_split"] == "validation"


def test_calls_of_one_stem_and_one_size_are_two_calls(tmp_path: Path) -> None:
    for region in ("광주", "서울"):
        put_zip(tmp_path / f"TS_{region}_화재.zip", "0001.wav", f"{region}.wav", content=region.encode())
        put_zip(tmp_path / f"TL_{region}_화재.zip", "0001.json", f"{region}.json", content=region.encode())
    assert pairs(tmp_path) == {
        "T_광주_화재:0001": ("광주", "광주"),
        "T_서울_화재:0001": ("서울", "서울"),
        "광주": ("광주", "광주"),
        "서울": ("서울", "서울"),
    }
    rows = plan(tmp_path)
    assert [rows[f"T_{region}_화재:0001"]["region"] for region in ("광주", "서울")] == ["광주", "서울"]


def test_of_two_recordings_of_a_call_side_by_side_the_first_is_used(tmp_path: Path) -> None:
    put(tmp_path / "wav_16k" / "c.wav", b"0123")
    put(tmp_path / "wav_8k" / "c.wav", b"01")
    put(tmp_path / "json" / "c.json")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "c#2": "duplicate_stem"}
    assert rows["c#2"]["detail"] == f"the one used is in {tmp_path}/wav_16k/c.wav"


def test_a_stem_in_ten_thousand_folders_is_as_many_calls(tmp_path: Path) -> None:
    names = [f"{number}/call.{suffix}" for number in range(10_000) for suffix in ("wav", "json")]
    put(tmp_path / "a.zip", zipped({name: name[:-5].encode() for name in names}))
    rows = plan(tmp_path)
    assert len(rows) == 10_000
    assert set(reasons(rows).values()) == {None}
    assert rows["a/77:call"]["audio_member"] == "77/call.wav"


@pytest.mark.parametrize(
    ("wav", "label", "kind"),
    [
        ("A1", "a1", "in upper and lower case"),
        ("a 1", "a1", "in blanks"),
        ("a1\u200b", "a1", "in blanks"),
        ("a1", "a1.wav", "in a suffix too many"),
        ("a1 (1)", "a1", "in a copy's number"),
        ("a1", "a1 - 복사본", "in a copy's number"),
        ("통화", "통화".encode("cp949").decode("latin-1"), "in garbled Korean"),
        ("통화", "통화".encode().decode("cp437"), "in garbled Korean"),
        ("A 1", "a1 (2)", "in several ways"),
    ],
)
def test_near_misses_are_named_and_counted(tmp_path: Path, wav: str, label: str, kind: str) -> None:
    put(tmp_path / f"{wav}.wav")
    put(tmp_path / f"{label}.json")
    put(tmp_path / "unlike.wav")
    rows = plan(tmp_path)
    assert reasons(rows) == {wav: "missing_label", label: "missing_audio", "unlike": "missing_label"}
    assert rows[wav]["detail"] == f"no JSON has this stem; {label}.json differs {kind} alone"
    assert rows[label]["detail"] == f"no recording has this stem; {wav}.wav differs {kind} alone"
    assert rows["unlike"]["detail"] == "no JSON has this stem"


def test_recordings_in_other_formats_are_no_further_calls(tmp_path: Path) -> None:
    for name in ("mp3/c.mp3", "wav/c.WAV", "wav/c.flac", "json/c.json", "json/d.json", "flac/d.flac", "e.mp3", "e.flac"):
        put(tmp_path / name, name.encode())
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "d": None, "e": "missing_label", "e#2": "missing_label"}
    assert rows["c"]["audio_container"] == str(tmp_path / "wav" / "c.WAV")
    assert rows["d"]["audio_container"] == str(tmp_path / "flac" / "d.flac")


def test_where_no_label_is_needed_none_is_missed(tmp_path: Path) -> None:
    for name in ("1/a.wav", "1/a.json", "1/0001.wav", "2/b.wav", "2/b.json", "2/0001.json", "c.wav"):
        put(tmp_path / name)
    found = reasons(plan(tmp_path, require_text=False, require_urgency=False))
    assert found == {"a": None, "b": None, "c": None, "1:0001": None, "2:0001": "missing_audio"}
    assert reasons(plan(tmp_path, require_text=False, unit="utterance"))["c"] == "missing_label"
