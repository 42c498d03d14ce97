"""One label file for many calls, which is not read: told where recordings lack theirs."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.calls.files import read_file
from urgency_ray.calls.label import MAX_LABEL_BYTES
from urgency_ray.calls.label_file import holds_several
from urgency_ray.errors import Reason, Reject

# Of thousands of labels without a recording, none is likely to be one for all.
_MAX_OPENED = 3


def name_collections(manifest: pa.Table) -> pa.Table:
    """The manifest with a word on label files of many calls, in the details of those and of the recordings without a label.

    Raises:
        UnreachableError: a label cannot be reached.
    """
    alone = manifest.filter(pc.equal(manifest["reason"], Reason.MISSING_AUDIO.value))
    if not 0 < len(alone) <= _MAX_OPENED or not pc.any(pc.equal(manifest["reason"], Reason.MISSING_LABEL.value)).as_py():
        return manifest
    found = [call["call_id"] for call in alone.to_pylist() if _is_collection(call["label_container"], call["label_member"])]
    if not found:
        return manifest
    advice = "holds several labels: one JSON file for each call is read, named as its recording"
    is_collection = pc.is_in(manifest["call_id"], pa.array(found))
    words = pc.if_else(is_collection, f"; it {advice}", f"; {found[0]}.json {advice}")
    is_meant = pc.or_kleene(is_collection, pc.equal(manifest["reason"], Reason.MISSING_LABEL.value))
    told = pc.binary_join_element_wise(pc.fill_null(manifest["detail"], ""), words, "")
    position = manifest.schema.get_field_index("detail")
    details = pc.if_else(pc.fill_null(is_meant, False), told, manifest["detail"])
    return manifest.set_column(position, manifest.schema.field(position), details)


def _is_collection(container: str, member: str | None) -> bool:
    try:
        return holds_several(read_file(container, member, MAX_LABEL_BYTES))
    except Reject:
        return False
