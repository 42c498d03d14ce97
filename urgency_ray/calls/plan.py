"""Archives and folders -> one manifest row a call; a row's files -> bytes.

Nothing is unpacked and no call is opened while planning: archives are read in place, their directory only, on any filesystem
that pyarrow opens. What cannot be used is a row with a reason, never a gap.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
import re
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar
from unicodedata import normalize
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from urgency_ray.calls.label import MAX_LABEL_BYTES
from urgency_ray.config import ConfigError, DataConfig
from urgency_ray.schema import MANIFEST_SCHEMA, Reason, Reject
from urgency_ray.storage import open_location

# What zipfile and pyarrow raise on damaged input. So wide a list can hide bugs of ours: keep what is tried short.
_READ_ERRORS = (OSError, ValueError, RuntimeError, EOFError, KeyError, OverflowError, zipfile.BadZipFile, zlib.error)
_RETRY_SEC = (1.0, 4.0, 16.0)
_PROBE_BYTES = 1 << 16
_PART_FOLDER = re.compile(r"(?:\d+\.)?(Training|Validation)")
_PART_ARCHIVE = re.compile(r"([TV])[SL]_(?:([^_]+)_)?")
_Fault = tuple[Reason, str] | None
Result = TypeVar("Result")

ROWS_PER_BATCH = 8192


class UnreachableError(OSError):
    """A file that may be as it should, in a place that does not answer."""


class _File(NamedTuple):
    """A WAV, a label, or an archive that cannot be read (its `stem` is the whole file name)."""

    stem: str
    suffix: str
    container: str
    member: str | None
    num_bytes: int
    version: str
    provider_split: str
    region: str | None
    fault: _Fault


def max_audio_bytes(data: DataConfig) -> int:
    """Largest WAV that is read: `data.max_call_sec` at 48 kHz in 8 bytes a frame, and 1 MiB for what is not samples."""
    return int(48_000 * 8 * data.max_call_sec) + (1 << 20)


def plan_calls(data: DataConfig) -> pa.Table:
    """Pair every WAV below `data.root` with the label of the same file stem, over all folders and archives.

    Returns:
        A table of `MANIFEST_SCHEMA`, sorted by call_id: one row for each stem, one more (`stem#2`) for each further WAV or
        label of it, and one for each unreadable archive, named after its file. Stems are compared in NFC; the containers and
        members keep their names as they are, for `read_file`.

    Raises:
        ConfigError: `data.root` is not given, is no folder, cannot be listed, or holds no calls.
    """
    wavs: dict[str, _File] = {}
    labels: dict[str, _File] = {}
    extras: list[_File] = []
    for file in _find_files(data):
        if file.suffix == ".zip":
            extras.append(file)
            continue
        same = wavs if file.suffix == ".wav" else labels
        first = same.setdefault(file.stem, file)
        if first is not file:
            same[file.stem], extra = (file, first) if first.fault and not file.fault else (first, file)
            extras.append(extra._replace(fault=(Reason.DUPLICATE_STEM, f"the one used is in {same[file.stem].container}")))
    stems = wavs.keys() | labels.keys()
    named: dict[str, tuple[_File | None, _File | None]] = {}
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    for file in extras:
        call_id = file.stem
        while call_id in stems or call_id in named:
            numbers[file.stem] += 1
            call_id = f"{file.stem}#{numbers[file.stem]}"
        named[call_id] = (None, file) if file.suffix == ".json" else (file, None)
    if not stems and not named:
        raise ConfigError(f"--data.root {data.root}: holds no calls (no .wav, .json or .zip file, or only empty archives)")
    # A file is given up once it is in a batch: whole columns of Python objects would take more memory than all else.
    rows = (
        _row(call_id, *(named.get(call_id) or (wavs.pop(call_id, None), labels.pop(call_id, None))))
        for call_id in sorted(stems | named.keys())
    )
    batches = []
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        columns = zip(MANIFEST_SCHEMA, zip(*batch, strict=True), strict=True)
        arrays = [pa.array(values, field.type) for field, values in columns]
        batches.append(pa.record_batch(arrays, schema=MANIFEST_SCHEMA))
    return pa.Table.from_batches(batches)


def _row(call_id: str, wav: _File | None, label: _File | None) -> tuple[Any, ...]:
    files = [file for file in (wav, label) if file]
    fault = next((file.fault for file in files if file.fault), None)
    if fault is None and wav is None:
        fault = Reason.MISSING_AUDIO, "no WAV has this stem"
    elif fault is None and label is None:
        fault = Reason.MISSING_LABEL, "no JSON has this stem"
    return (
        call_id,
        *((wav.container, wav.member) if wav else (None, None)),
        *((label.container, label.member) if label else (None, None)),
        wav.num_bytes if wav else 0,
        " ".join(file.version for file in files),
        next((file.provider_split for file in files if file.provider_split != "unknown"), "unknown"),
        next((file.region for file in files if file.region), None),
        *((fault[0].value, fault[1]) if fault else (None, None)),
    )


def _find_files(data: DataConfig) -> Iterator[_File]:
    limits = {".wav": max_audio_bytes(data), ".json": MAX_LABEL_BYTES}
    for path, container, member, num_bytes, version, fault in _list_entries(data.root):
        folder, filename = posixpath.split(path)
        stem, suffix = posixpath.splitext(filename)
        suffix = suffix.lower()
        own_fault: _Fault = None
        if suffix == ".zip":
            folder, stem = path, filename
            own_fault = Reason.UNREADABLE_ARCHIVE, "an archive inside an archive; unpack it first"
        elif suffix not in limits:
            continue
        elif num_bytes > limits[suffix]:
            own_fault = Reason.FILE_TOO_LARGE, f"{num_bytes} bytes; at most {limits[suffix]} are read"
        yield _File(normalize("NFC", stem), suffix, container, member, num_bytes, version, *_origin(folder), fault or own_fault)


def _list_entries(root: str | None) -> Iterator[tuple[str, str, str | None, int, str, _Fault]]:
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


def _list_files(root: str | None) -> list[tuple[str, str, int, str, _Fault]]:
    """Path, full location, size, version and fault of the files below the root, sorted: a stem's first is always the same."""
    if root is None:
        raise ConfigError("--data.root: must be given: the folder or URI that holds the archives, or WAV and JSON files")
    try:
        filesystem, base = open_location(root)
        kind = filesystem.get_file_info(base).type
        infos = filesystem.get_file_info(fs.FileSelector(base, recursive=True)) if kind == fs.FileType.Directory else []
    except (OSError, ValueError) as error:
        raise ConfigError(f"--data.root {root}: cannot be listed: {_one_line(error)}") from None
    if kind != fs.FileType.Directory:
        what = "no such folder" if kind == fs.FileType.NotFound else "not a folder"
        raise ConfigError(f"--data.root {root}: {what}; pass the folder or URI that holds the archives, or WAV and JSON files")

    is_local = isinstance(filesystem, fs.LocalFileSystem)
    address, mark, options = root.partition("?")
    files: list[tuple[str, str, int, str, _Fault]] = []
    for info in infos:
        fault: _Fault = None
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


@lru_cache(maxsize=4096)
def _origin(folder: str) -> tuple[str, str | None]:
    """The provider's split and the region that a path speaks of; where its parts disagree, the innermost counts."""
    split, region = "unknown", None
    for part in normalize("NFC", folder).split("/"):
        if archive := _PART_ARCHIVE.match(part):
            split, region = ("training" if archive[1] == "T" else "validation"), archive[2]
        elif named := _PART_FOLDER.fullmatch(part):
            split = named[1].lower()
    return split, region


def _member_name(info: zipfile.ZipInfo) -> str:
    """The member's name as it was meant: where the UTF-8 flag is not set, zipfile has taken the bytes for cp437."""
    if not info.filename.isascii() and not info.flag_bits & 0x800:
        for encoding in ("utf-8", "cp949"):
            with contextlib.suppress(UnicodeError):
                return info.filename.encode("cp437").decode(encoding).replace("\\", "/")
    return info.filename.replace("\\", "/")


def _member_fault(info: zipfile.ZipInfo, name: str) -> _Fault:
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
        except (OSError, ConfigError) as error:
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


def _is_at_fault(container: str, error: OSError | ConfigError) -> bool:
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
