"""Archives and folders -> one manifest row a call.

No call is opened while planning, but for the start of files that may be copies. What cannot be used is a row with a reason,
what is not read is counted by its suffix: never a gap.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from unicodedata import normalize

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.accounts import FilesSeen
from urgency_ray.calls.archives import Fault, is_archive_name
from urgency_ray.calls.files import Entry, Listing, max_audio_bytes
from urgency_ray.calls.foreign import Foreign, advice, classify, missing_part, suffix_of
from urgency_ray.calls.formats import AUDIO_SUFFIXES
from urgency_ray.calls.joining import Files, Lookup, merge_calls
from urgency_ray.calls.label import MAX_LABEL_BYTES
from urgency_ray.calls.label_collections import name_collections
from urgency_ray.calls.manifest import plan_listed
from urgency_ray.calls.manifest_rows import READERS
from urgency_ray.calls.near_misses import find_near_misses
from urgency_ray.calls.pairing import Call, File, pair_stems
from urgency_ray.calls.places import place_of
from urgency_ray.calls.planned import to_table
from urgency_ray.config import DataConfig
from urgency_ray.errors import Reason, RequestError
from urgency_ray.schema import MANIFEST_SCHEMA

_SHOWN = 3
FILES_SEEN_KEY = b"files_seen"
_SUFFIXES = frozenset((*AUDIO_SUFFIXES, ".json"))
_NO_PARTNER = {
    True: (Reason.MISSING_LABEL, "no JSON has this stem"),
    False: (Reason.MISSING_AUDIO, "no recording has this stem"),
}


def plan_calls(data: DataConfig) -> pa.Table:
    """Pair the WAVs below `data.root` with the labels of the same file stem, by their folders and archives.

    What lies in one folder is paired first, then what lies in folders that correspond (TS_x.zip and TL_x.zip, wav/ and json/),
    then what there is one of each in the whole tree. Stems are compared in NFC. Where `data.manifest` lists the calls, see
    `plan_listed`.

    Returns:
        A table of `MANIFEST_SCHEMA`, sorted by call_id: one row for each call; a stem that names several has its folder before
        it (`2024-01-01:0001`). A copy of a call is one more row (`stem#2`), and so is each archive or folder that cannot be
        read, named after its file. Containers and members are for `files.read_file`. `files_seen` takes it.

    Raises:
        RequestError: `data.root` is not given, cannot be listed, or holds no calls; or see `plan_listed`.
    """
    if data.manifest is not None:
        return plan_listed(data, data.manifest)
    found = _Found(data)
    if not found.holds_calls():
        raise RequestError(f"--data.root {data.root}: {found.nothing()}")
    calls = _name_calls(found, _Missing(found, is_label_needed=data.require_text or data.unit == "utterance"))
    rows = (_row(call_id, calls.pop(call_id)) for call_id in sorted(calls))
    table = name_collections(merge_calls(found.paired, to_table(rows, MANIFEST_SCHEMA)), found.tables)
    usable = table["provider_split"].filter(pc.is_null(table["reason"]))
    splits = Counter({count["values"]: count["counts"] for count in pc.value_counts(usable).to_pylist()})
    num_copies = pc.sum(pc.equal(table["reason"], Reason.DUPLICATE_STEM.value), min_count=0).as_py()
    seen = found.seen(dict(splits.most_common()), num_copies)
    return table.replace_schema_metadata({FILES_SEEN_KEY: seen.model_dump_json()})


def files_seen(manifest: pa.Table) -> FilesSeen | None:
    """What `plan_calls` saw below `data.root` on the way to its table; None of calls that a user's manifest lists."""
    seen = (manifest.schema.metadata or {}).get(FILES_SEEN_KEY)
    return None if seen is None else FilesSeen.model_validate_json(seen)


def describe_plan(manifest: pa.Table) -> list[str]:
    """What was planned, in lines for the terminal."""
    seen = files_seen(manifest)
    return [f"{len(manifest)} rows of the manifest, each a call"] if seen is None else seen.lines()


class _Found:
    """The files below a root, sorted out.

    Attributes:
        paired: rows of the manifest, of stems that are a WAV and a label side by side.
        keys: of the places where these lie.
        by_stem: WAVs and labels of all other stems.
        rows: what is a row though it is neither.
        tables: names of some files that are not read, and may list calls.
        near_misses: how many pairs of stems are one but for their spelling, by how they differ.
    """

    def __init__(self, data: DataConfig) -> None:
        self._files = Files()
        self.rows: list[Call] = []
        self.tables: list[str] = []
        self._num_foreign = 0
        self.near_misses: dict[str, int] = {}
        self._not_read: Counter[str] = Counter()
        self._foreign: defaultdict[tuple[str, Foreign], list[Entry]] = defaultdict(list)
        self._archives: set[tuple[str, str]] = set()
        self._limits = dict.fromkeys(AUDIO_SUFFIXES, max_audio_bytes(data)) | {".json": MAX_LABEL_BYTES}
        self._listing = Listing(data.root)
        for entry in self._listing.entries():
            self._sort_out(entry)
        self.paired, self.keys, self.by_stem, self._num_files = self._files.join()
        self._name_foreign()

    def _sort_out(self, entry: Entry) -> None:
        stem, suffix = posixpath.splitext(entry.filename)
        suffix = suffix.lower()
        if suffix in _SUFFIXES and not entry.is_row:
            fault = entry.fault
            if fault is None and entry.num_bytes > self._limits[suffix]:
                fault = Reason.FILE_TOO_LARGE, f"{entry.num_bytes} bytes; at most {self._limits[suffix]} are read"
            self._files.add(self._file(entry, stem if stem.isascii() else normalize("NFC", stem), suffix, fault))
        else:
            self._pass_over(entry)

    def _file(self, entry: Entry, stem: str, suffix: str, fault: Fault) -> File:
        place = place_of(entry.folder, self._listing.base)
        return File(stem, suffix, entry.container, entry.member, entry.num_bytes, entry.version, place, fault)

    def _pass_over(self, entry: Entry) -> None:
        self._not_read[suffix_of(entry.filename)] += 1
        if posixpath.splitext(entry.filename)[1].lower() in READERS and len(self.tables) < _SHOWN:
            self.tables.append(entry.filename)
        if entry.is_row or (entry.fault and is_archive_name(entry.filename)):
            self._archives.add((entry.folder, entry.filename.lower()))
            self._add_row(entry, entry.filename, entry.fault)
        elif foreign := classify(entry.filename):
            self._foreign[entry.folder, foreign].append(entry)

    def leave_unread(self, file: File) -> None:
        """Count a recording as not read."""
        self._num_files -= 1
        self._not_read[file.suffix] += 1

    def _add_row(self, entry: Entry, name: str, fault: Fault) -> None:
        # What an archive's name says of split and region is said of the archive as well.
        within = entry._replace(folder=f"{entry.folder}/{entry.filename}")
        self.rows.append(Call(self._file(within, normalize("NFC", name), "", fault), None, fault))

    def _name_foreign(self) -> None:
        """A row for each archive of another kind, and for each that is there in parts; none beside the archive itself."""
        whole = self._archives | self._listing.archives.keys()
        for (folder, foreign), entries in self._foreign.items():
            if foreign.kind in ("part", "split") and (folder, foreign.whole.lower()) in whole:
                continue
            first = entries[0]
            names = sorted(entry.filename for entry in entries)
            words = advice(foreign, names, self._listing.archive_of(first))
            if gap := missing_part({entry.filename: entry.num_bytes for entry in entries}):
                words += f"; what comes before {gap} is missing or cut off: download it again first"
            self._num_foreign += 1
            self._add_row(
                first, foreign.whole if foreign.kind == "part" else first.filename, (Reason.UNREADABLE_ARCHIVE, words)
            )

    def holds_calls(self) -> bool:
        """Whether there is a WAV or a label, or an archive or a folder that should hold some and cannot be read."""
        return bool(len(self.paired) or self.by_stem) or len(self.rows) > self._num_foreign

    def nothing(self) -> str:
        """Why there are no calls, on one line."""
        counts = self.seen({}, 0).not_read_words()
        names: defaultdict[str, list[str]] = defaultdict(list)
        for call in self.rows:
            if call.wav and call.fault:
                names[call.fault[1]].append(call.wav.stem)
        lines = [f"{', '.join(some[:_SHOWN])}{' …' * (len(some) > _SHOWN)}: {words}" for words, some in names.items()]
        what = f"; not read: {counts}" if counts else ""
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        start = f"holds no calls (no recording, .json, .zip or .tar file, or only empty archives){what}"
        return " ".join("; ".join([start, *lines[:_SHOWN], *more]).split())

    def seen(self, calls_by_split: dict[str, int], num_copies: int) -> FilesSeen:
        """All files, counted."""
        not_read = self._not_read + Counter({"hidden": self._listing.num_hidden})
        num_read = self._num_files + len(self._listing.archives)
        return FilesSeen(
            seen=num_read + not_read.total(),
            read=num_read,
            not_read=dict(not_read.most_common()),
            calls_by_split=calls_by_split,
            copies=num_copies,
            near_misses=self.near_misses,
        )


def _name_calls(found: _Found, missing: _Missing) -> dict[str, Call]:
    """The calls by their ids: the stem where it names one call, else with its folder before it, and a number if need be."""
    stems = pair_stems(found.by_stem, found.keys)
    is_paired = Lookup(found.paired["call_id"])
    calls: dict[str, Call] = {}
    others: list[tuple[str, Call]] = []
    for stem in list(found.by_stem):
        files = found.by_stem.pop(stem)
        if stem not in stems:
            wavs, labels = ([file for file in files if file.is_audio is is_audio] for is_audio in (True, False))
            calls[stem] = missing.explain(Call(wavs[0] if wavs else None, labels[0] if labels else None))
            continue
        outcome = stems.pop(stem)
        alone = [missing.explain(call) for call in outcome.rejects]
        if outcome.pairs[1:] or not outcome.pairs:
            ids = [_with_folder(call, stem) for call in outcome.pairs]
            others += zip(ids, outcome.pairs, strict=True)
        else:
            ids = [stem]
            calls[stem] = outcome.pairs[0]
        others += [(stem if len(alone) == 1 and not ids else _with_folder(call, stem), call) for call in alone]
        for index, copy in outcome.copies:
            others += [(ids[index], call) for call in _as_copy(found, copy, outcome.pairs[index])]
    others += [(call.wav.stem, call) for call in found.rows if call.wav]
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    for wanted, call in others:
        call_id = wanted
        while call_id in calls or call_id in is_paired:
            numbers[wanted] += 1
            call_id = f"{wanted}#{numbers[wanted]}"
        calls[call_id] = call
    return calls


def _with_folder(call: Call, stem: str) -> str:
    return f"{'/'.join(call.place.key)}:{stem}" if call.place.key else stem


def _as_copy(found: _Found, copy: Call, used: Call) -> Iterator[Call]:
    """The row of a copy; a recording in another format is none."""
    if copy.wav and used.wav and copy.wav.suffix != used.wav.suffix:
        found.leave_unread(copy.wav)
        copy = copy._replace(wav=None)
    file = used.wav if copy.wav else used.label
    if file and copy.files:
        yield copy._replace(fault=(Reason.DUPLICATE_STEM, f"the one used is in {file.container}"))


class _Missing:
    """What the row of a WAV without a label, or a label without a WAV, says; the near misses are counted in `found`."""

    def __init__(self, found: _Found, *, is_label_needed: bool) -> None:
        self._is_label_needed = is_label_needed
        self._nearly: dict[tuple[bool, str], str] = {}
        lonely = [files[0] for files in found.by_stem.values() if len(files) == 1 and not files[0].fault]
        wavs, labels = ({file.stem: file for file in lonely if file.is_audio is is_audio} for is_audio in (True, False))
        near_misses = find_near_misses(wavs, labels) if wavs and labels else []
        for wav, label, kind in near_misses:
            self._nearly[True, wav] = f"; {label}.json differs {kind} alone"
            self._nearly[False, label] = f"; {wav}{wavs[wav].suffix} differs {kind} alone"
        found.near_misses = dict(Counter(miss.kind for miss in near_misses).most_common())

    def explain(self, call: Call) -> Call:
        """The call, with its fault where it lacks a file that it needs."""
        files = call.files
        if len(files) == 2 or files[0].fault:
            return call
        (file,) = files
        reason, words = _NO_PARTNER[file.is_audio]
        if not self._is_label_needed and file.is_audio and (call.fault is None or call.fault[0] is reason):
            return call._replace(fault=None)
        return call if call.fault else call._replace(fault=(reason, words + self._nearly.get((file.is_audio, file.stem), "")))


def _row(call_id: str, call: Call) -> tuple[Any, ...]:
    wav, label, fault = call
    files = call.files
    fault = fault or next((file.fault for file in files if file.fault), None)
    return (
        call_id,
        *((wav.container, wav.member) if wav else (None, None)),
        *((label.container, label.member) if label else (None, None)),
        wav.num_bytes if wav else 0,
        " ".join(file.version for file in files),
        next((file.place.provider_split for file in files if file.place.provider_split != "unknown"), "unknown"),
        next((file.place.region for file in files if file.place.region), None),
        *((fault[0].value, fault[1]) if fault else (None, None)),
    )
