"""Planned calls: their table, and of each its label, from its file, from the manifest that lists it, or from both."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from urgency_ray.calls.files import read_file
from urgency_ray.calls.label import MAX_LABEL_BYTES, NO_LABEL, Label, parse_label
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, Reject

_ROWS_PER_BATCH = 8192


def to_table(rows: Iterator[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows, whose values are in the schema's order, as a table.

    A row is given up once it is in a batch: whole columns of Python objects would take more memory than all else.
    """
    batches = []
    while batch := list(islice(rows, _ROWS_PER_BATCH)):
        columns = zip(schema, zip(*batch, strict=True), strict=True)
        arrays = [pa.array(values, field.type) for field, values in columns]
        batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def read_label(call: dict[str, Any], data: DataConfig) -> Label:
    """The label of a row of `MANIFEST_SCHEMA` or `LISTED_SCHEMA`.

    Raises:
        Reject: there is none, and it must say the urgency; or see `read_file` and `parse_label`.
        UnreachableError: its file cannot be reached.
    """
    container, given = call["label_container"], call.get("label")
    if container is not None:
        content = read_file(container, call["label_member"], MAX_LABEL_BYTES)
        return parse_label(content, data.require_urgency, given, require_text=data.require_text)
    if given is not None:
        return parse_label(given.encode(), data.require_urgency, require_text=data.require_text)
    if data.require_urgency:
        raise Reject(Reason.MISSING_LABEL, "no label says its urgency")
    return NO_LABEL
