"""Many small files of embeddings into few large ones: each costs whoever reads them a request or more.

The pipeline writes a file for every few tens of calls, so that a kill costs no more. What a finished one leaves is merged.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import posixpath
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.errors import first_line
from urgency_ray.patience import patiently

log = logging.getLogger(__name__)

FEW_FILES = 32
"""So many small files of a folder stay as they are."""
FILE_BYTES = 128 << 20
ROW_GROUP_BYTES = 16 << 20


def compact(embeddings: str, few: int = FEW_FILES, file_bytes: int = FILE_BYTES) -> None:
    """Merge the small files of each folder of an embeddings dataset, where there are more than a few.

    A merged file is in its place before those that it is made of are removed: a kill in between leaves rows twice, of which
    `recovery.Left` keeps one. Where a file cannot be written, or none removed, they stay small, with a warning.

    Args:
        embeddings: path or URI of the dataset.
        few: so many small files of a folder are let be.
        file_bytes: size of a merged file, at most; one of less than half of it is small.

    Raises:
        UnreachableError: the store does not answer, and did once a file was merged: the same command puts it right.
    """
    filesystem, path = patiently(embeddings, lambda: storage.open_location(embeddings))
    small = defaultdict(list)
    for info in patiently(embeddings, lambda: filesystem.get_file_info(fs.FileSelector(path, recursive=True))):
        if info.type == fs.FileType.File and info.size < file_bytes // 2 and not storage.is_partial(info.path):
            small[posixpath.dirname(info.path)].append(info)
    many = {folder: infos for folder, infos in small.items() if len(infos) > few}
    if not many:
        return
    try:
        _try_removal(filesystem, path)
        with ThreadPoolExecutor(storage.AT_ONCE) as pool:
            for folder, infos in many.items():
                log.info("merging %d small files of %s", len(infos), posixpath.basename(folder))
                for files in _groups(sorted(infos, key=lambda info: info.path), file_bytes):
                    _merge(filesystem, folder, files, pool)
    except _CannotMergeError as error:
        log.warning("warning: the small files of %s are not merged: %s", embeddings, error)


class _CannotMergeError(Exception):
    """Nothing has changed; it says why."""


def _try_removal(filesystem: fs.FileSystem, path: str) -> None:
    """Whoever may write need not be allowed to remove, and rows that stay twice would be no run's."""
    probe = posixpath.join(path, f"{storage.PARTIAL}{uuid.uuid4().hex}")
    try:
        patiently(path, lambda: filesystem.open_output_stream(probe).close())
        patiently(path, lambda: _remove(filesystem, probe))
    except OSError as error:
        raise _CannotMergeError(first_line(error)) from None


def _groups(infos: Sequence[fs.FileInfo], file_bytes: int) -> Iterator[list[str]]:
    """Paths of files that make one of at most `file_bytes`."""
    group: list[str] = []
    size = 0
    for info in infos:
        if group and size + info.size > file_bytes:
            yield group
            group, size = [], 0
        group.append(info.path)
        size += info.size
    yield group


def _merge(filesystem: fs.FileSystem, folder: str, files: Sequence[str], pool: ThreadPoolExecutor) -> None:
    # An older version's files have other columns: each kind becomes one.
    kinds: dict[bytes, list[tuple[str, pa.Table]]] = defaultdict(list)
    for file, table in zip(files, pool.map(functools.partial(_read, filesystem), files), strict=True):
        kinds[table.schema.serialize().to_pybytes()].append((file, table))
    for parts in kinds.values():
        if len(parts) == 1:
            continue
        _write(filesystem, folder, pa.concat_tables([table for _, table in parts]))
        list(pool.map(lambda file: patiently(file, lambda: _remove(filesystem, file)), [file for file, _ in parts]))


def _read(filesystem: fs.FileSystem, file: str) -> pa.Table:
    def read() -> pa.Table:
        with filesystem.open_input_file(file) as source:
            return pq.ParquetFile(source).read(use_threads=False)

    return patiently(file, read)


def _write(filesystem: fs.FileSystem, folder: str, rows: pa.Table) -> None:
    """Put a merged file into its place, whole; an object store publishes one when it is closed."""
    name = f"{uuid.uuid4().hex}.parquet"
    place = posixpath.join(folder, name)
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    target = posixpath.join(folder, f"{storage.PARTIAL}{name}") if is_local else place
    size = max(1, ROW_GROUP_BYTES // max(1, rows.nbytes // max(1, len(rows))))
    try:
        # One name for all attempts: another would be a second copy of the rows.
        patiently(place, lambda: pq.write_table(rows, target, filesystem=filesystem, row_group_size=size))
        if is_local:
            filesystem.move(target, place)
    except OSError as error:
        with contextlib.suppress(OSError):
            _remove(filesystem, target)
        raise _CannotMergeError(first_line(error)) from None


def _remove(filesystem: fs.FileSystem, file: str) -> None:
    """Remove a file that an attempt before this one may have removed."""
    if filesystem.get_file_info(file).type == fs.FileType.File:
        filesystem.delete_file(file)
