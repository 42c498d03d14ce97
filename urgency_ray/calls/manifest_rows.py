"""A manifest, CSV, JSON lines or parquet -> its rows as mappings. What is wrong with one row is said of that row alone."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from urgency_ray import storage
from urgency_ray.calls.encodings import EncodingError, to_utf8
from urgency_ray.calls.label import MAX_LABEL_BYTES
from urgency_ray.errors import RequestError

_PACKED = (".gz", ".bz2", ".zst")
_DELIMITERS = ",\t;"


class Row(NamedTuple):
    """A row of a manifest: where it stands (`line 3`), its values by column, and why they cannot be read."""

    where: str
    cells: dict[str, Any]
    fault: str | None = None


def read_rows(location: str) -> Iterator[Row]:
    """The rows of a .csv, .tsv, .jsonl, .json or .parquet file, of the former also packed (.gz), in their order.

    JSON is a row a line, or one list of them. Empty cells of a CSV, and NaN, are None.

    Raises:
        RequestError: the file is missing or of another kind.
    """
    name = posixpath.basename(storage.without_options(location)).lower()
    stem, packing = posixpath.splitext(name)
    suffix = posixpath.splitext(stem)[1] if packing in _PACKED else packing
    reader = READERS.get(suffix)
    if reader is None:
        raise RequestError(f"--data.manifest {location}: must end in .csv, .tsv, .jsonl, .json or .parquet")
    try:
        yield from reader(storage.read_bytes(location))
    except FileNotFoundError:
        raise RequestError(f"--data.manifest {location}: no such file") from None
    except RequestError as error:
        raise RequestError(f"--data.manifest {location}: {' '.join(str(error).split())}") from None
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"--data.manifest {location}: cannot be read: {' '.join(str(error).split())}") from None


def _open_text(content: bytes) -> io.TextIOWrapper:
    """The text of a file, with its line ends as they are."""
    try:
        content = to_utf8(content)
    except EncodingError as error:
        raise RequestError(f"{error}; save it again as UTF-8") from None
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")


def _csv_rows(content: bytes) -> Iterator[Row]:
    stream = _open_text(content)
    line = stream.readline()
    stream.seek(0)
    csv.field_size_limit(MAX_LABEL_BYTES)
    reader = csv.reader(stream, delimiter=max(_DELIMITERS, key=line.count), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _refuse_repeated(header)
        for values in reader:
            cells = dict(zip(header, (value if value.strip() else None for value in values), strict=False))
            fault = None if len(values) == len(header) else f"has {len(values)} fields, and the header {len(header)}"
            if values:
                yield Row(f"line {reader.line_num}", cells, fault)
    except csv.Error as error:
        raise RequestError(f"line {reader.line_num}: no CSV: {error}") from None


def _refuse_repeated(header: list[str]) -> None:
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise RequestError(f"its header has {', '.join(twice)} more than once")


def _json_rows(content: bytes) -> Iterator[Row]:
    stream = _open_text(content)
    is_list = stream.read(64).lstrip()[:1] == "["
    stream.seek(0)
    if is_list:
        try:
            whole = json.load(stream, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"no JSON: {error}") from None
        yield from (_object_row(f"row {number}", value) for number, value in enumerate(whole, 1))
        return
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield _parse_line(f"line {number}", line)


def _parse_line(where: str, line: str) -> Row:
    try:
        return _object_row(where, json.loads(line, object_pairs_hook=_once))
    except RecursionError:
        return Row(where, {}, "no JSON: too deep")
    except ValueError as error:
        return Row(where, {}, f"no JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all there once: of two, JSON's readers take the last, and which was meant cannot be known."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given more than once")
    return found


def _object_row(where: str, value: Any) -> Row:
    return Row(where, value) if isinstance(value, dict) else Row(where, {}, "must be a JSON object")


def _parquet_rows(content: bytes) -> Iterator[Row]:
    number = 0
    file = pq.ParquetFile(pa.BufferReader(content))
    _refuse_repeated(file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=1024):
        for cells in batch.to_pylist():
            number += 1
            yield Row(f"row {number}", cells)


READERS: dict[str, Callable[[bytes], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".json": _json_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".parquet": _parquet_rows,
}
"""What reads a file's content, by the suffix of its name."""


def find_cell(cells: dict[str, Any], column: str) -> Any:
    """The value of a column, also of one inside others (`recording.sources.0.source`); None where there is none, or NaN."""
    value: Any = cells.get(column)
    if value is None and "." in column:
        value = cells
        for part in column.split("."):
            if isinstance(value, list):
                value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN
