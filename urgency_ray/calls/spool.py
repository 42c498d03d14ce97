"""Tables that are written batch by batch, and read in any order: in memory until they are large, then in a file."""

from __future__ import annotations

import mmap
import tempfile
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROWS_IN_MEMORY = 1 << 19


class Spool:
    """A table that is being written; beyond `ROWS_IN_MEMORY` it lies in a file of the folder for what is temporary.

    The file has no name, and goes with the table: the system may take its pages from memory, and a killed process leaves none.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._num_rows = schema, 0
        self._batches: list[pa.RecordBatch] = []
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add some rows.

        Raises:
            OSError: the disk is full.
        """
        self._batches += rows.to_batches() if isinstance(rows, pa.Table) else [rows]
        self._num_rows += len(rows)
        if self._num_rows > ROWS_IN_MEMORY:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
                self._writer = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), self._schema)
            for batch in self._batches:
                self._writer.write_batch(batch)
            self._batches.clear()

    def close(self) -> pa.Table:
        """All rows; nothing is written any more."""
        if self._file is None:
            return pa.Table.from_batches(self._batches, schema=self._schema)
        self._writer.close()
        with self._file as file:
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


class Chunks:
    """Rows of a table by their numbers, whatever the chunks it lies in.

    From a chunked column at once, a few rows cost as much as all do; and one chunk of all would be a second table.
    """

    def __init__(self, table: pa.Table) -> None:
        self._chunks = table.to_batches()
        self._starts = np.cumsum([0, *map(len, self._chunks)])[:-1]
        self._schema = table.schema

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """A table of their own, in this order."""
        if not len(rows):
            return self._schema.empty_table()
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        parts = [self._chunks[chunk].take(pa.array(rows[chunks == chunk] - self._starts[chunk])) for chunk in np.unique(chunks)]
        taken = pa.Table.from_batches(parts).combine_chunks()
        is_in_order = (np.diff(chunks) >= 0).all()
        return taken if is_in_order else taken.take(pa.array(np.argsort(np.argsort(chunks, kind="stable"))))
