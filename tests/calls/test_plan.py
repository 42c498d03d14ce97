"""Planning, reading and parsing: every file that goes in comes out, as a call or as a reject with the right reason."""

import contextlib
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from call_files import plan, put, put_zip, reasons
from pyarrow import fs

from urgency_ray.calls import files
from urgency_ray.calls.audio import cut, decode_audio
from urgency_ray.calls.files import max_audio_bytes, read_file
from urgency_ray.calls.label import MAX_LABEL_BYTES, parse_label
from urgency_ray.calls.plan import plan_calls
from urgency_ray.calls.transcript import join_transcript
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, Reject, RequestError, UnreachableError
from urgency_ray.storage import open_location

SPOKEN_CALLS = Path(__file__).resolve().parents[3] / "shared" / "data" / "spoken_calls"


def patch(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def patch_directory(path: Path, offset: int, value: bytes) -> None:
    """Overwrite a field of the archive's only directory entry."""
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02") + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)


def reason_of(container: Path, member: str | None, limit: int = 1 << 20) -> Reason:
    with pytest.raises(Reject) as caught:
        read_file(str(container), member, limit)
    return caught.value.reason


# --- planning: pairs


def test_wavs_and_labels_pair_by_stem_across_folders_and_archives(tmp_path: Path) -> None:
    put(tmp_path / "a" / "c1.wav", b"audio 1")
    put_zip(tmp_path / "b" / "labels.zip", "deep/er/c1.json", "c2.JSON", content=b"label")
    put_zip(tmp_path / "Audio.ZIP", "c2.WAV", content=b"audio 2", method=zipfile.ZIP_DEFLATED)
    rows = plan(tmp_path)
    assert reasons(rows) == {"c1": None, "c2": None}
    assert rows["c1"]["audio_container"] == str(tmp_path / "a" / "c1.wav")
    assert rows["c1"]["audio_member"] is None
    assert rows["c1"]["label_member"] == "deep/er/c1.json"
    assert [rows[stem]["num_bytes"] for stem in ("c1", "c2")] == [7, 7]
    contents = {stem: read_file(row["audio_container"], row["audio_member"], 7) for stem, row in rows.items()}
    assert contents == {"c1": b"audio 1", "c2": b"audio 2"}
    assert {read_file(row["label_container"], row["label_member"], 5) for row in rows.values()} == {b"label"}


def test_unpaired_files_are_rows_with_a_reason(tmp_path: Path) -> None:
    put(tmp_path / "only_audio.wav")
    put(tmp_path / "only_label.json")
    expected = {"only_audio": "missing_label", "only_label": "missing_audio"}
    assert reasons(plan(tmp_path)) == expected
    assert reasons(plan(tmp_path, require_urgency=False)) == expected


def test_a_sound_file_is_preferred_to_a_faulty_one_of_its_stem(tmp_path: Path) -> None:
    patch_directory(put_zip(tmp_path / "wav_16k.zip", "c.wav"), 8, b"\x01\x00")
    put_zip(tmp_path / "wav_8k.zip", "c.wav")
    put(tmp_path / "json" / "c.json")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "c#2": "duplicate_stem"}
    assert rows["c"]["audio_container"] == str(tmp_path / "wav_8k.zip")


def test_ten_thousand_files_of_one_stem_are_as_many_rows(tmp_path: Path) -> None:
    put_zip(tmp_path / "a.zip", *(f"{n}/audio.wav" for n in range(10_000)))
    assert len(plan(tmp_path)) == 10_000


def test_hidden_and_foreign_files_are_no_calls(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "root"  # hidden counts below the root only
    put_zip(root / "a.zip", "__MACOSX/._c.wav", "__MACOSX/c.wav", ".trash/d.wav", "._c.wav", "readme.txt", "./c.wav", "c.json/")
    for name in ("c.txt", ".c.json", ".git/d.json", "__MACOSX/e.json", "._a.zip", "wav", "json", ".wav"):
        put(root / name)
    put(root / "c.json")
    assert reasons(plan(root)) == {"c": None}


# --- planning: names


def test_decomposed_names_pair_with_composed_ones_and_still_open(tmp_path: Path) -> None:
    put(tmp_path / normalize("NFD", "원천데이터") / normalize("NFD", "신고.wav"), b"audio")
    put_zip(tmp_path / "라벨.zip", normalize("NFD", "라벨/신고.json"), content=b"label")
    rows = plan(tmp_path)
    assert reasons(rows) == {"신고": None}
    assert read_file(rows["신고"]["audio_container"], None, 9) == b"audio"
    assert read_file(rows["신고"]["label_container"], rows["신고"]["label_member"], 9) == b"label"


@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_member_names_without_the_utf8_flag_are_read_as_they_were_meant(tmp_path: Path, encoding: str) -> None:
    name = "라벨\\신고.json".encode(encoding)  # and with the separator of old Windows tools
    patch(put_zip(tmp_path / "a.zip", "A" * len(name), content=b"label"), b"A" * len(name), name)
    put(tmp_path / "신고.wav")
    rows = plan(tmp_path)
    assert reasons(rows) == {"신고": None}
    assert read_file(rows["신고"]["label_container"], rows["신고"]["label_member"], 9) == b"label"


def test_a_name_in_no_known_encoding_is_kept(tmp_path: Path) -> None:
    patch(put_zip(tmp_path / "a.zip", "AAA.wav"), b"AAA", b"\xff\xfe\xff")
    (row,) = plan(tmp_path).values()
    assert read_file(row["audio_container"], row["audio_member"], 9) == b"x"


def test_files_on_disk_under_a_name_that_is_not_utf8_are_rejected_not_hidden(tmp_path: Path) -> None:
    folder = bytes(tmp_path) + "/라벨".encode("cp949")
    try:
        Path(folder.decode("utf-8", "surrogateescape")).mkdir()
    except OSError:
        pytest.skip("this filesystem takes UTF-8 names only")
    put(Path(folder.decode("utf-8", "surrogateescape")) / "c.json")
    put(tmp_path / "c.wav")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": "unreadable_file"}
    assert "UTF-8" in rows["c"]["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "../c.wav",
        "a/../../c.wav",
        "/c.wav",
        "//etc/c.wav",
        "\\c.wav",
        "\\\\server\\c.wav",
        "C:\\119\\c.wav",
        "..\\c.wav",
        "...\\c.wav",
        "./c.wav",
    ],
)
def test_a_member_s_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    archive = put_zip(tmp_path / "TS_a.zip", name, content=b"audio")
    put_zip(tmp_path / "TL_a.zip", name.replace("wav", "json"))
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None}
    assert read_file(str(archive), rows["c"]["audio_member"], 9) == b"audio"


def test_two_dots_inside_a_name_are_safe(tmp_path: Path) -> None:
    put_zip(tmp_path / "a.zip", "a..b/c..d.wav", "c..d.json")
    assert reasons(plan(tmp_path)) == {"c..d": None}


@pytest.mark.parametrize(
    ("path", "split", "region"),
    [
        ("Training/1.원천데이터/TS_광주_구조.zip", "training", "광주"),
        ("Validation/1.원천데이터/VS_서울_구급.zip", "validation", "서울"),
        (normalize("NFD", "Validation/1.원천데이터/VS_서울_구급.zip"), "validation", "서울"),
        ("any/TS_인천_화재_1.zip", "training", "인천"),
        ("VS_misc.zip", "validation", None),
        ("Training/x.zip", "training", None),
        ("1.Training/x.zip", "training", None),
        ("Validation/old/Training/x.zip", "training", None),
        ("Training_notes/x.zip", "unknown", None),
        ("x.zip", "unknown", None),
    ],
)
def test_split_and_region_come_from_the_path(tmp_path: Path, path: Any, split: str, region: str | None) -> None:
    put_zip(tmp_path / path, "c.wav", "c.json")
    row = plan(tmp_path)["c"]
    assert (row["provider_split"], row["region"]) == (split, region)
    assert row["audio_container"] == str(tmp_path / path)


def test_split_and_region_survive_unpacking_and_come_from_the_label_if_need_be(tmp_path: Path) -> None:
    put(tmp_path / "VS_서울_구급" / "c.wav")
    put(tmp_path / "c.json")
    put(tmp_path / "Training" / "2.라벨링데이터" / "TL_광주_구조" / "d.json")
    put(tmp_path / "d.wav")
    rows = plan(tmp_path)
    assert [(row["provider_split"], row["region"]) for row in rows.values()] == [("validation", "서울"), ("training", "광주")]


def test_the_root_may_itself_be_the_part(tmp_path: Path) -> None:
    put_zip(tmp_path / "Validation" / "a.zip", "c.wav", "c.json")
    assert plan(tmp_path / "Validation")["c"]["provider_split"] == "validation"


@pytest.mark.parametrize(("above", "split"), [("Validation", "validation"), ("val", "unknown"), ("train", "unknown")])
def test_above_the_root_only_the_provider_s_own_names_count(tmp_path: Path, above: str, split: str) -> None:
    put_zip(tmp_path / above / "calls" / "a.zip", "c.wav", "c.json")
    assert plan(tmp_path / above / "calls")["c"]["provider_split"] == split


# --- planning: faults


def test_unreadable_archives_are_rows_under_their_own_names(tmp_path: Path) -> None:
    whole = put_zip(tmp_path / "a" / "TS_광주_구조.zip", *(f"{n}.wav" for n in range(50))).read_bytes()
    put(tmp_path / "a" / "TS_광주_구조.zip", whole[:-100])
    put(tmp_path / "b" / normalize("NFD", "TS_광주_구조.zip"), b"<html>")
    put(tmp_path / "empty.zip", b"")
    rows = plan(tmp_path)
    assert reasons(rows) == dict.fromkeys(["TS_광주_구조.zip", "TS_광주_구조.zip#2", "empty.zip"], "unreadable_archive")
    assert rows["TS_광주_구조.zip"]["audio_container"] == str(tmp_path / "a" / "TS_광주_구조.zip")
    assert rows["TS_광주_구조.zip"]["provider_split"] == "training"


def test_an_archive_inside_an_archive_is_not_passed_over(tmp_path: Path) -> None:
    put_zip(tmp_path / "outer.zip", "inner.zip")
    assert reasons(plan(tmp_path)) == {"inner.zip": "unreadable_archive"}


def test_encrypted_members_are_known_at_planning(tmp_path: Path) -> None:
    archive = put_zip(tmp_path / "a.zip", "c.wav")
    put(tmp_path / "c.json")
    patch_directory(archive, 8, b"\x01\x00")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": "unreadable_file"}
    assert rows["c"]["detail"] == "encrypted"
    assert reason_of(archive, "c.wav") == Reason.UNREADABLE_FILE


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_zipfile_unpacks_without_bound_are_refused(tmp_path: Path, method: Any) -> None:
    put_zip(tmp_path / "a.zip", "c.wav", "c.json", method=method)
    assert reasons(plan(tmp_path)) == {"c": "unreadable_file"}
    assert reason_of(tmp_path / "a.zip", "c.wav") == Reason.UNREADABLE_FILE


def test_files_larger_than_the_longest_call_are_rejected_before_they_are_read(tmp_path: Path) -> None:
    limit = max_audio_bytes(DataConfig(max_call_sec=0.001))
    assert limit == 384 + 2**20
    put(tmp_path / "at.wav", bytes(limit))
    put_zip(tmp_path / "a.zip", "over.wav", content=bytes(limit + 1), method=zipfile.ZIP_DEFLATED)
    put_zip(tmp_path / "b.zip", "label.json", content=bytes(MAX_LABEL_BYTES + 1), method=zipfile.ZIP_DEFLATED)
    put(tmp_path / "label.wav")
    for stem in ("at", "over"):
        put(tmp_path / f"{stem}.json")
    assert reasons(plan(tmp_path, max_call_sec=0.001)) == {"at": None, "over": "file_too_large", "label": "file_too_large"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "--data.root: must be given"),
        (lambda root: root / "absent", "absent: no such folder"),
        (lambda root: put(root / "c.wav"), "c.wav: not a folder"),
        (lambda root: put(root / "c.7z"), "c.7z: an archive of a kind that is not read"),
        (lambda root: root, "holds no calls"),
        (lambda root: put(root / "notes.txt").parent, "holds no calls"),
        (lambda root: put_zip(root / "a.zip", "notes.txt").parent, "holds no calls"),
        (lambda root: "ftp://host/calls", "ftp://host/calls: cannot be"),
    ],
)
def test_a_root_without_calls_is_one_clear_line(tmp_path: Path, make: Any, says: str) -> None:
    root = make(tmp_path)
    with pytest.raises(RequestError) as caught:
        plan_calls(DataConfig(root=None if root is None else str(root)))
    assert str(caught.value).startswith("--data.root")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_plan_does_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    names = ["b/c.wav", "a/c.wav", "d.json", "a/c.json"]
    for root, order in (("one", names), ("two", names[::-1])):
        for name in order:
            put(tmp_path / root / name)
    plans = (plan_calls(DataConfig(root=str(tmp_path / root))) for root in ("one", "two"))
    one, two = (plan.drop_columns(["version"]).to_pydict() for plan in plans)  # versions are the times of writing
    assert str(one).replace(f"{tmp_path}/one", "") == str(two).replace(f"{tmp_path}/two", "")


def test_remote_locations_open_again_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store stands in: a filesystem that is not the local one, behind URIs with options."""

    def open_location(location: Any) -> Any:
        address, _, options = location.removeprefix("mem://").partition("?")
        assert options == "region=kr"
        assert address.isascii()
        return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), unquote(address)

    monkeypatch.setattr(files, "open_location", open_location)
    put(tmp_path / "bucket" / "원천 100%" / "c.wav", b"audio")
    put_zip(tmp_path / "bucket" / "TL_광주_구조.zip", "c.json", content=b"label")
    rows = plan("mem://bucket?region=kr")
    assert reasons(rows) == {"c": None}
    assert rows["c"]["region"] == "광주"
    assert read_file(rows["c"]["audio_container"], rows["c"]["audio_member"], 9) == b"audio"
    assert read_file(rows["c"]["label_container"], rows["c"]["label_member"], 9) == b"label"


def test_a_file_uri_is_a_root(tmp_path: Path) -> None:
    put(tmp_path / "c.wav", b"audio")
    row = plan(f"file://{tmp_path}")["c"]
    assert read_file(row["audio_container"], None, 9) == b"audio"


# --- reading


def test_a_file_of_just_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    file, archive = put(tmp_path / "c.wav", b"12345"), put_zip(tmp_path / "a.zip", "c.wav", content=b"12345")
    for container, member in ((file, None), (archive, "c.wav")):
        assert read_file(str(container), member, 5) == b"12345"
        assert reason_of(container, member, 4) == Reason.FILE_TOO_LARGE


@pytest.mark.parametrize("claimed", [None, 1000])
def test_a_zip_bomb_costs_no_more_memory_than_the_limit(tmp_path: Path, claimed: int | None) -> None:
    archive = put_zip(tmp_path / "a.zip", "c.wav", content=bytes(50 << 20), method=zipfile.ZIP_DEFLATED)
    if claimed is not None:  # the directory lies
        patch_directory(archive, 24, claimed.to_bytes(4, "little"))
    tracemalloc.start()
    reason = reason_of(archive, "c.wav", limit=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason == (Reason.FILE_TOO_LARGE if claimed is None else Reason.UNREADABLE_FILE)
    assert peak < 8 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_members_are_unreadable(tmp_path: Path, method: Any) -> None:
    content = np.random.default_rng(0).integers(0, 8, 5000, np.uint8).tobytes()
    archive = put_zip(tmp_path / "a.zip", "c.wav", content=content, method=method)
    damaged = bytearray(archive.read_bytes())
    damaged[500] ^= 0xFF
    archive.write_bytes(damaged)
    assert reason_of(archive, "c.wav") == Reason.UNREADABLE_FILE


def test_what_is_gone_is_unreadable(tmp_path: Path) -> None:
    archive = put_zip(tmp_path / "a.zip", "c.wav")
    assert reason_of(archive, "d.wav") == Reason.UNREADABLE_FILE
    assert reason_of(tmp_path / "absent.zip", "c.wav") == Reason.UNREADABLE_FILE
    assert reason_of(tmp_path / "absent.wav", None) == Reason.UNREADABLE_FILE


class Unsteady:
    """A filesystem that fails the first `failures` times that a file is opened, as a store out of reach does."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.local = fs.LocalFileSystem()

    def get_file_info(self, what: Any) -> Any:
        return self.local.get_file_info(what)

    def open_input_file(self, path: Any) -> Any:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("AWS Error SLOW_DOWN during GetObject operation")
        return self.local.open_input_file(path)


@pytest.mark.parametrize("failures", [1, 2, 3])
@pytest.mark.parametrize("member", ["c.wav", None])
def test_what_is_out_of_reach_for_a_while_is_read_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str | None, failures: int
) -> None:
    path = put_zip(tmp_path / "a.zip", "c.wav", content=b"sound") if member else put(tmp_path / "c.wav", b"sound")
    # Each attempt opens the file twice: to read it, and to see whether the file itself is at fault.
    unsteady = Unsteady(failures)
    monkeypatch.setattr(files, "_RETRY_SEC", (0.0, 0.0))
    monkeypatch.setattr(files, "open_location", lambda location: (unsteady, location))
    files._cached_archive.cache_clear()
    assert read_file(str(path), member, 100) == b"sound"


@pytest.mark.parametrize("member", ["c.wav", None])
def test_what_stays_out_of_reach_is_no_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str | None) -> None:
    path = put_zip(tmp_path / "a.zip", "c.wav") if member else put(tmp_path / "c.wav")
    monkeypatch.setattr(files, "_RETRY_SEC", (0.0, 0.0))
    unsteady = Unsteady(failures=100)
    monkeypatch.setattr(files, "open_location", lambda location: (unsteady, location))
    files._cached_archive.cache_clear()
    with pytest.raises(UnreachableError, match=r"cannot be reached: OSError: AWS Error SLOW_DOWN .*; what is done is kept"):
        read_file(str(path), member, 100)


def test_a_disk_that_is_not_mounted_is_no_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_RETRY_SEC", ())
    for container, member in ((tmp_path / "unmounted" / "a.zip", "c.wav"), (tmp_path / "unmounted" / "c.wav", None)):
        with pytest.raises(UnreachableError, match="cannot be reached: FileNotFoundError"):
            read_file(str(container), member, 100)


def test_an_archive_out_of_reach_stops_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_zip(tmp_path / "a.zip", "c.wav")
    root = open_location(str(tmp_path))
    monkeypatch.setattr(files, "_RETRY_SEC", (0.0, 0.0))
    for failures, reached in ((3, True), (100, False)):
        unsteady = Unsteady(failures)
        monkeypatch.setattr(files, "open_location", lambda at, its=unsteady: (its, at) if at == str(path) else root)
        with contextlib.nullcontext() if reached else pytest.raises(UnreachableError, match=r"a\.zip: cannot be reached"):
            assert plan_calls(DataConfig(root=str(tmp_path)))["reason"].to_pylist() == ["missing_label"]


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(edits=st.lists(st.tuples(st.integers(0, 250), st.binary(min_size=1, max_size=4)), max_size=4))
def test_any_mutated_archive_is_planned_and_read_or_rejected(tmp_path: Path, edits: Any) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c.wav", bytes(100))
        archive.writestr("c.json", b"{}")
    content = bytearray(file.getvalue())
    for start, new in edits:
        content[start : start + len(new)] = new
    files._cached_archive.cache_clear()
    put(tmp_path / "a.zip", bytes(content))
    put(tmp_path / "other.wav")
    for row in plan_calls(DataConfig(root=str(tmp_path))).to_pylist():
        if row["audio_container"] and row["reason"] in (None, "missing_label"):
            with contextlib.suppress(Reject):
                assert len(read_file(row["audio_container"], row["audio_member"], 1000)) <= 1000


FLAWS = {
    "label without a WAV": "missing_audio",
    "WAV without a label": "missing_label",
    "WAV cut off after a third: header promises more samples": "truncated_audio",
    "WAV header only, no samples": "empty_audio",
    "WAV of zero bytes": "empty_audio",
    "an HTML page named .wav": "not_audio",
    "urgencyLevel outside 하/중/상": "unknown_urgency",
    "no urgencyLevel": "missing_urgency",
    "no utterances, so no text": "no_text",
    "label file cut off: invalid JSON": "invalid_json",
}


@pytest.mark.skipif(not SPOKEN_CALLS.is_dir(), reason="the shared spoken_calls are not beside this checkout")
def test_of_real_calls_just_the_flawed_are_rejected_each_for_its_flaw() -> None:
    flaws = {entry["stem"]: entry for entry in json.loads((SPOKEN_CALLS / "flaws.json").read_text(encoding="utf-8"))}
    rows = plan(SPOKEN_CALLS)
    data = DataConfig()
    found, transcripts, waveforms, labels = {}, {}, {}, {}
    for stem, row in rows.items():
        try:
            if row["reason"]:
                raise Reject(Reason(row["reason"]))
            labels[stem] = parse_label(read_file(row["label_container"], row["label_member"], MAX_LABEL_BYTES), True)
            content = read_file(row["audio_container"], row["audio_member"], max_audio_bytes(data))
            waveforms[stem] = decode_audio(content, 16_000, data.max_call_sec).waveform
            transcripts[stem] = join_transcript(labels[stem].utterances, "all")
            if not transcripts[stem]:
                raise Reject(Reason.NO_TEXT)
        except Reject as reject:
            found[stem] = str(reject.reason)

    expected = {stem: FLAWS[entry["flaw"]] for stem, entry in flaws.items() if entry["expected"].startswith("rejected")}
    assert found == expected | {"flaws": "missing_audio"}  # flaws.json itself looks like a label
    assert len(rows) == 150 + 1
    splits = [row["provider_split"] for row in rows.values() if row["region"] == "광주"]
    assert (splits.count("training"), splits.count("validation")) == (120, 30)
    assert all(6.0 <= len(waveforms[stem]) / 16_000 <= 28.5 for stem in rows.keys() - found.keys())

    copy, original = "c6b32af2303765571a53e937_20230207120757", "e275a8ed12aaa0d833abf95f_20230324043224"
    np.testing.assert_array_equal(waveforms[copy], waveforms[original])
    by_flaw = {entry["flaw"]: stem for stem, entry in flaws.items()}
    masked = by_flaw["an utterance masked for privacy"]
    assert any("***" in utterance.text for utterance in labels[masked].utterances)
    assert "*" not in transcripts[masked]
    late = by_flaw["last utterance ends a minute after the audio"]
    last = labels[late].utterances[-1]
    assert last.start_ms is not None and last.end_ms is not None
    span = cut(waveforms[late], 16_000, last.start_ms, last.end_ms)
    assert len(span) == len(waveforms[late]) - last.start_ms * 16
    backwards = labels[by_flaw["an utterance that ends before it starts"]].utterances
    assert sum((utterance.end_ms or 0) < (utterance.start_ms or 0) for utterance in backwards) == 1
