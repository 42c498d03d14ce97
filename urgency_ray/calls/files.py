"""Files and archives below a root: what there is, and the bytes of one, on any filesystem that pyarrow opens.

Nothing is unpacked: archives are read in place, to list them their directory only.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from operator import itemgetter
from typing import TypeVar
from urllib.parse import quote

from pyarrow import fs

from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, Reject, RequestError, UnreachableError
from urgency_ray.storage import open_location

# What zipfile and pyarrow raise on damaged input. So wide a list can hide bugs of ours: keep what is tried short.
_READ_ERRORS = (OSError, ValueError, RuntimeError, EOFError, KeyError, OverflowError, zipfile.BadZipFile, zlib.error)
_RETRY_SEC = (1.0, 4.0, 16.0)
_PROBE_BYTES = 1 << 16
Result = TypeVar("Result")

Fault = tuple[Reason, str] | None


def max_audio_bytes(data: DataConfig) -> int:
    """Largest WAV that is read: `data.max_call_sec` at 48 kHz in 8 bytes a frame, and 1 MiB for what is not samples."""
    return int(48_000 * 8 * data.max_call_sec) + (1 << 20)


def list_entries(root: str | None) -> Iterator[tuple[str, str, str | None, int, str, Fault]]:
    """Path, container, member, size, version and fault of all files and members, and of archives that cannot be opened."""
    for path, location, num_bytes, version, fault in _list_files(root):
        if fault or not path.lower().endswith(".zip"):
            yield path, location, None, num_bytes, version, fault
            continue
        try:
            members = _patiently(location, partial(_list_members, location))
        except UnreachableError:
            raise
        except _READ_ERRORS as error:
            yield path, location, None, num_bytes, version, (Reason.UNREADABLE_ARCHIVE, _one_line(error))
            continue
        for info in members:
            name = _member_name(info)
            if not _is_hidden(name):
                entry = (location, info.filename, info.file_size, f"{info.CRC:08x}")
                yield f"{path}/{name}", *entry, _member_fault(info, name)


def _list_files(root: str | None) -> list[tuple[str, str, int, str, Fault]]:
    """Path, full location, size, version and fault of the files below the root, sorted: a stem's first is always the same."""
    if root is None:
        raise RequestError("--data.root: must be given: the folder or URI that holds the archives, or WAV and JSON files")
    try:
        filesystem, base = open_location(root)
        kind = filesystem.get_file_info(base).type
        infos = filesystem.get_file_info(fs.FileSelector(base, recursive=True)) if kind == fs.FileType.Directory else []
    except (OSError, ValueError) as error:
        raise RequestError(f"--data.root {root}: cannot be listed: {_one_line(error)}") from None
    if kind != fs.FileType.Directory:
        what = "no such folder" if kind == fs.FileType.NotFound else "not a folder"
        raise RequestError(f"--data.root {root}: {what}; pass the folder or URI that holds the archives, or WAV and JSON files")

    is_local = isinstance(filesystem, fs.LocalFileSystem)
    address, mark, options = root.partition("?")
    files: list[tuple[str, str, int, str, Fault]] = []
    for info in infos:
        fault: Fault = None
        try:
            path = info.path
        except UnicodeDecodeError as error:
            # Old unzip tools leave cp949 names on a disk; pyarrow opens no such file.
            path = error.object.decode("utf-8", "backslashreplace")
            fault = Reason.UNREADABLE_FILE, "its path is not UTF-8; rename it, for example with convmv -f cp949 -t utf-8"
        below = path[len(base.rstrip("/")) + 1 :]
        if info.type != fs.FileType.Directory and not _is_hidden(below):
            location = path if is_local else f"{address.rstrip('/')}/{quote(below)}{mark}{options}"
            files.append((path, location, info.size or 0, str(info.mtime_ns or ""), fault))
    return sorted(files, key=itemgetter(0))


def _is_hidden(path: str) -> bool:
    return any(part == "__MACOSX" or (part[:1] == "." and part not in (".", "..")) for part in path.split("/"))


def _member_name(info: zipfile.ZipInfo) -> str:
    """The member's name as it was meant: where the UTF-8 flag is not set, zipfile has taken the bytes for cp437."""
    if not info.filename.isascii() and not info.flag_bits & 0x800:
        for encoding in ("utf-8", "cp949"):
            with contextlib.suppress(UnicodeError):
                return info.filename.encode("cp437").decode(encoding).replace("\\", "/")
    return info.filename.replace("\\", "/")


def _member_fault(info: zipfile.ZipInfo, name: str) -> Fault:
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return Reason.UNSAFE_NAME, "its name in the archive is absolute, or has .."
    if info.flag_bits & 0x1:
        return Reason.UNREADABLE_FILE, "encrypted"
    # zipfile bounds what it unpacks at once for these two only.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Reason.UNREADABLE_FILE, f"compression method {info.compress_type}; only stored and deflated members are read"
    return None


def _open_archive(container: str) -> zipfile.ZipFile:
    filesystem, path = open_location(container)
    # zipfile asks for a header, a name and the content in turn: the buffer makes one request to an object store of them.
    return zipfile.ZipFile(io.BufferedReader(filesystem.open_input_file(path), 1 << 16))


def _list_members(container: str) -> list[zipfile.ZipInfo]:
    return _open_archive(container).infolist()


_cached_archive = lru_cache(maxsize=16)(_open_archive)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def read_file(container: str, member: str | None, limit: int) -> bytes:
    """A whole file by its container and member as the manifest has them; `limit` is the most bytes that are read.

    A process keeps the last 16 archives open: they must not change while calls are read. What cannot be reached (a disk that is
    not mounted here, a store that does not answer) is tried again for 21 s.

    Raises:
        Reject: unreadable_file (gone, encrypted, damaged, of an unknown compression), unsafe_name or file_too_large.
        UnreachableError: it still cannot be reached. No reject: the file may be as it should, and the call must not be lost.
    """
    try:
        return _patiently(container, partial(_read, container, member, limit))
    except UnreachableError:
        raise
    except _READ_ERRORS as error:
        raise Reject(Reason.UNREADABLE_FILE, _one_line(error)) from None


def _read(container: str, member: str | None, limit: int) -> bytes:
    if member is None:
        filesystem, path = open_location(container)
        with filesystem.open_input_file(path) as stream:
            size: int = stream.size()
            content: bytes = stream.read(size) if size <= limit else b""
    else:
        archive = _cached_archive(container)
        info = archive.getinfo(member)
        if fault := _member_fault(info, _member_name(info)):
            raise Reject(*fault)
        size = info.file_size  # zipfile unpacks no more than this, whatever the member holds
        with archive.open(info) as file:
            content = file.read(size) if size <= limit else b""
    if size > limit:
        raise Reject(Reason.FILE_TOO_LARGE, f"{size} bytes; at most {limit} are read")
    return content


def _patiently(container: str, work: Callable[[], Result]) -> Result:
    """What `work`, which reads `container`, gives; where that is out of reach, it is tried again."""
    suspected = False
    for wait_sec in (*_RETRY_SEC, None):
        try:
            return work()
        except (OSError, RequestError) as error:
            at_fault = _is_at_fault(container, error)
            # Once is not enough: a store that failed, and answers again by now, would pass for damage.
            if at_fault and suspected:
                raise
            if wait_sec is None:
                raise UnreachableError(
                    f"{container}: cannot be reached: {_one_line(error)}; what is done is kept: run the command again later"
                ) from None
            suspected = at_fault
        _cached_archive.cache_clear()
        if not suspected:
            time.sleep(wait_sec)
    raise AssertionError("the last attempt returns or raises")


def _is_at_fault(container: str, error: OSError | RequestError) -> bool:
    """Whether the file itself is the reason that it could not be read; else it, or all that lies with it, is out of reach."""
    try:
        filesystem, path = open_location(container)
        file, folder = filesystem.get_file_info([path, posixpath.dirname(path)])
        if file.type != fs.FileType.File or isinstance(error, PermissionError):
            return bool(folder.type == fs.FileType.Directory)
        with filesystem.open_input_file(path) as stream:
            # zipfile, led astray by damage, asks for what is not there; the file as such can be read.
            stream.seek(max(0, stream.size() - _PROBE_BYTES))
            stream.read(_PROBE_BYTES)
    except (OSError, ValueError):
        return False
    return True
