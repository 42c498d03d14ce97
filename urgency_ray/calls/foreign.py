"""Files that are not read: parts of archives, archives of other kinds, downloads that did not finish or were something else."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import NamedTuple

_PACKED = r"(?:zip|tar|7z|rar|egg|alz|tgz|tar\.gz|tar\.bz2|tar\.xz)"
# AI-Hub's TS_….zip.part0, .part1073741824; 7-Zip's .zip.001; split's .zip.aa and .zip.partaa.
_PART = re.compile(rf"(?P<whole>.+\.{_PACKED})\.(?:part[_.]?(?:\d+|a[a-z])|\d{{2,}}|a[a-z])", re.IGNORECASE)
_SPLIT_ZIP = re.compile(r"(?P<whole>.+)\.z\d{2,}", re.IGNORECASE)
_VOLUME = re.compile(r"(?P<whole>.+)\.(?:part\d+\.rar|[rae]\d{2})", re.IGNORECASE)
_UNFINISHED = re.compile(
    rf"(?P<whole>.+)\.(?:crdownload|partial|download|opdownload|aria2|filepart)|(?P<inner>.+\.{_PACKED})\.(?:part|tmp|temp)",
    re.IGNORECASE,
)
_OFFSET = re.compile(r"\.part(\d+)$", re.IGNORECASE)
_LEAST_OFFSET = 1 << 16  # smaller numbers count the parts
_TWO_SUFFIXES = re.compile(r".+(\.tar\.(?:gz|bz2|xz|zst|lzma)|\.(?:zip|tar|7z)\.part)(?:[_.]?\d+)?", re.IGNORECASE)
_ARCHIVE_SUFFIXES = frozenset(
    {
        ".7z",
        ".rar",
        ".egg",
        ".alz",
        ".tgz",
        ".tbz",
        ".tbz2",
        ".txz",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".lz4",
        ".lzma",
        ".z",
        ".zipx",
    }
)
# What a file may be instead of what its name says.
_HEADS = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"EGGA", "an EGG archive; unpack it first"),
    (b"ALZ\x01", "an ALZ archive; unpack it first"),
    (b"PK\x03\x04", "a zip file; unpack it first"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
    (b"version https://git-lfs", "a Git-LFS pointer; run `git lfs pull` where it came from, and copy it again"),
)
HEAD_BYTES = 64
"""Of a file tell what it is."""
_ORDINARY_SUFFIX = re.compile(r"\.[a-z0-9+~_-]{1,12}")


class Foreign(NamedTuple):
    """What a name says that its file is: `kind` is part, split, volume, unfinished or archive; `whole` names the archive."""

    kind: str
    whole: str


def classify(filename: str) -> Foreign | None:
    """What kind of archive, or part of one, a file is that is not read; None where it is no archive by its name."""
    if found := _UNFINISHED.fullmatch(filename):
        return Foreign("unfinished", found["whole"] or found["inner"])
    if posixpath.splitext(filename)[1].lower() in _ARCHIVE_SUFFIXES and not _VOLUME.fullmatch(filename):
        return Foreign("archive", filename)
    if found := _PART.fullmatch(filename):
        return Foreign("part", found["whole"])
    if found := _SPLIT_ZIP.fullmatch(filename):
        return Foreign("split", f"{found['whole']}.zip")
    if found := _VOLUME.fullmatch(filename):
        return Foreign("volume", found["whole"])
    return None


def suffix_of(filename: str) -> str:
    """The suffix under which a file that is not read is counted."""
    if found := _TWO_SUFFIXES.fullmatch(filename):
        return found[1].lower()
    suffix = posixpath.splitext(filename)[1].lower()
    if not suffix:
        return "without suffix"
    return suffix if _ORDINARY_SUFFIX.fullmatch(suffix) else "other"


def describe_head(content: bytes) -> str | None:
    """What a file is that is not what its name says, by its first `HEAD_BYTES`, and what to do; None where they do not tell."""
    head = content[:HEAD_BYTES]
    if head.lstrip()[:1] == b"<":
        return "a web page, perhaps of a login; download it again"
    return next((words for magic, words in _HEADS if head.startswith(magic)), None)


def missing_part(sizes: dict[str, int]) -> str | None:
    """Of AI-Hub's parts, whose numbers are the bytes where they start, what the first gap is before; None where there is none.

    Args:
        sizes: bytes of each part, by its file name.
    """
    starts = sorted((int(found[1]), size) for name, size in sizes.items() if (found := _OFFSET.search(name)))
    if len(starts) < len(sizes) or starts[-1][0] < _LEAST_OFFSET:
        return None
    end = 0
    for start, size in starts:
        if start != end:
            return f".part{start}"
        end = start + size
    return None


def advice(found: Foreign, names: list[str], outer: str | None) -> str:
    """What to do with the files of one archive.

    Args:
        found: what they are.
        names: their file names, at least one.
        outer: the archive that they lie in, if any, as the line begins.
    """
    unpack = f"{outer}: unpack it first; " if outer else ""
    several = f"{len(names)} parts" if len(names) > 1 else "a part"
    if found.kind == "part":
        whole, start = found.whole, ".part" if ".part" in names[0].lower() else "."
        command = f"ls -v {shlex.quote(whole + start)}* | xargs -d '\\n' cat > {shlex.quote(whole)}"
        return f"{unpack}{several} of {whole}: join all by number: {command}"
    if found.kind == "split":
        return f"{unpack}{several} of a split zip without its last, {found.whole}: download that as well, and join them"
    if found.kind == "volume":
        return f"{unpack}{several} of a split archive of a kind that is not read (only .zip and .tar are): unpack it first"
    if found.kind == "unfinished":
        return f"{unpack}a download that did not finish: download it again"
    return f"{unpack}an archive of a kind that is not read (only .zip and .tar are): unpack it first"
