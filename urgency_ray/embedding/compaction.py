"""Many small files of embeddings into few large ones: each costs whoever reads them a request or more.

The pipeline writes a file for every few tens of calls, so that a kill costs no more. What a finished one leaves is merged.
"""

from __future__ import annotations

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

log = logging.getLogger(__name__)

FEW_FILES = 32
"""So many small files of a folder stay as they are."""
FILE_BYTES = 128 << 20
ROW_GROUP_BYTES = 16 << 20


def compact(embeddings: str, few: int = FEW_FILES, file_bytes: int = FILE_BYTES) -> None:
    """Merge the small files of each folder of an embeddings dataset, where there are more than a few.

    A merged file is in its place before those that it is made of are removed: a kill in between leaves rows twice, of which
    `recovery.Left` keeps one.

    Args:
        embeddings: path or URI of the dataset.
        few: so many small files of a folder are let be.
        file_bytes: size of a merged file, at most; one of less than half of it is small.
    """
    filesystem, path = storage.open_location(embeddings)
    small = defaultdict(list)
    for info in filesystem.get_file_info(fs.FileSelector(path, recursive=True)):
        if info.type == fs.FileType.File and info.size < file_bytes // 2:
            small[posixpath.dirname(info.path)].append(info)
    with ThreadPoolExecutor(storage.AT_ONCE) as pool:
        for folder, infos in small.items():
            if len(infos) > few:
                log.info("merging %d small files of %s", len(infos), posixpath.basename(folder))
                for files in _groups(sorted(infos, key=lambda info: info.path), file_bytes):
                    _merge(filesystem, folder, files, pool)


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
        rows = pa.concat_tables([table for _, table in parts])
        name = f"{uuid.uuid4().hex}.parquet"
        partial, place = posixpath.join(folder, f"{storage.PARTIAL}{name}"), posixpath.join(folder, name)
        row_bytes = max(1, rows.nbytes // max(1, len(rows)))
        pq.write_table(rows, partial, filesystem=filesystem, row_group_size=max(1, ROW_GROUP_BYTES // row_bytes))
        filesystem.move(partial, place)
        list(pool.map(filesystem.delete_file, (file for file, _ in parts)))


def _read(filesystem: fs.FileSystem, file: str) -> pa.Table:
    with filesystem.open_input_file(file) as source:
        return pq.ParquetFile(source).read(use_threads=False)
