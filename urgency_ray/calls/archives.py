"""Zips and tars read in place, also one that lies inside another. Nothing is unpacked: a member's name is never a path.

Raw names, which `files.read_file` takes, are kept beside the names as they were meant.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

from urgency_ray.calls.foreign import HEAD_BYTES, describe_head
from urgency_ray.errors import Reason, Reject

Fault = tuple[Reason, str] | None

INNER = "\0"
"""Between the raw names of an archive inside an archive and of its member: neither format has it in a name."""
MAX_INNER_BYTES = 1 << 28
"""A packed archive inside an archive is unpacked into memory, where it is no larger; a stored one is read in place."""
_BUFFER_BYTES = 1 << 16
_LOCAL_HEADER_BYTES = 30
_HEADERS_CHECKED = 4
_JOIN_AGAIN = "a part is missing, or parts were not joined by their numbers; join them again, or download it again"
_DRIVE = re.compile("[A-Za-z]:")
_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "bzip2", 14: "LZMA", 20: "Zstandard", 93: "Zstandard", 95: "XZ"}
_METHODS |= {98: "PPMd", 99: "AES encryption"}
# What of a zip a file may be that is no whole one.
_PARTS = (
    (b"PK\x07\x08", "the first part of a split zip; join the parts: zip -s 0 NAME.zip --out WHOLE.zip"),
    (b"{", "a JSON text, perhaps a server's error; download it again"),
    (b"PK\x03\x04", "a zip without its end: a download cut off, or one part of several; download it again, or join the parts"),
)


class Member(NamedTuple):
    """A file in an archive: its raw name, the folder and the name as they were meant, and what its directory says of it."""

    raw: str
    folder: str
    filename: str
    num_bytes: int
    version: str
    fault: Fault


class Stretch(io.RawIOBase):
    """A stretch of an Arrow file. A seek before its start is an OSError, as zipfile awaits it; Arrow raises a ValueError."""

    def __init__(self, file: pa.NativeFile, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The next byte's place in the stretch."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place in the stretch, or behind it."""
        place = offset + (0, self._at, self._size)[whence]
        if place < 0:
            raise OSError(errno.EINVAL, "a place before the start of the file")
        self._at = place
        return place

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the stretch goes."""
        wanted = max(0, min(len(buffer), self._size - self._at))
        # Not `read_at`, whose bytes would be copied once more: a recording is read several times slower.
        if wanted:
            self._file.seek(self._start + self._at)
        num_bytes: int = self._file.readinto(memoryview(buffer)[:wanted]) if wanted else 0
        self._at += num_bytes
        return num_bytes


def open_archive(
    file: pa.NativeFile, start: int = 0, size: int | None = None, *, is_tar: bool = False
) -> ZipArchive | TarArchive:
    """The archive in a stretch of a file, whatever its name says; `is_tar` helps with tars so old that they do not say it.

    Raises:
        Reject: unreadable_archive: it is something else, or its directory is damaged.
        OSError, ValueError, zipfile.BadZipFile and others: it cannot be read.
    """
    size = file.size() if size is None else size
    head = file.read_at(min(512, size), start)
    if not head:
        raise Reject(Reason.UNREADABLE_ARCHIVE, "zero bytes; download it again")
    if (is_tar or head[257:262] == b"ustar") and not head.startswith(b"PK\x03\x04"):
        return TarArchive(file, start, size)
    try:
        return ZipArchive(file, start, size)
    except zipfile.BadZipFile as error:
        known = next((words for magic, words in _PARTS if head.startswith(magic)), None) or describe_head(head)
        raise Reject(Reason.UNREADABLE_ARCHIVE, f"no whole zip file ({error})" + (f": {known}" if known else "")) from None


class ZipArchive:
    """A zip file."""

    is_tar = False

    def __init__(self, file: pa.NativeFile, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._is_whole = True
        # zipfile asks for a header, a name and the content in turn: the buffer makes one request to an object store of them.
        self._zip = zipfile.ZipFile(io.BufferedReader(Stretch(file, start, size), _BUFFER_BYTES))

    def check(self) -> None:
        """Whether the directory speaks of this file.

        Raises:
            Reject: unreadable_archive: it is the last part of a split zip, or none of the members looked at is where it says.
            OSError: it cannot be read.
        """
        tail = self._file.read_at(min(self._size, 1 << 16), self._start + max(0, self._size - (1 << 16)))
        end = tail.rfind(b"PK\x05\x06")
        disk = int.from_bytes(tail[end + 4 : end + 6], "little") if end >= 0 else 0
        infos = self._zip.infolist()
        if disk not in (0, 0xFFFF) or any(info.volume not in (0, 0xFFFF) for info in infos):
            raise Reject(
                Reason.UNREADABLE_ARCHIVE,
                "the last part of a split zip; join it with its .z01 and so on: zip -s 0 NAME.zip --out WHOLE.zip",
            )
        step = max(1, len(infos) // _HEADERS_CHECKED)
        there = [self._is_there(info) for info in [*infos[::step], *infos[-1:]]] if len(infos) > 1 else [True]
        if not any(there) or any(info.header_offset < 0 for info in infos):
            raise Reject(Reason.UNREADABLE_ARCHIVE, f"its files are not where its directory says: {_JOIN_AGAIN}")
        self._is_whole = all(there)

    def _is_there(self, info: zipfile.ZipInfo) -> bool:
        start = self._start + info.header_offset
        return bool(start >= 0 and self._file.read_at(4, start) == b"PK\x03\x04")

    def members(self) -> Iterator[Member]:
        """The files, in the order of the directory."""
        last = self._zip.NameToInfo
        for info in self._zip.infolist():
            folder, _, filename = _meant(info).rpartition("/")
            if filename:
                fault = zip_fault(info)
                if not (self._is_whole or self._is_there(info)):
                    fault = Reason.UNREADABLE_FILE, f"not where the archive's directory says: {_JOIN_AGAIN}"
                if last[info.filename] is not info:
                    fault = Reason.DUPLICATE_STEM, "a later member of the archive has the same name, and takes its place"
                yield Member(info.filename, clean_folder(folder), filename, info.file_size, f"{info.CRC:08x}", fault)

    def read(self, raw: str, limit: int, most: int | None = None) -> bytes:
        """A whole member of at most `limit` bytes, or its first `most`.

        Raises:
            Reject: unreadable_file or file_too_large.
            KeyError, OSError, ValueError, zipfile.BadZipFile and others: it cannot be read.
        """
        info = self._zip.getinfo(raw)
        if fault := zip_fault(info):
            raise Reject(*fault)
        size = info.file_size  # zipfile unpacks no more than this, whatever the member holds
        check_size(size, limit)
        with self._zip.open(info) as file:
            return file.read(size if most is None else most)

    def inner(self, raw: str) -> ZipArchive | TarArchive:
        """The archive that a member is: as `open_archive`."""
        info = self._zip.getinfo(raw)
        if info.compress_type == zipfile.ZIP_STORED and not zip_fault(info):
            header = self._file.read_at(_LOCAL_HEADER_BYTES, self._start + info.header_offset)
            if len(header) < _LOCAL_HEADER_BYTES:
                raise Reject(Reason.UNREADABLE_ARCHIVE, "not where the outer archive's directory says")
            name_bytes, extra_bytes = struct.unpack("<HH", header[26:])
            start = self._start + info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
            return open_archive(self._file, start, info.file_size, is_tar=is_tar_name(raw))
        if info.file_size > MAX_INNER_BYTES:
            mib = MAX_INNER_BYTES >> 20
            raise Reject(
                Reason.UNREADABLE_ARCHIVE,
                f"packed inside an archive, where at most {mib} MiB are read; unpack the outer one first",
            )
        return open_archive(pa.BufferReader(self.read(raw, MAX_INNER_BYTES)), is_tar=is_tar_name(raw))


class TarArchive:
    """A tar file that is not packed."""

    is_tar = True

    def __init__(self, file: pa.NativeFile, start: int, size: int) -> None:
        self._file, self._start = file, start
        buffered = io.BufferedReader(Stretch(file, start, size), _BUFFER_BYTES)
        try:
            with tarfile.open(fileobj=buffered, mode="r:", encoding="iso-8859-1") as archive:
                self._infos = {info.name: info for info in archive if not info.isdir()}
        except tarfile.TarError as error:
            known = describe_head(file.read_at(min(HEAD_BYTES, size), start))
            words = f"no tar: {known}" if known else f"a tar that is damaged or cut off ({error}); download it again"
            raise Reject(Reason.UNREADABLE_ARCHIVE, words) from None

    def check(self) -> None:
        """Nothing that opening it has not shown."""

    def members(self) -> Iterator[Member]:
        """The files, in their order; of several of one name the last."""
        for raw, info in self._infos.items():
            meant = raw if "path" in info.pax_headers else _decode(raw, "iso-8859-1")
            folder, _, filename = meant.replace("\\", "/").rpartition("/")
            yield Member(raw, clean_folder(folder), filename, info.size, f"tar-{info.mtime}-{info.size}", _tar_fault(info))

    def read(self, raw: str, limit: int, most: int | None = None) -> bytes:
        """As `ZipArchive.read`."""
        info = self._infos[raw]
        if fault := _tar_fault(info):
            raise Reject(*fault)
        check_size(info.size, limit)
        wanted = info.size if most is None else min(most, info.size)
        content: bytes = self._file.read_at(wanted, self._start + info.offset_data)
        if len(content) < wanted:
            raise EOFError(f"{len(content)} of {wanted} bytes")
        return content

    def inner(self, raw: str) -> ZipArchive | TarArchive:
        """As `ZipArchive.inner`."""
        info = self._infos[raw]
        if fault := _tar_fault(info):
            raise Reject(*fault)
        return open_archive(self._file, self._start + info.offset_data, info.size, is_tar=is_tar_name(raw))


def check_size(size: int, limit: int) -> None:
    """Raises Reject: file_too_large."""
    if size > limit:
        raise Reject(Reason.FILE_TOO_LARGE, f"{size} bytes; at most {limit} are read")


def is_tar_name(name: str) -> bool:
    """Whether a file is named as a tar."""
    return name.lower().endswith(".tar")


def is_archive_name(name: str) -> bool:
    """Whether a file is named as an archive of a kind that is read."""
    return name[-4:].lower() in (".zip", ".tar")


@lru_cache(maxsize=4096)
def clean_folder(folder: str) -> str:
    """The folder of a member without what would lead elsewhere, were it a path: a drive, a leading slash, dots."""
    parts = [part for part in folder.split("/") if part.strip(".")]
    return "/".join(parts[1:] if parts and _DRIVE.fullmatch(parts[0]) else parts)


def _decode(name: str, taken_for: str) -> str:
    for encoding in ("utf-8", "cp949"):
        with contextlib.suppress(UnicodeError):
            return name.encode(taken_for).decode(encoding)
    return name


def _meant(info: zipfile.ZipInfo) -> str:
    """The member's name as it was meant: where the UTF-8 flag is not set, zipfile has taken the bytes for cp437."""
    name = info.filename
    if not name.isascii() and not info.flag_bits & 0x800:
        name = _decode(name, "cp437")
    return name.replace("\\", "/")


def zip_fault(info: zipfile.ZipInfo) -> Fault:
    """Why a member of a zip is not read."""
    if info.flag_bits & 0x1:
        return Reason.UNREADABLE_FILE, "encrypted"
    # zipfile bounds what it unpacks at once for these two only.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type)
        named = f"compression method {info.compress_type}" + (f" ({method})" if method else "")
        return Reason.UNREADABLE_FILE, f"{named}; only stored and deflated members are read"
    return None


def _tar_fault(info: tarfile.TarInfo) -> Fault:
    if info.isreg() and not info.issparse():
        return None
    return Reason.UNREADABLE_FILE, "a link, a device or a sparse file in a tar; unpack it first"
