"""No file below the root is passed over without a word: what is not read is a row or is counted."""

import io
import os
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from call_files import plan, put, put_zip, reasons, tarred, zipped

from urgency_ray.accounts import FilesSeen
from urgency_ray.calls import archives
from urgency_ray.calls.files import read_file
from urgency_ray.calls.plan import files_seen, plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.embedding.stages import decode_calls
from urgency_ray.errors import Reject, RequestError

PAIR = {"c.wav": b"audio", "c.json": b"label"}


def seen(root: Path) -> FilesSeen:
    found = files_seen(plan_calls(DataConfig(root=str(root))))
    assert found is not None
    assert found.seen == found.read + sum(found.not_read.values())
    return found


def contents(row: dict[str, Any]) -> tuple[bytes, bytes]:
    return tuple(read_file(row[f"{side}_container"], row[f"{side}_member"], 99) for side in ("audio", "label"))  # type: ignore[return-value]


# --- what is counted


def test_files_of_no_use_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in (
        "c.wav",
        "c.json",
        "labels.CSV",
        "a/notes.txt",
        "b/more.txt",
        "README",
        "x.tar.gz",
        ".hidden",
        ".git/config",
        "d.docx",
    ):
        put(tmp_path / name)
    put_zip(tmp_path / "a.zip", "x/", "x/readme.txt", "__MACOSX/x", "e.wav")
    found = seen(tmp_path)
    assert (found.seen, found.read) == (14, 4)
    assert found.not_read == {"hidden": 3, ".txt": 3, ".csv": 1, "without suffix": 1, ".tar.gz": 1, ".docx": 1}
    line = found.lines()[0]
    assert line.startswith("14 files seen = 4 read + 10 not read (3 ")
    assert "1 without suffix" in line


def test_calls_are_counted_by_split_and_copies_apart(tmp_path: Path) -> None:
    for folder in ("Training/a", "Training/b", "Validation/c", "d"):
        for suffix in ("wav", "json"):
            put(tmp_path / f"{folder}/{folder[-1]}.{suffix}")
    put(tmp_path / "Training/a/wav/a.wav")
    put(tmp_path / "lonely.wav")
    found = seen(tmp_path)
    assert found.calls_by_split == {"training": 2, "validation": 1, "unknown": 1}
    assert found.copies == 1
    assert found.lines()[1:] == [
        "calls that can be read, by the provider's split: 2 training, 1 validation, 1 unknown",
        "copies of these calls, set aside as duplicate_stem: 1; nothing is lost with them",
    ]


def test_near_misses_are_one_line(tmp_path: Path) -> None:
    for name in ("A.wav", "a.json", "B.wav", "b.json", "c d.wav", "cd.json"):
        put(tmp_path / name)
    found = seen(tmp_path)
    assert found.near_misses == {"in upper and lower case": 2, "in blanks": 1}
    assert found.lines()[-1].startswith(
        "hint: 3 WAVs have no label but for a small difference in its name (2 in upper and lower case, 1 "
    )


def test_counts_that_do_not_add_up_are_a_bug() -> None:
    with pytest.raises(RuntimeError, match="3 files seen, but 1 read and 1 not read"):
        FilesSeen(seen=3, read=1, not_read={".txt": 1}, calls_by_split={}, copies=0, near_misses={}).lines()


def test_many_suffixes_are_summed_up_in_the_line() -> None:
    found = FilesSeen(seen=20, read=0, not_read={f".{n}": 1 for n in range(20)}, calls_by_split={}, copies=0, near_misses={})
    assert found.lines()[0].endswith("1 .6, 1 .7, 12 of other suffixes)")


# --- archives of other kinds, and in parts


@pytest.mark.parametrize(
    ("names", "row", "says"),
    [
        (
            ["TS_a.zip.part0", "TS_a.zip.part1"],
            "TS_a.zip",
            "join all by number: ls -v TS_a.zip.part* | xargs",
        ),
        (["x y.zip.part0"], "x y.zip", "xargs -d '\\n' cat > 'x y.zip'"),
        (["TS_a.zip.001", "TS_a.zip.002"], "TS_a.zip", "ls -v TS_a.zip.*"),
        (["TS_a.zip.partaa", "TS_a.zip.partab"], "TS_a.zip", "2 parts of TS_a.zip"),
        (["TS_a.tar.aa", "TS_a.tar.ab"], "TS_a.tar", "2 parts of TS_a.tar"),
        (["TS_a.z01", "TS_a.z02"], "TS_a.z01", "2 parts of a split zip without its last, TS_a.zip"),
        (["a.part1.rar", "a.part2.rar"], "a.part1.rar", "unpack it first"),
        (["a.tar.gz"], "a.tar.gz", "unpack it first"),
        (["a.7Z"], "a.7Z", "unpack it first"),
        (["a.egg"], "a.egg", "unpack it first"),
        (["a.zip.crdownload"], "a.zip.crdownload", "did not finish"),
        (["Unconfirmed 1.crdownload"], "Unconfirmed 1.crdownload", "did not finish"),
        (["a.zip.part"], "a.zip.part", "did not finish"),
    ],
)
def test_archives_that_are_not_read_are_a_row_that_says_what_to_do(tmp_path: Path, names: Any, row: str, says: str) -> None:
    for name in names:
        put(tmp_path / name)
    with pytest.raises(RequestError, match="holds no calls") as caught:
        plan(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    put(tmp_path / "c.wav")
    rows = plan(tmp_path)
    assert reasons(rows) == {row: "unreadable_archive", "c": "missing_label"}
    assert says in rows[row]["detail"]
    assert sum(seen(tmp_path).not_read.values()) == len(names)


def test_parts_beside_what_was_joined_from_them_are_counted_alone(tmp_path: Path) -> None:
    put_zip(tmp_path / "TS_a.zip", "c.wav", "c.json")
    put(tmp_path / "TS_a.zip.part0")
    assert reasons(plan(tmp_path)) == {"c": None}
    assert seen(tmp_path).not_read == {".zip.part": 1}


@pytest.mark.parametrize(
    ("sizes", "gap"),
    [
        ({0: 70_000, 70_000: 70_000, 140_000: 5}, None),
        ({0: 5, 1: 5, 2: 5}, None),
        ({0: 70_000, 140_000: 5}, ".part140000"),
        ({0: 60_000, 70_000: 5}, ".part70000"),
        ({70_000: 5}, ".part70000"),
    ],
)
def test_a_part_that_is_missing_is_noticed_by_the_bytes_where_the_parts_start(tmp_path: Path, sizes: Any, gap: Any) -> None:
    for start, size in sizes.items():
        put(tmp_path / f"TS_a.zip.part{start}", bytes(size))
    put(tmp_path / "c.wav")
    detail = plan(tmp_path)["TS_a.zip"]["detail"]
    assert detail.partition("; what comes before ")[2] == (
        f"{gap} is missing or cut off: download it again first" if gap else ""
    )


def test_parts_in_a_tar_name_the_tar(tmp_path: Path) -> None:
    put(tmp_path / "download.tar", tarred({f"119/TS_a.zip.part{number}": b"x" for number in (0, 1)}))
    put(tmp_path / "c.wav")
    assert plan(tmp_path)["TS_a.zip"]["detail"].startswith(
        "in download.tar: unpack it first; 2 parts of TS_a.zip: join all by number"
    )


@pytest.mark.parametrize("suffix", ["md", "txt", "py"])
def test_an_ordinary_suffix_behind_an_archive_s_makes_no_part(tmp_path: Path, suffix: str) -> None:
    put(tmp_path / "c.wav")
    put(tmp_path / f"a.zip.{suffix}")
    assert list(plan(tmp_path)) == ["c"]


def split_zip(whole: bytes) -> bytes:
    """The last part of a split zip: its directory counts the parts."""
    content = bytearray(whole[len(whole) // 2 :])
    end = content.rindex(b"PK\x05\x06")
    content[end + 4 : end + 8] = struct.pack("<HH", 1, 1)
    return bytes(content)


MANY = {f"{number}.wav": os.urandom(2000) for number in range(30)}
WHOLE = zipped(MANY)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            tarred({"TS_a.zip.part0": WHOLE[:30_000], "TS_a.zip.part30000": WHOLE[30_000:]}),
            "TS_a.zip is a tar, whatever its name says",
        ),
        (split_zip(WHOLE), "the last part of a split zip"),
        (WHOLE[30_000:], "its files are not where its directory says"),
        (WHOLE[:30_000], "a zip without its end"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive"),
        (b"Rar!\x1a\x07" + bytes(99), "a RAR archive"),
        (b"\x1f\x8b\x08" + bytes(99), "a gzip file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"error": "expired"}', "a JSON text, perhaps a server's error"),
        (b"", "zero bytes"),
        (b"whatever", "no whole zip file"),
    ],
)
def test_what_is_named_a_zip_and_is_none_is_one_row_that_says_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    put(tmp_path / "TS_a.zip", content)
    put(tmp_path / "0.json")
    rows = plan(tmp_path)
    assert reasons(rows) == {"0": "missing_audio", "TS_a.zip": "unreadable_archive"}
    assert says in rows["TS_a.zip"]["detail"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\x1f\x8b\x08" + bytes(99), "no tar: a gzip file; unpack it first"), (b"what", "damaged or cut off")],
)
def test_what_is_named_a_tar_and_is_none_says_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    put(tmp_path / "TS_a.tar", content)
    put(tmp_path / "0.json")
    assert says in plan(tmp_path)["TS_a.tar"]["detail"]


MISTAKEN = {
    "a web page, perhaps of a login; download it again": b"\r\n<!DOCTYPE html>",
    "a Git-LFS pointer; run `git lfs pull` where it came from, and copy it again": b"version https://git-lfs.github.com/spec/v1\n",
    "a gzip file; unpack it first": b"\x1f\x8b\x08" + bytes(99),
    "a zip file; unpack it first": zipped({"a.wav": b"audio"}),
}


@pytest.mark.parametrize("says", MISTAKEN)
def test_what_is_named_a_recording_or_a_label_and_is_none_says_what_it_is(tmp_path: Path, says: str) -> None:
    put(tmp_path / "a.wav", MISTAKEN[says])
    put(tmp_path / "a.json", b'{"utterances": [{"text": "a"}], "urgencyLevel": "\xed\x95\x98"}')
    put(tmp_path / "b.wav")
    put(tmp_path / "b.json", MISTAKEN[says])
    data = DataConfig(root=str(tmp_path))
    recording, label = decode_calls(plan_calls(data), data).to_pylist()
    assert (recording["reason"], recording["detail"]) == ("not_audio", f"a.wav: {says}")
    assert (label["reason"], label["detail"]) == ("invalid_json", says)


def test_parts_joined_in_another_order_lose_no_call_without_advice(tmp_path: Path) -> None:
    put(tmp_path / "TS_a.zip", WHOLE[:10_000] + WHOLE[30_000:40_000] + WHOLE[10_000:30_000] + WHOLE[40_000:])
    put(tmp_path / "TL_a.zip", zipped({name.replace("wav", "json"): b"" for name in MANY}))
    rows = plan(tmp_path)
    assert len(rows) == len(MANY)
    lost = [row for row in rows.values() if row["reason"] == "unreadable_file"]
    assert 10 < len(lost) < 20
    assert all("parts were not joined by their numbers" in row["detail"] for row in lost)


def test_an_empty_archive_is_no_fault(tmp_path: Path) -> None:
    put(tmp_path / "a.zip", zipped({}))
    put(tmp_path / "b.tar", tarred({}))
    put(tmp_path / "c.wav")
    assert list(plan(tmp_path)) == ["c"]


def test_of_a_name_twice_in_a_zip_the_one_that_is_read_is_planned(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("c.wav", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("c.wav", b"second one")
    put(tmp_path / "c.json")
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "c#2": "duplicate_stem"}
    assert contents(rows["c"])[0] == b"second one"
    assert rows["c"]["num_bytes"] == 10


# --- tars, and archives inside archives


@pytest.mark.parametrize("format", ["GNU_FORMAT", "PAX_FORMAT", "USTAR_FORMAT"])
def test_a_tar_is_read_in_place(tmp_path: Path, format: str) -> None:
    import tarfile

    members = {"원천/신고.wav": b"audio", "./라벨/신고.json": b"label", "/notes.txt": b""}
    put(tmp_path / "TS_서울_구급.tar", tarred(members, format=getattr(tarfile, format)))
    rows = plan(tmp_path)
    assert reasons(rows) == {"신고": None}
    assert contents(rows["신고"]) == (b"audio", b"label")
    assert (rows["신고"]["region"], rows["신고"]["provider_split"]) == ("서울", "training")
    assert seen(tmp_path).not_read == {".txt": 1}


def test_names_in_a_tar_of_old_korean_tools_are_read_as_they_were_meant(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", tarred({"신고.wav": b"audio", "신고.json": b"label"}, format=1, encoding="cp949"))
    assert contents(plan(tmp_path)["신고"]) == (b"audio", b"label")


def test_a_tar_that_is_cut_off_or_holds_links_says_so(tmp_path: Path) -> None:
    import tarfile

    put(tmp_path / "cut.tar", tarred({"a.wav": bytes(20_000)})[:10_000])
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        link = tarfile.TarInfo("b.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        archive.addfile(link)
    put(tmp_path / "links.tar", sink.getvalue())
    rows = plan(tmp_path)
    assert reasons(rows) == {"b": "unreadable_file", "cut.tar": "unreadable_archive"}
    assert "cut off" in rows["cut.tar"]["detail"]
    assert "a link" in rows["b"]["detail"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_inside_an_archive_are_read(tmp_path: Path, method: int, pack: Any) -> None:
    for split in ("Training", "Validation"):
        kinds = {f"1.원천데이터/{split[0]}S_서울_구급.zip": "wav", f"2.라벨링데이터/{split[0]}L_서울_구급.zip": "json"}
        inner = {name: pack({f"in/{split}.{suffix}": f"{split} {suffix}".encode()}) for name, suffix in kinds.items()}
        put(tmp_path / f"{split}.zip", zipped(inner, method))
    rows = plan(tmp_path)
    assert reasons(rows) == {"Training": None, "Validation": None}
    for split, row in rows.items():
        assert contents(row) == (f"{split} wav".encode(), f"{split} json".encode())
        assert (row["provider_split"], row["region"]) == (split.lower(), "서울")
    assert seen(tmp_path).seen == 2 + 4 + 4


def test_a_zip_inside_a_tar_is_read_and_its_zip_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", tarred({"in.zip": zipped({**PAIR, "deeper.zip": zipped(PAIR)})}))
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": None, "deeper.zip": "unreadable_archive"}
    assert contents(rows["c"]) == (b"audio", b"label")
    assert "an archive inside an archive inside an archive" in rows["deeper.zip"]["detail"]


def test_a_packed_archive_inside_an_archive_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_INNER_BYTES", 1000)
    for method, reason in ((zipfile.ZIP_DEFLATED, {"in.zip": "unreadable_archive"}), (zipfile.ZIP_STORED, {"c": None})):
        put(tmp_path / "a.zip", zipped({"in.zip": zipped({"c.wav": bytes(2000), "c.json": b""})}, method))
        assert reasons(plan(tmp_path)) == reason


@pytest.mark.parametrize("name", ["119.zip", "119.tar", "119.ZIP"])
def test_the_root_may_be_one_archive(tmp_path: Path, name: str) -> None:
    root = put(tmp_path / "x" / name, (tarred if name.endswith("tar") else zipped)(PAIR))
    rows = plan(root)
    assert contents(rows["c"]) == (b"audio", b"label")
    assert plan(root.as_uri()) == rows


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training", "training"),
        ("VALIDATION", "validation"),
        ("1. Training", "training"),
        ("1.Training", "training"),
        ("01_Validation", "validation"),
        ("[Training]", "training"),
        ("Training_0725", "training"),
        ("Validation (1)", "validation"),
        ("02.검증", "validation"),
        ("[2] Validation", "validation"),
        ("학습용 데이터", "training"),
        ("검증 데이터셋", "validation"),
        ("Training_set", "training"),
        ("Training.zip", "training"),
        ("validation.zip", "validation"),
        ("TS.zip", "training"),
        ("VS1_서울_구급.zip", "validation"),
        ("retraining", "unknown"),
        ("training notes", "unknown"),
        ("evaluation", "unknown"),
    ],
)
def test_the_split_is_understood_however_it_is_spelled(tmp_path: Path, name: str, split: str) -> None:
    if name.endswith(".zip"):
        put(tmp_path / name, zipped(PAIR))
    else:
        for file, content in PAIR.items():
            put(tmp_path / name / file, content)
    assert plan(tmp_path)["c"]["provider_split"] == split


# --- a disk that is not to be trusted


def test_links_are_followed_once_and_never_back(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    put(root / "calls" / "c.wav")
    put(root / "calls" / "c.json")
    put(elsewhere / "d.wav")
    for name, target in {
        "calls/loop": "..",
        "calls/far": "../..",
        "again": "calls",
        "a-linked": str(elsewhere),
        "z-linked": str(elsewhere),
        "calls/self": "self",
        "calls/broken.wav": "gone.wav",
        "calls/broken.txt": "gone.txt",
        "calls/d.json": "c.json",
    }.items():
        (root / name).symlink_to(target)
    rows = plan(root)
    assert reasons(rows) == {"c": None, "d": None, "broken": "unreadable_file"}
    assert rows["broken"]["detail"] == "a link to what is not there: FileNotFoundError"
    assert rows["d"]["audio_container"] == str(root / "a-linked" / "d.wav")
    assert seen(root).not_read == {"without suffix": 1, ".txt": 1}


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "r"
    put(root / "c.wav")
    os.mkfifo(root / "fifo.wav")
    os.mkfifo(root / "fifo.zip")
    os.mkfifo(root / "pipe")
    (root / "zero.json").symlink_to("/dev/zero")
    monkeypatch.chdir(root)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket.wav")
    (root / "folder.wav").mkdir()
    rows = plan(root)
    assert reasons(rows) == {"c": "missing_label"} | dict.fromkeys(["fifo", "fifo.zip", "zero", "socket"], "unreadable_file")
    assert rows["fifo"]["detail"] == "a FIFO, not a regular file; it is not opened"
    with pytest.raises(Reject, match="not a regular file; it is not opened"):
        read_file(str(root / "fifo.wav"), None, 9)  # it may take a file's place after the plan
    assert seen(root).not_read == {"without suffix": 1, ".zip": 1}


def test_a_folder_that_cannot_be_listed_is_a_row_and_a_hidden_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "c.wav")
    for name in ("locked", ".Trash-0", "lost+found", "$RECYCLE.BIN"):
        put(tmp_path / name / "d.wav")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path != str(tmp_path):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    rows = plan(tmp_path)
    assert reasons(rows) == {"c": "missing_label", "locked": "unreadable_file"}
    assert rows["locked"]["detail"] == "the folder cannot be listed: PermissionError"
    assert seen(tmp_path).not_read["hidden"] == 3


@pytest.mark.parametrize("number", [5, 116])  # EIO, ESTALE
def test_a_disk_that_fails_stops_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    put(tmp_path / "a" / "c.wav")
    scandir = os.scandir

    def fail(path: str) -> Any:
        if path != str(tmp_path):
            raise OSError(number, "out of order")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(RequestError, match="cannot be listed: OSError"):
        plan(tmp_path)


def test_the_counts_travel_with_the_plan(tmp_path: Path) -> None:
    put(tmp_path / "c.wav")
    table = plan_calls(DataConfig(root=str(tmp_path)))
    assert files_seen(table.filter(pa.array([True]))) == files_seen(table) == seen(tmp_path)
