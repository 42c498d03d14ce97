"""A user's manifest -> a planned call for each of its rows. No audio is opened; what cannot be used is a row with a reason."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import pyarrow as pa

from urgency_ray import storage
from urgency_ray.calls.archives import Fault
from urgency_ray.calls.formats import AUDIO_SUFFIXES, LABEL_SUFFIX
from urgency_ray.calls.listed_files import NO_FILE, FileFound, Named, folder_of, look_up, resolve
from urgency_ray.calls.manifest_cells import Column, Columns, FaultyCellError, as_ms, as_path, as_split, as_text, label_of
from urgency_ray.calls.manifest_rows import Row, read_rows
from urgency_ray.calls.planned import to_table
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, RequestError
from urgency_ray.schema import LISTED_SCHEMA

_ROW_DIGITS = 16


class Listed(NamedTuple):
    """What a row says of a call.

    Attributes:
        where: where the row stands, for messages.
        id: the id that it gives.
        audio, label_file: the files that it names.
        label: JSON with the fields of a label file.
    """

    where: str
    id: str | None = None
    audio: Named | None = None
    label_file: Named | None = None
    label: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    split: str = "unknown"
    speaker: str | None = None
    group: str | None = None
    region: str | None = None
    fault: Fault = None


def plan_listed(data: DataConfig, manifest: str) -> pa.Table:
    """Plan a call for each row of `manifest`, whose paths are relative to its folder.

    Returns:
        A table of `LISTED_SCHEMA`, sorted by call_id, a row for each of the manifest. Its id is that which the row gives; else
        the stem of its audio, with the folder before it where several rows have that stem, and the offset behind it where
        several have that file.

    Raises:
        RequestError: the manifest cannot be read, holds no rows, or has no column of what is needed.
        UnreachableError: the files cannot be looked up.
    """
    columns = Columns(data.manifest_columns)
    base = folder_of(manifest)
    rows = [_parse_row(row, columns, base) for row in read_rows(manifest)]
    if not rows:
        raise RequestError(f"--data.manifest {manifest}: holds no rows")
    _refuse_useless(data, manifest, columns, rows)
    found = look_up(file for row in rows for file in (row.audio, row.label_file) if file)
    calls = _name_rows(rows, posixpath.basename(storage.without_options(manifest)))
    planned = (_planned(call_id, calls.pop(call_id), found) for call_id in sorted(calls))
    return to_table(planned, LISTED_SCHEMA)


def _refuse_useless(data: DataConfig, manifest: str, columns: Columns, rows: list[Listed]) -> None:
    wanted: list[tuple[Column, ...]] = [("audio",)]
    wanted += [("text", "utterances", "label")] if data.require_text or data.unit == "utterance" else []
    wanted += [("urgency", "label")] if data.require_urgency else []
    try:
        columns.refuse_missing(wanted)
    except RequestError as error:
        fault = next((f"; {row.where}: {row.fault[1]}" for row in rows if row.fault and not columns.names), "")
        # Names of columns may hold anything, line breaks too.
        raise RequestError(f"--data.manifest {manifest}: {' '.join(f'{error}{fault}'.split())}") from None


def _parse_row(row: Row, columns: Columns, base: str) -> Listed:
    cells = columns.pick(row.cells)
    try:
        listed = _parse_audio(row.where, cells, base)
    except FaultyCellError as error:
        return Listed(row.where, fault=(Reason.INVALID_ROW, str(error)))
    try:
        if row.fault:
            raise FaultyCellError(row.fault)
        if listed.audio is None:
            raise FaultyCellError("names no audio")
        return _parse_rest(listed, cells, base)
    except FaultyCellError as error:
        return listed._replace(fault=(Reason.INVALID_ROW, str(error)))


def _parse_audio(where: str, cells: dict[Column, Any], base: str) -> Listed:
    listed = Listed(where, _name_in(cells, "id"))
    if "audio" not in cells:
        return listed
    return listed._replace(audio=resolve(base, as_path(cells["audio"], "audio")))


def _parse_rest(listed: Listed, cells: dict[Column, Any], base: str) -> Listed:
    start_ms = as_ms(cells["offset"], "offset") if "offset" in cells else None
    duration_ms = as_ms(cells["duration"], "duration") if "duration" in cells else None
    label_file = resolve(base, as_path(cells["label"], "label")) if "label" in cells else None
    if label_file is not None and label_file.suffix != LABEL_SUFFIX:
        words = "label: must be the path of a .json file; a column of urgencies is named by data.manifest_columns, {urgency: "
        raise FaultyCellError(f"{words}label}}")
    return listed._replace(
        label_file=label_file,
        label=label_of(cells, duration_ms),
        start_ms=start_ms,
        end_ms=None if duration_ms is None else (start_ms or 0) + duration_ms,
        split=as_split(cells["split"]) if "split" in cells else "unknown",
        speaker=_name_in(cells, "speaker"),
        group=_name_in(cells, "group"),
        region=_name_in(cells, "region"),
    )


def _name_in(cells: dict[Column, Any], what: Column) -> str | None:
    return as_text(cells[what], what) if what in cells else None


def _name_rows(rows: list[Listed], manifest: str) -> dict[str, Listed]:
    """The rows by their ids; one whose id is taken is a reject with a number behind that, as is one that names no call."""
    stems = Counter(row.audio.stem for row in rows if row.audio and row.id is None)
    uses = Counter(row.audio.place for row in rows if row.audio and row.id is None)
    calls: dict[str, Listed] = {}
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    # One that cannot be used takes no id from one that can.
    for row in sorted(rows, key=lambda row: row.fault is not None):
        if row.id is not None:
            wanted = row.id
        elif row.audio is None:
            wanted = f"{manifest}:{row.where.partition(' ')[2]}"
        else:
            wanted, folder, num_uses = row.audio.stem, posixpath.dirname(row.audio.name), uses[row.audio.place]
            wanted = f"{folder}:{wanted}" if folder and stems[wanted] > num_uses else wanted
            wanted += f"@{row.start_ms}" if num_uses > 1 and row.start_ms is not None else ""
        call_id = wanted
        while call_id in calls:
            numbers[wanted] += 1
            call_id = f"{wanted}#{numbers[wanted]}"
        duplicate = Reason.DUPLICATE_ID, f"{calls.get(wanted, row).where} has this id; give an id column, each once"
        calls[call_id] = row._replace(fault=row.fault or duplicate) if call_id != wanted else row
    return calls


def _planned(call_id: str, row: Listed, found: dict[Named, FileFound]) -> tuple[Any, ...]:
    """A row of `LISTED_SCHEMA`."""
    audio, label_file = (found[file] if file else None for file in (row.audio, row.label_file))
    fault = row.fault or _file_fault(row, audio, label_file)
    said = json.dumps([row.label, row.start_ms, row.end_ms, row.speaker, row.group])
    versions = [file.version for file in (audio, label_file) if file]
    return (
        call_id,
        audio.location if audio else None,
        audio.member if audio else None,
        label_file.location if label_file else None,
        label_file.member if label_file else None,
        audio.num_bytes if audio else 0,
        " ".join([*versions, hashlib.sha256(said.encode()).hexdigest()[:_ROW_DIGITS]]),
        row.split,
        row.region,
        fault[0].value if fault else None,
        f"{row.where} of the manifest: {fault[1]}" if fault else None,
        row.label,
        row.start_ms,
        row.end_ms,
        row.speaker,
        row.group,
    )


def _file_fault(row: Listed, audio: FileFound | None, label_file: FileFound | None) -> Fault:
    # What has no suffix of a recording may be no name, but somebody's words in the wrong column.
    names = row.audio.name if row.audio and row.audio.suffix in AUDIO_SUFFIXES else "the audio"
    if audio is not None and audio.fault:
        return audio.reason or Reason.MISSING_AUDIO, f"{names}: {_describe(audio.fault)}"
    if label_file is not None and label_file.fault:
        return label_file.reason or Reason.MISSING_LABEL, f"the label of {names}: {_describe(label_file.fault)}"
    return None


def _describe(fault: str) -> str:
    return f"{fault}; paths are relative to the manifest's folder" if fault == NO_FILE else fault
