"""Archives and folders -> one manifest row a call.

No call is opened while planning. What cannot be used is a row with a reason, never a gap.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple
from unicodedata import normalize

import pyarrow as pa

from urgency_ray.calls.files import Fault, list_entries, max_audio_bytes
from urgency_ray.calls.formats import AUDIO_SUFFIXES
from urgency_ray.calls.label import MAX_LABEL_BYTES
from urgency_ray.calls.label_collections import name_collections
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, RequestError
from urgency_ray.schema import MANIFEST_SCHEMA

_PART_FOLDER = re.compile(r"(?:\d+\.)?(Training|Validation)")
_PART_ARCHIVE = re.compile(r"([TV])[SL]_(?:([^_]+)_)?")

ROWS_PER_BATCH = 8192


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
    fault: Fault


def plan_calls(data: DataConfig) -> pa.Table:
    """Pair every WAV below `data.root` with the label of the same file stem, over all folders and archives.

    Returns:
        A table of `MANIFEST_SCHEMA`, sorted by call_id: one row for each stem, one more (`stem#2`) for each further WAV or
        label of it, and one for each unreadable archive, named after its file. Stems are compared in NFC; the containers and
        members keep their names as they are, for `files.read_file`.

    Raises:
        RequestError: `data.root` is not given, is no folder, cannot be listed, or holds no calls.
    """
    wavs: dict[str, _File] = {}
    labels: dict[str, _File] = {}
    extras: list[_File] = []
    for file in _find_files(data):
        if file.suffix == ".zip":
            extras.append(file)
            continue
        same = labels if file.suffix == ".json" else wavs
        first = same.setdefault(file.stem, file)
        if first is file:
            continue
        same[file.stem], extra = (file, first) if _rank(file) < _rank(first) else (first, file)
        if extra.suffix == same[file.stem].suffix:  # a recording in another format is a copy, and no second call
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
        raise RequestError(f"--data.root {data.root}: holds no calls (no .wav, .json or .zip file, or only empty archives)")
    # A file is given up once it is in a batch: whole columns of Python objects would take more memory than all else.
    rows = (
        _row(data, call_id, *(named.get(call_id) or (wavs.pop(call_id, None), labels.pop(call_id, None))))
        for call_id in sorted(stems | named.keys())
    )
    batches = []
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        columns = zip(MANIFEST_SCHEMA, zip(*batch, strict=True), strict=True)
        arrays = [pa.array(values, field.type) for field, values in columns]
        batches.append(pa.record_batch(arrays, schema=MANIFEST_SCHEMA))
    return name_collections(pa.Table.from_batches(batches))


def _rank(file: _File) -> tuple[bool, int]:
    return file.fault is not None, AUDIO_SUFFIXES.index(file.suffix) if file.suffix in AUDIO_SUFFIXES else 0


def _row(data: DataConfig, call_id: str, wav: _File | None, label: _File | None) -> tuple[Any, ...]:
    files = [file for file in (wav, label) if file]
    fault = next((file.fault for file in files if file.fault), None)
    if fault is None and wav is None:
        fault = Reason.MISSING_AUDIO, "no WAV has this stem"
    elif fault is None and label is None and (data.require_text or data.unit == "utterance"):
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
    limits = dict.fromkeys(AUDIO_SUFFIXES, max_audio_bytes(data)) | {".json": MAX_LABEL_BYTES}
    for path, container, member, num_bytes, version, fault in list_entries(data.root):
        folder, filename = posixpath.split(path)
        stem, suffix = posixpath.splitext(filename)
        suffix = suffix.lower()
        own_fault: Fault = None
        if suffix == ".zip":
            folder, stem = path, filename
            own_fault = Reason.UNREADABLE_ARCHIVE, "an archive inside an archive; unpack it first"
        elif suffix not in limits:
            continue
        elif num_bytes > limits[suffix]:
            own_fault = Reason.FILE_TOO_LARGE, f"{num_bytes} bytes; at most {limits[suffix]} are read"
        yield _File(normalize("NFC", stem), suffix, container, member, num_bytes, version, *_origin(folder), fault or own_fault)


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
