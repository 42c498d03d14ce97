"""One label file for many calls, or a list of them, which is not read: told where recordings lack their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.calls.files import read_file
from urgency_ray.calls.label import MAX_LABEL_BYTES
from urgency_ray.calls.label_file import holds_several
from urgency_ray.errors import Reason, Reject

# Of thousands of labels without a recording, none is likely to be one for all.
_MAX_OPENED = 3


def name_collections(manifest: pa.Table, tables: Sequence[str]) -> pa.Table:
    """The manifest with a word on files of many calls, in the details of the recordings without a label, and of those files.

    Args:
        manifest: rows of `MANIFEST_SCHEMA`.
        tables: names of files that were not read, and may list calls.

    Raises:
        UnreachableError: a label cannot be reached.
    """
    lacks_label = pc.fill_null(pc.equal(manifest["reason"], Reason.MISSING_LABEL.value), False)
    if not pc.any(lacks_label).as_py():
        return manifest
    if tables:
        told = f"; not read: {', '.join(tables)} (a list of calls is given as --data.manifest)"
        manifest = _tell(manifest, lacks_label, told)
    alone = manifest.filter(pc.equal(manifest["reason"], Reason.MISSING_AUDIO.value))
    if len(alone) > _MAX_OPENED:
        return manifest
    found = [call["call_id"] for call in alone.to_pylist() if _is_collection(call["label_container"], call["label_member"])]
    if not found:
        return manifest
    advice = "holds several labels: one JSON file for each call is read, named as its recording"
    is_collection = pc.is_in(manifest["call_id"], pa.array(found))
    words = pc.if_else(is_collection, f"; it {advice}", f"; {found[0]}.json {advice}")
    return _tell(manifest, pc.or_(is_collection, lacks_label), words)


def _tell(manifest: pa.Table, rows: pa.ChunkedArray, words: Any) -> pa.Table:
    """The manifest with words behind the details of some rows, by a mask."""
    told = pc.binary_join_element_wise(pc.fill_null(manifest["detail"], ""), words, "")
    position = manifest.schema.get_field_index("detail")
    details = pc.if_else(rows, told, manifest["detail"])
    return manifest.set_column(position, manifest.schema.field(position), details)


def _is_collection(container: str, member: str | None) -> bool:
    try:
        return holds_several(read_file(container, member, MAX_LABEL_BYTES))
    except Reject:
        return False
