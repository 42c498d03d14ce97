"""Files on any filesystem that pyarrow opens: local paths, s3://, gs://. The names inside a run folder are the caller's.

What reads or writes whole files here asks a store that does not answer again, for a minute.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from urgency_ray.errors import RequestError, UnreachableError
from urgency_ray.patience import is_outage, patiently
from urgency_ray.secret import blot, refuse_secret

PARTIAL = ".partial-"
"""Where a copy that is not whole yet lies, beside its place; a kill can leave it, and nothing reads it."""
AT_ONCE = 16
"""So many files at once hide most of the time that a store takes to answer."""
_URI = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+")
FULL_BYTES = 1 << 20
"""A disk with less left is full for any file of a run folder but the smallest."""


def open_location(location: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem of a path or URI, and the path inside it (absolute for local paths).

    Raises:
        RequestError: the URI's scheme is unknown to pyarrow, or it holds credentials.
        ConnectionError: the store does not answer.
    """
    text = os.fspath(location)
    if "://" not in text:
        return fs.LocalFileSystem(), absolute(text)
    refuse_secret(text, blot(text))
    try:
        filesystem, path = fs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, OSError) as error:
        said = " ".join(str(error).split())
        if is_outage(error):
            raise ConnectionError(f"{text}: does not answer: {said}") from None
        raise RequestError(f"{text}: cannot be opened: {said}") from None
    return filesystem, path


def is_partial(path: str) -> bool:
    """Whether a file is a copy that may not be whole, by its name."""
    return posixpath.basename(path).startswith(PARTIAL)


def readable(text: str) -> str:
    """A text whose URIs have the letters of names as they are, not as `%EC%8B%A0`."""
    return _URI.sub(lambda uri: plain if (plain := unquote(uri[0])).isprintable() else uri[0], text)


def join(location: str, *parts: str) -> str:
    """A path or URI below `location`; the options of a URI (`?endpoint_override=...`) stay at its end."""
    if "://" not in location:
        return posixpath.join(location, *parts)
    address, mark, options = location.partition("?")
    return posixpath.join(address, *parts) + mark + options


def without_options(location: str) -> str:
    """A URI without its options; a local path as it is, where a `?` is part of a name."""
    return location.partition("?")[0] if "://" in location else location


def folder_of(location: str) -> str:
    """The folder of a file; the options of a URI stay at its end."""
    address = without_options(location)
    return posixpath.dirname(address) + location[len(address) :]


def suffix(location: str) -> str:
    """The suffix of a file's name, `.parquet`, say; empty where it has none."""
    return posixpath.splitext(without_options(location))[1]


def add_suffix(location: str, suffix: str) -> str:
    """A name beside that of a file: `suffix` at its end, before the options of a URI."""
    address = without_options(location)
    return address + suffix + location[len(address) :]


def absolute(location: str) -> str:
    """A URI as it is; a local path in full, without `~`."""
    return location if "://" in location else os.path.abspath(os.path.expanduser(location))


def exists(location: str) -> bool:
    """Whether a file or a folder is there."""

    def look() -> bool:
        filesystem, path = open_location(location)
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)

    return patiently(location, look)


def refuse_missing_bucket(location: str, name: str) -> None:
    """Refuse a URI whose bucket is not there; `name` is the option that it was given by.

    Raises:
        RequestError: it is not, or the URI cannot be opened.
    """
    if "://" not in location:
        return
    try:
        filesystem, path = patiently(location, lambda: open_location(location))
    except RequestError as error:
        raise RequestError(f"{name} {error}") from None
    bucket = path.partition("/")[0]
    try:
        kind = patiently(location, lambda: filesystem.get_file_info(bucket).type) if bucket else None
    except UnreachableError:
        raise
    except OSError:
        return  # whoever may not look at the bucket may still use what is in it
    if kind == fs.FileType.NotFound:
        raise RequestError(f"{name} {location}: there is no bucket {bucket}")


def find_full(names: Iterable[str]) -> str | None:
    """The first of some local paths, or the folder for what is temporary, whose disk is full; None where none is."""
    for name in (*names, tempfile.gettempdir()):
        nearest = next((folder for folder in (Path(absolute(name)), *Path(absolute(name)).parents) if folder.exists()), None)
        if "://" not in name and nearest is not None and shutil.disk_usage(nearest).free < FULL_BYTES:
            return name
    return None


def is_damage(error: Exception) -> bool:
    """Whether Arrow found a file itself at fault: some damage is an OSError to it, as a store that does not answer is."""
    return isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and "Parquet" in str(error))


def read_text(location: str, patience_sec: float | None = None) -> str:
    """A whole UTF-8 file."""
    return str(read_bytes(location, patience_sec), "utf-8")


def read_bytes(location: str, patience_sec: float | None = None) -> bytes:
    """A whole file; `patience_sec`, here and below, instead of a minute."""

    def read() -> bytes:
        filesystem, path = open_location(location)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    return patiently(location, read, patience_sec)


def list_folders(location: str) -> list[str]:
    """The names of the folders right below one, sorted; none where it is not there."""

    def look() -> list[str]:
        filesystem, path = open_location(location)
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    return patiently(location, look)


def remove_folder(location: str) -> None:
    """Remove a folder and all that is in it, where there is one."""

    def remove() -> None:
        filesystem, path = open_location(location)
        if filesystem.get_file_info(path).type == fs.FileType.Directory:
            filesystem.delete_dir(path)

    patiently(location, remove)


def remove_file(location: str, patience_sec: float | None = None) -> None:
    """Remove a file, where there is one."""

    def remove() -> None:
        filesystem, path = open_location(location)
        if filesystem.get_file_info(path).type == fs.FileType.File:
            filesystem.delete_file(path)

    patiently(location, remove, patience_sec)


def write_bytes(location: str, content: bytes, patience_sec: float | None = None) -> None:
    """Write a whole file; on a local disk readers see the old file or the new one, never a part."""
    patiently(location, lambda: _write(location, content), patience_sec)


def _write(location: str, content: bytes) -> None:
    filesystem, path = open_location(location)
    filesystem.create_dir(posixpath.dirname(path), recursive=True)
    if not isinstance(filesystem, fs.LocalFileSystem):
        # An object store publishes an object when it is closed.
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    # A name of its own: two that write the same file do not take each other's part away.
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with filesystem.open_output_stream(partial) as stream:
            stream.write(content)
        filesystem.move(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_text(location: str, text: str, patience_sec: float | None = None) -> None:
    """Write a whole file in UTF-8, as `write_bytes` does."""
    write_bytes(location, text.encode("utf-8"), patience_sec)


def create_text(location: str, text: str) -> bool:
    """Write a new file in UTF-8; False, and nothing is done, where there is one, or in an object store, which cannot tell."""
    filesystem, path = open_location(location)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return False
    filesystem.create_dir(posixpath.dirname(path), recursive=True)
    try:
        with open(path, "x", encoding="utf-8") as stream:  # noqa: PTH123 - a path of pyarrow's filesystem
            stream.write(text)
    except FileExistsError:
        return False
    return True


def write_table(location: str, table: pa.Table) -> None:
    """Write a table as one parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(location, sink.getvalue().to_pybytes())


def copy_dir(source: str, destination: str) -> None:
    """Copy a folder to another place or filesystem, over what is there; on a local disk each file is the old or the new one."""
    patiently(source if "://" in source else destination, lambda: _copy_dir(source, destination))


def _copy_dir(source: str, destination: str) -> None:
    source_fs, source_path = open_location(source)
    target_fs, target_path = open_location(destination)
    target_fs.create_dir(target_path, recursive=True)
    if not isinstance(target_fs, fs.LocalFileSystem):
        fs.copy_files(source_path, target_path, source_filesystem=source_fs, destination_filesystem=target_fs)
        return
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=target_path) as partial:
        fs.copy_files(source_path, partial, source_filesystem=source_fs, destination_filesystem=target_fs)
        for path in sorted(path for path in Path(partial).rglob("*") if path.is_file()):
            place = Path(target_path, path.relative_to(partial))
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


def copy_file(source: str, destination: str) -> None:
    """Copy one file to another place or filesystem, over what is there."""
    write_bytes(destination, read_bytes(source))
