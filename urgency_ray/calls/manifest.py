"""A user's manifest -> a planned call for each of its rows. No audio is opened; what cannot be used is a row with a reason."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from unicodedata import normalize
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.calls.archives import Fault
from urgency_ray.calls.formats import AUDIO_SUFFIXES, LABEL_SUFFIX
from urgency_ray.calls.manifest_cells import Column, Columns, FaultyCellError, as_ms, as_path, as_split, as_text, label_of
from urgency_ray.calls.manifest_rows import Row, read_rows
from urgency_ray.calls.planned import to_table
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, RequestError, UnreachableError
from urgency_ray.schema import LISTED_SCHEMA

_ROW_DIGITS = 16


class Listed(NamedTuple):
    """What a row says of a call.

    Attributes:
        where: where the row stands, for messages.
        id: the id that it gives.
        audio, audio_name: where the audio lies, and how the row names it.
        label_file: where the label file lies.
        label: JSON with the fields of a label file.
    """

    where: str
    id: str | None = None
    audio: str | None = None
    audio_name: str = ""
    label_file: str | None = None
    label: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    split: str = "unknown"
    speaker: str | None = None
    group: str | None = None
    region: str | None = None
    fault: Fault = None


class FileFound(NamedTuple):
    """A file that a row names: where it is, as `files.read_file` takes it; or why it is not read."""

    location: str
    num_bytes: int = 0
    version: str = ""
    fault: str | None = None


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
    base = _folder_of(manifest)
    rows = [_parse_row(row, columns, base) for row in read_rows(manifest)]
    if not rows:
        raise RequestError(f"--data.manifest {manifest}: holds no rows")
    _refuse_useless(data, manifest, columns, rows)
    found = _look_up(place for row in rows for place in (row.audio, row.label_file) if place)
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


def _folder_of(manifest: str) -> str:
    if "://" not in manifest:
        return posixpath.dirname(storage.absolute(manifest))
    address, mark, options = manifest.partition("?")
    return posixpath.dirname(address) + mark + options


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
    name = as_path(cells["audio"], "audio")
    return listed._replace(audio=_resolve(base, name), audio_name=normalize("NFC", name))


def _parse_rest(listed: Listed, cells: dict[Column, Any], base: str) -> Listed:
    start_ms = as_ms(cells["offset"], "offset") if "offset" in cells else None
    duration_ms = as_ms(cells["duration"], "duration") if "duration" in cells else None
    label_file = as_path(cells["label"], "label") if "label" in cells else None
    if label_file is not None and not label_file.lower().endswith(LABEL_SUFFIX):
        words = "label: must be the path of a .json file; a column of urgencies is named by data.manifest_columns, {urgency: "
        raise FaultyCellError(f"{words}label}}")
    return listed._replace(
        label_file=None if label_file is None else _resolve(base, label_file),
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


def _resolve(base: str, name: str) -> str:
    """Where a file lies that a row names: a URI, an absolute path, or one relative to `base`."""
    if "://" in name:
        return name if name.isascii() and " " not in name else quote(name, safe="/:%?&=+")
    if name.startswith(("/", "~")):
        return storage.absolute(name)
    if "://" not in base:
        return storage.absolute(posixpath.join(base, name))
    scheme, _, folder = storage.join(base, quote(name)).partition("://")
    return f"{scheme}://{posixpath.normpath(folder)}"


def _name_rows(rows: list[Listed], manifest: str) -> dict[str, Listed]:
    """The rows by their ids; one whose id is taken is a reject with a number behind that, as is one that names no call."""
    stems = Counter(_stem(row) for row in rows if row.audio and row.id is None)
    uses = Counter(row.audio for row in rows if row.id is None)
    calls: dict[str, Listed] = {}
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    # One that cannot be used takes no id from one that can.
    for row in sorted(rows, key=lambda row: row.fault is not None):
        wanted = row.id
        if wanted is None and row.audio is None:
            wanted = f"{manifest}:{row.where.partition(' ')[2]}"
        elif wanted is None:
            wanted = _stem(row)
            folder = posixpath.dirname(row.audio_name)
            wanted = f"{folder}:{wanted}" if folder and stems[wanted] > uses[row.audio] else wanted
            wanted += f"@{row.start_ms}" if uses[row.audio] > 1 and row.start_ms is not None else ""
        call_id = wanted
        while call_id in calls:
            numbers[wanted] += 1
            call_id = f"{wanted}#{numbers[wanted]}"
        duplicate = Reason.DUPLICATE_ID, f"{calls.get(wanted, row).where} has this id; give an id column, each once"
        calls[call_id] = row._replace(fault=row.fault or duplicate) if call_id != wanted else row
    return calls


def _stem(row: Listed) -> str:
    return posixpath.splitext(posixpath.basename(storage.without_options(row.audio_name)))[0]


def _planned(call_id: str, row: Listed, found: dict[str, FileFound]) -> tuple[Any, ...]:
    """A row of `LISTED_SCHEMA`."""
    audio, label_file = (found[place] if place else None for place in (row.audio, row.label_file))
    fault = row.fault or _file_fault(row, audio, label_file)
    said = json.dumps([row.label, row.start_ms, row.end_ms, row.speaker, row.group])
    versions = [file.version for file in (audio, label_file) if file]
    return (
        call_id,
        audio.location if audio else None,
        None,
        label_file.location if label_file else None,
        None,
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
    is_name = _suffix(row.audio_name) in AUDIO_SUFFIXES
    names = row.audio_name if is_name else "the audio"
    if audio is not None and audio.fault:
        return Reason.MISSING_AUDIO, f"{names}: {audio.fault}"
    if label_file is not None and label_file.fault:
        return Reason.MISSING_LABEL, f"the label of {names}: {label_file.fault}"
    return None


def _suffix(name: str) -> str:
    return storage.suffix(name).lower()


def _look_up(places: Iterable[str]) -> dict[str, FileFound]:
    """What is there of each path or URI, folder by folder: a store is asked once for all files of one."""
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for place in dict.fromkeys(places):
        by_folder[posixpath.dirname(storage.without_options(place))].append(place)
    return {place: file for some in by_folder.values() for place, file in _look_into(some)}


def _look_into(places: list[str]) -> Iterator[tuple[str, FileFound]]:
    """What is there of the files of one folder; a name that differs in its Unicode form alone is the same."""
    try:
        filesystem, path = storage.open_location(places[0])
        infos = filesystem.get_file_info(fs.FileSelector(posixpath.dirname(path), allow_not_found=True))
    except RequestError:
        words = "no path, nor a URI of a kind that is read (s3://, gs://)"
        yield from ((place, FileFound(place, fault=words)) for place in places)
        return
    except (OSError, ValueError) as error:
        if "://" in places[0]:
            said = " ".join(str(error).split())
            raise UnreachableError(f"{posixpath.dirname(places[0])}: cannot be reached: {said}") from None
        yield from ((place, FileFound(place, fault="its folder cannot be read")) for place in places)
        return
    known = {info.base_name: info for info in infos}
    alike = {normalize("NFC", name): info for name, info in known.items()}
    for place in places:
        name = posixpath.basename(unquote(storage.without_options(place)) if "://" in place else place)
        info = known.get(name) or alike.get(normalize("NFC", name))
        yield place, _found(place, info)


def _found(place: str, info: fs.FileInfo | None) -> FileFound:
    if info is None or info.type == fs.FileType.NotFound:
        return FileFound(place, fault="no such file; paths are relative to the manifest's folder")
    if info.type == fs.FileType.Directory:
        return FileFound(place, fault="a folder, not a file")
    name = quote(info.base_name) if "://" in place else info.base_name
    address, mark, options = place.partition("?") if "://" in place else (place, "", "")
    location = f"{posixpath.dirname(address)}/{name}{mark}{options}"
    return FileFound(location, info.size or 0, str(info.mtime_ns or ""))
