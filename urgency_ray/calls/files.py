"""Files and archives below a root: what there is, and the bytes of one, on any filesystem that pyarrow opens.

Nothing is unpacked: archives are read in place, to list them their directory only.
"""

from __future__ import annotations

import posixpath
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from operator import attrgetter
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from urgency_ray.calls.archives import (
    INNER,
    Fault,
    TarArchive,
    ZipArchive,
    check_size,
    is_archive_name,
    is_tar_name,
    open_archive,
)
from urgency_ray.calls.foreign import advice, classify
from urgency_ray.calls.walk import FileOnDisk, is_hidden, walk
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, Reject, RequestError, UnreachableError
from urgency_ray.storage import open_location

# What zipfile and pyarrow raise on damaged input. So wide a list can hide bugs of ours: keep what is tried short.
_READ_ERRORS = (OSError, ValueError, RuntimeError, EOFError, KeyError, OverflowError, zipfile.BadZipFile, zlib.error)
_RETRY_SEC = (1.0, 4.0, 16.0)
_PROBE_BYTES = 1 << 16
_START_BYTES = 1 << 16
Result = TypeVar("Result")
Archive = ZipArchive | TarArchive


def max_audio_bytes(data: DataConfig) -> int:
    """Largest WAV that is read: `data.max_call_sec` at 48 kHz in 8 bytes a frame, and 1 MiB for what is not samples."""
    return int(48_000 * 8 * data.max_call_sec) + (1 << 20)


class Entry(NamedTuple):
    """A file, a member of an archive, or what must be a row though it is neither (`is_row`): a folder or archive not read.

    Attributes:
        folder: the path of what it lies in, names of archives part of it.
        filename: its own name, as it was meant.
        container, member: what `read_file` takes.
        num_bytes: its size.
        version: what changes when it does.
        fault: why it is not read.
        is_row: whether it is a row whatever its suffix.
    """

    folder: str
    filename: str
    container: str
    member: str | None
    num_bytes: int
    version: str
    fault: Fault
    is_row: bool = False


class Listing:
    """What lies below a root.

    Attributes:
        base: the path of the root, of a single archive that of its folder.
        archives: the archives whose directory `entries` has read, by folder and name in lower case, and whether each is a tar.
        num_hidden: files and folders passed over as hidden.

    Raises:
        RequestError: the root is not given, cannot be listed, or is neither a folder nor an archive.
        UnreachableError: a part of it cannot be reached.
    """

    def __init__(self, root: str | None) -> None:
        self.archives: dict[tuple[str, str], bool] = {}
        _forget_archives()
        self.num_hidden = 0
        self.base, self._files = self._list(root)

    def entries(self) -> Iterator[Entry]:
        """All files and members, and archives that cannot be opened, in the order of the paths of the files."""
        for file, location in self._files:
            folder, filename = posixpath.split(file.path)
            entry = Entry(folder, filename, location, None, file.num_bytes, file.version, file.fault, file.is_folder)
            if file.fault or not is_archive_name(filename):
                yield entry
            else:
                yield from self._members(entry, partial(_open_checked, location, None))

    def archive_of(self, entry: Entry) -> str | None:
        """What to say of the archive that a file is in."""
        folder, name = posixpath.split(entry.folder)
        while entry.member is not None and (folder, name.lower()) not in self.archives:
            folder, name = posixpath.split(folder)
        if entry.member is None:
            return None
        is_in_disguise = self.archives[folder, name.lower()] and not is_tar_name(name)
        return f"{name} is a tar, whatever its name says" if is_in_disguise else f"in {name}"

    def _members(self, outer: Entry, open_it: Callable[[], Archive]) -> Iterator[Entry]:
        """What an archive holds; of one inside it, too."""
        inside, prefix = f"{outer.folder}/{outer.filename}", "" if outer.member is None else outer.member + INNER
        try:
            archive = _patiently(outer.container, open_it)
        except UnreachableError:
            raise
        except Reject as reject:
            yield outer._replace(fault=(Reason.UNREADABLE_ARCHIVE, reject.detail), is_row=True)
            return
        except _READ_ERRORS as error:
            yield outer._replace(fault=(Reason.UNREADABLE_ARCHIVE, _one_line(error)), is_row=True)
            return
        self.archives[outer.folder, outer.filename.lower()] = archive.is_tar
        for raw, folder, filename, num_bytes, version, fault in archive.members():
            if filename[0] == "." or is_hidden(folder):
                self.num_hidden += 1
                continue
            above = f"{inside}/{folder}" if folder else inside
            entry = Entry(above, filename, outer.container, prefix + raw, num_bytes, version, fault)
            if fault or not is_archive_name(filename):
                yield entry._replace(is_row=is_archive_name(filename)) if fault else entry
            elif prefix:
                words = "an archive inside an archive inside an archive; unpack the outer one first"
                yield entry._replace(fault=(Reason.UNREADABLE_ARCHIVE, words), is_row=True)
            else:
                yield from self._members(entry, partial(_open_checked, outer.container, raw))

    def _list(self, root: str | None) -> tuple[str, list[tuple[FileOnDisk, str]]]:
        if root is None:
            raise RequestError("--data.root: must be given: the folder or URI that holds the archives, or WAV and JSON files")
        try:
            filesystem, base = open_location(root)
            info = filesystem.get_file_info(base)
            if info.type == fs.FileType.File and is_archive_name(base):
                file = FileOnDisk(base, info.size or 0, str(info.mtime_ns or ""), None)
                return posixpath.dirname(base), [(file, base if isinstance(filesystem, fs.LocalFileSystem) else root)]
            files = self._list_folder(filesystem, base) if info.type == fs.FileType.Directory else []
        except (OSError, ValueError) as error:
            raise RequestError(f"--data.root {root}: cannot be listed: {_one_line(error)}") from None
        if info.type != fs.FileType.Directory:
            raise RequestError(f"--data.root {root}: {_what_instead(info)}")
        files.sort(key=attrgetter("path"))  # a stem's first is always the same
        if isinstance(filesystem, fs.LocalFileSystem):
            return base, [(file, file.path) for file in files]
        address, mark, options = root.partition("?")
        start, place = len(base.rstrip("/")) + 1, address.rstrip("/")
        return base, [(file, f"{place}/{quote(file.path[start:])}{mark}{options}") for file in files]

    def _list_folder(self, filesystem: fs.FileSystem, base: str) -> list[FileOnDisk]:
        if isinstance(filesystem, fs.LocalFileSystem):
            hidden: list[str] = []
            files = list(walk(base, hidden))
            self.num_hidden = len(hidden)
            return files
        files = []
        for info in filesystem.get_file_info(fs.FileSelector(base, recursive=True)):
            if info.type == fs.FileType.Directory:
                continue
            if is_hidden(info.path[len(base.rstrip("/")) + 1 :]):
                self.num_hidden += 1
            else:
                files.append(FileOnDisk(info.path, info.size or 0, str(info.mtime_ns or ""), None))
        return files


def _what_instead(info: fs.FileInfo) -> str:
    """Why a root that is no folder is none."""
    name = posixpath.basename(info.path)
    if info.type == fs.FileType.File and (found := classify(name)):
        return advice(found, [name], None)
    what = "no such folder" if info.type == fs.FileType.NotFound else "not a folder"
    return f"{what}; pass the folder or URI that holds the archives, or WAV and JSON files, or a single .zip or .tar"


def _open_archive(container: str, outer: str | None = None) -> Archive:
    """An archive, or the one that is its member `outer`."""
    if outer is not None:
        return _cached_archive(container).inner(outer)
    filesystem, path = open_location(container)
    return open_archive(_open_regular(filesystem, path), is_tar=is_tar_name(path))


def _open_checked(container: str, outer: str | None) -> Archive:
    archive = _open_archive(container, outer)
    archive.check()
    return archive


def _open_regular(filesystem: fs.FileSystem, path: str) -> pa.NativeFile:
    # Opening a FIFO waits for ever for somebody who writes.
    if isinstance(filesystem, fs.LocalFileSystem) and filesystem.get_file_info(path).type == fs.FileType.Unknown:
        raise Reject(Reason.UNREADABLE_FILE, "not a regular file; it is not opened")
    return filesystem.open_input_file(path)


_cached_archive = lru_cache(maxsize=16)(_open_archive)
# One that was packed lies in memory: no more than the two of a call's WAV and label.
_cached_inner = lru_cache(maxsize=2)(_open_archive)


def _forget_archives() -> None:
    _cached_archive.cache_clear()
    _cached_inner.cache_clear()


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def read_file(container: str, member: str | None, limit: int) -> bytes:
    """A whole file by its container and member as the manifest has them; `limit` is the most bytes that are read.

    A process keeps the last 16 archives open: they must not change while calls are read. What cannot be reached (a disk that is
    not mounted here, a store that does not answer) is tried again for 21 s.

    Raises:
        Reject: unreadable_file (gone, encrypted, damaged, of an unknown compression) or file_too_large.
        UnreachableError: it still cannot be reached. No reject: the file may be as it should, and the call must not be lost.
    """
    return _read_patiently(container, member, limit, None)


def read_start(container: str, member: str | None) -> bytes:
    """The first 64 KiB of a file, or all of a shorter one: as `read_file`."""
    return _read_patiently(container, member, 1 << 62, _START_BYTES)


def _read_patiently(container: str, member: str | None, limit: int, most: int | None) -> bytes:
    try:
        return _patiently(container, partial(_read, container, member, limit, most))
    except UnreachableError:
        raise
    except _READ_ERRORS as error:
        raise Reject(Reason.UNREADABLE_FILE, _one_line(error)) from None


def _read(container: str, member: str | None, limit: int, most: int | None) -> bytes:
    if member is None:
        filesystem, path = open_location(container)
        with _open_regular(filesystem, path) as stream:
            size: int = stream.size()
            check_size(size, limit)
            content: bytes = stream.read(size if most is None else most)
        return content
    outer, is_inner, raw = member.partition(INNER)
    if is_inner:
        return _cached_inner(container, outer).read(raw, limit, most)
    return _cached_archive(container).read(member, limit, most)


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
        _forget_archives()
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
