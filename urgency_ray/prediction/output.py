"""The file that `predict` writes: what cannot be one is refused before the work, and it appears whole, every call in it."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.errors import RequestError
from urgency_ray.numbering import UNKNOWN, Numbering, count_doubled, number_rows
from urgency_ray.patience import patiently
from urgency_ray.schema import URGENCY_KEYS


def check_output(output: str) -> None:
    """Whether predictions can be written there, as far as can be told before there are any; nothing is made.

    Raises:
        RequestError: it is neither .parquet nor .csv, or is a folder, or its folder can neither be written to nor made.
    """
    if storage.suffix(output) not in (".parquet", ".csv"):
        raise RequestError(f"--output {output}: must end in .parquet or .csv")
    filesystem, path = storage.open_location(output)
    if patiently(output, lambda: filesystem.get_file_info(path).type) == fs.FileType.Directory:
        raise RequestError(f"--output {output}: is a folder; name a file in it")
    if isinstance(filesystem, fs.LocalFileSystem):
        nearest = next(folder for folder in Path(path).parents if folder.exists())
        if not nearest.is_dir():
            raise RequestError(f"--output {output}: {nearest} is a file, not a folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise RequestError(f"--output {output}: the folder {nearest} cannot be written to")
        return
    storage.refuse_missing_bucket(output, "--output")


def write_predictions(tables: Iterable[pa.Table], schema: pa.Schema, manifest: pa.Table, output: str) -> dict[str, Any]:
    """Write rows as they come; the file appears, whole, only when every planned call has come out once.

    Args:
        tables: rows that have the columns of `schema`.
        schema: `by_row.OUTPUT_SCHEMA` or `by_call.CALL_OUTPUT_SCHEMA`; a .csv does without its nested columns.
        manifest: the plan, for its `call_id`.
        output: a file or URI that `check_output` lets pass.

    Returns:
        Counts, as `commands.predict.predict` gives them.

    Raises:
        RuntimeError: a planned call has no row, a row no planned call, or a row came twice.
    """
    is_csv = storage.suffix(output) == ".csv"
    if is_csv:
        schema = pa.schema([field for field in schema if not pa.types.is_nested(field.type)])
    open_writer = pacsv.CSVWriter if is_csv else pq.ParquetWriter
    account = Account(manifest["call_id"])
    with _whole_file(output) as stream:
        with open_writer(stream, schema) as writer:
            for table in tables:
                rows = table.select(schema.names).cast(schema)
                writer.write_table(rows)
                account.add(rows)
        return account.close()


@contextlib.contextmanager
def _whole_file(output: str) -> Iterator[pa.NativeFile]:
    """A stream to what becomes `output` when the block ends well; else that is as it was, and nothing is left beside it."""
    filesystem, path = storage.open_location(output)
    patiently(output, lambda: filesystem.create_dir(posixpath.dirname(path), recursive=True))
    local = fs.LocalFileSystem()
    with contextlib.ExitStack() as cleanup:
        if isinstance(filesystem, fs.LocalFileSystem):
            partial = f"{path}.partial"
        else:
            # A stream to an object store publishes, when it is closed, what it has got so far: it cannot be given up.
            partial = posixpath.join(cleanup.enter_context(tempfile.TemporaryDirectory()), "partial")
        cleanup.callback(Path(partial).unlink, missing_ok=True)
        with local.open_output_stream(partial) as stream:
            yield stream
        if isinstance(filesystem, fs.LocalFileSystem):
            local.move(partial, path)
        else:
            patiently(output, lambda: _upload(partial, filesystem, path))


def _upload(source: str, filesystem: fs.FileSystem, path: str) -> None:
    try:
        fs.copy_files(source, path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)
    except BaseException:
        # What had arrived of it would pass for all of it.
        with contextlib.suppress(OSError):
            filesystem.delete_file(path)
        raise


class Account:
    """What has come out of the calls that were planned.

    Args:
        planned: their ids, each once.
    """

    def __init__(self, planned: pa.ChunkedArray) -> None:
        self.planned = Numbering(planned)
        self.has_come, self.is_predicted = (np.zeros(len(planned), bool) for _ in range(2))
        self.unplanned: set[str] = set()
        self.num_rows = 0
        self.numbers: list[NDArray[np.int64]] = []
        self.labels, self.reasons, self.utterances = Counter[int](), Counter[str](), Counter[str]()

    def add(self, rows: pa.Table) -> None:
        """Count some rows of an output schema."""
        self.labels.update(_frequencies(rows["urgency_pred"]))
        self.reasons.update(_frequencies(rows["reason"]))
        for name in ("utterances", "utterances_rejected"):
            if f"num_{name}" in rows.column_names:
                self.utterances[name] += pc.sum(rows[f"num_{name}"], min_count=0).as_py()
        self.num_rows += len(rows)
        calls, is_predicted = self.planned.of(rows["call_id"]), pc.is_valid(rows["urgency_pred"]).to_numpy()
        is_planned = calls != UNKNOWN
        self.unplanned |= set(pc.unique(rows["call_id"].filter(pa.array(~is_planned))).to_pylist())
        self.has_come[calls[is_planned]] = True
        self.is_predicted[calls[is_planned & is_predicted]] = True
        self.numbers.append(number_rows(rows, calls)[is_planned])

    def close(self) -> dict[str, Any]:
        """The counts.

        Raises:
            RuntimeError: a planned call has no row, a row no planned call, or a row came twice.
        """
        num_calls, num_predicted = int(self.has_come.sum()), int(self.is_predicted.sum())
        if self.unplanned or num_calls < len(self.planned) or count_doubled(self.numbers):
            found = num_calls + len(self.unplanned)
            raise RuntimeError(f"accounting: {len(self.planned)} calls planned, {found} came out, in {self.num_rows} rows")
        return {
            "calls_read": num_calls,
            "calls_predicted": num_predicted,
            "calls_rejected": num_calls - num_predicted,
            "rows_predicted": self.labels.total(),
            "rows_rejected": self.reasons.total(),
            "rejected_by_reason": dict(self.reasons.most_common()),
            "predicted": {URGENCY_KEYS[label]: count for label, count in self.labels.items()},
            **self.utterances,
        }


def describe_counts(counts: dict[str, Any]) -> str:
    """`30 calls read = 28 predicted + 2 rejected (2 silent_audio)`; the reasons are those of rows."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts["rejected_by_reason"].items())
    line = "{calls_read} calls read = {calls_predicted} predicted + {calls_rejected} rejected".format(**counts)
    return line + (f" ({reasons})" if reasons else "")


def _frequencies(values: pa.ChunkedArray) -> dict[Any, int]:
    """How often each value is there, nulls left out."""
    return {count["values"]: count["counts"] for count in pc.value_counts(values.drop_null()).to_pylist()}
