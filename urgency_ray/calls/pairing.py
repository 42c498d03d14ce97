"""Which WAV goes with which label: what lies together first, over the whole tree only what cannot be anything else.

A stem that is used again elsewhere is another call, unless both hold the same; nothing is guessed.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise, takewhile, zip_longest
from typing import NamedTuple

from urgency_ray.calls.archives import Fault
from urgency_ray.calls.files import read_start
from urgency_ray.calls.formats import AUDIO_SUFFIXES
from urgency_ray.calls.places import Place
from urgency_ray.errors import Reason, Reject

_HEX_DIGITS_OF_A_UNIQUE_STEM = 16
_MOST_COMPARED = 16
_FORMATS = {suffix: rank for rank, suffix in enumerate(AUDIO_SUFFIXES)}
_HEX_DIGIT = re.compile("[0-9a-fA-F]")

Key = tuple[str, ...]


class File(NamedTuple):
    """A recording (for short: a WAV), a label, or what cannot be read and is a row of its own (its `stem` is the file name)."""

    stem: str
    suffix: str
    container: str
    member: str | None
    num_bytes: int
    version: str
    place: Place
    fault: Fault

    @property
    def is_audio(self) -> bool:
        """Whether it is a recording, and not a label."""
        return self.suffix != ".json"


class Call(NamedTuple):
    """A WAV and a label, or what there is of them, and why they are not used."""

    wav: File | None
    label: File | None
    fault: Fault = None

    @property
    def place(self) -> Place:
        """Where it lies."""
        file = self.wav or self.label
        assert file is not None
        return file.place

    @property
    def files(self) -> list[File]:
        """Those that there are."""
        return [file for file in (self.wav, self.label) if file]


class Stem:
    """What becomes of the files of one stem that are more than one WAV and one label side by side.

    Attributes:
        pairs: calls that have both.
        copies: further files of a pair, with the pair's position.
        rejects: files that stay alone, or of which nobody can say where they belong.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self.pairs: list[Call] = []
        self.copies: list[tuple[int, Call]] = []
        self.rejects: list[Call] = []
        self.left = list(files)
        self._pair_within(lambda place: place.folder)
        self._pair_within(lambda place: place.key)
        if len(self.pairs) > 1:
            self._fold_copies()
        if self.pairs and self.left:
            self._set_copies_aside()

    def _pair_within(self, where: Callable[[Place], Hashable]) -> None:
        """Pair what lies in one place; further files there are copies, unless labels differ."""
        groups, self.left = _group(self.left, where), []
        for group in groups:
            wavs, labels = _split(group)
            if not (wavs and labels):
                self.left += group
            elif _differ(labels):
                self._reject_ambiguous(group)
            else:
                self._pair(wavs, labels)

    def _pair(self, wavs: Sequence[File], labels: Sequence[File]) -> None:
        wav, label = _best(wavs), _best(labels)
        others = zip_longest((file for file in wavs if file is not wav), (file for file in labels if file is not label))
        self.copies += [(len(self.pairs), Call(other_wav, other_label)) for other_wav, other_label in others]
        self.pairs.append(Call(wav, label))

    def _reject_ambiguous(self, group: Sequence[File]) -> None:
        wavs, labels = _split(group)
        what = f"{_count(wavs, 'WAV')} and {_count(labels, 'label')} have this stem"
        fault = Reason.AMBIGUOUS_STEM, f"{what}, and no folder says which belong together; put those of a call side by side"
        self.rejects += [_alone(file, fault) for file in group]

    def _fold_copies(self) -> None:
        """Of pairs that hold the same, or the same words in one place, the one is used that names the provider's split.

        So it is of pairs of one recording under a stem that no other call can have, whose labels differ.
        """
        labels = _signatures([pair.label for pair in self.pairs if pair.label])
        wavs = _signatures([pair.wav for pair in self.pairs if pair.wav])
        is_unique = _looks_unique(self.pairs[0].files[0].stem)
        known: dict[Hashable, int] = {}
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for index, (pair, label, wav) in enumerate(zip(self.pairs, labels, wavs, strict=True)):
            marks: tuple[Hashable, ...] = ((label, wav), (label, pair.place.key), *([wav] if is_unique else []))
            group = next((known[mark] for mark in marks if mark in known), index)
            known.update(dict.fromkeys(marks, group))
            groups[group].append(index)
        used_for: dict[int, int] = {}
        for indices in groups.values():
            used = min(indices, key=lambda index: _rank(self.pairs[index].files))
            used_for.update(dict.fromkeys(indices, used))
        position = {used: number for number, used in enumerate(sorted(set(used_for.values())))}
        self.copies = [(position[used_for[index]], copy) for index, copy in self.copies]
        self.copies += [(position[used], self.pairs[index]) for index, used in used_for.items() if index != used]
        self.pairs = [self.pairs[used] for used in position]

    def _set_copies_aside(self) -> None:
        """Take from `left` what a pair holds already, or has in its place."""
        by_key = {pair.place.key: index for index, pair in enumerate(self.pairs)}
        by_size: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for index, pair in enumerate(self.pairs):
            for file in pair.files:
                by_size[file.suffix, file.num_bytes].append(index)
        left, self.left = self.left, []
        for file in left:
            alike = by_size[file.suffix, file.num_bytes][:_MOST_COMPARED]
            same = (index for index in alike if any(_is_same(file, other) for other in self.pairs[index].files))
            used = by_key.get(file.place.key, next(same, None))
            if used is None:
                self.left.append(file)
            else:
                self.copies.append((used, _alone(file)))

    def reused(self) -> dict[Key, int]:
        """The folders that use the stem for different calls, with how deep the path is that they share with another of them."""
        depths: dict[Key, int] = {}
        for is_audio in (True, False):
            files = [file for pair in self.pairs for file in pair.files if file.is_audio is is_audio]
            files += [file for file in self.left if file.is_audio is is_audio]
            keys = sorted({file.place.key for file in files})
            if len(keys) > 1 and _differ(files):
                for one, other in pairwise(keys):
                    shared = _depth_shared(one, other)
                    depths.update({key: max(shared, depths.get(key, 0)) for key in (one, other)})
        return depths

    def pair_apart(self, folders: Folders) -> None:
        """Pair what is left, the nearest first, where there is one of each; reject the rest."""
        for depth in range(max((len(file.place.key) for file in self.left), default=0), -1, -1):
            if len({file.is_audio for file in self.left}) < 2:
                break
            groups, self.left = _group(self.left, lambda place, depth=depth: place.key[:depth]), []  # type: ignore[misc]
            for group in groups:
                self._pair_group(group, folders)
        self.rejects += [_alone(file) for file in self.left]
        self.left = []

    def _pair_group(self, group: list[File], folders: Folders) -> None:
        wavs, labels = _split(group)
        if not (wavs and labels):
            self.left += group
            return
        some = [(wav, label) for wav in wavs[:_MOST_COMPARED] for label in labels[:_MOST_COMPARED]]
        if all(folders.are_apart(*pair) for pair in some):
            self._reject_apart(wavs, labels)
        elif _differ(wavs) or _differ(labels):
            self._reject_ambiguous(group)
        elif all(folders.may_be_apart(*pair) for pair in some):
            self._reject_apart(wavs, labels)
        else:
            self._pair(wavs, labels)

    def _reject_apart(self, wavs: Sequence[File], labels: Sequence[File]) -> None:
        apart = "of this stem lies among other calls, whose stems are used again; put those of a call side by side"
        self.rejects += [_alone(file, (Reason.MISSING_LABEL, f"a JSON {apart}")) for file in wavs]
        self.rejects += [_alone(file, (Reason.MISSING_AUDIO, f"a WAV {apart}")) for file in labels]


class Folders:
    """Which folders hold calls of their own: a recorder that counts anew each day uses its stems again.

    The WAV of one such day and the label of another are not of one call, though no other has their stem.
    """

    def __init__(self) -> None:
        self.complete: set[Key] = set()
        self._reused: dict[Key, int] = {}
        self._maybe_reused: dict[Key, int] = {}

    def learn(self, stem: Stem) -> None:
        """Take note of what the files of a stem say."""
        self.complete.update(pair.place.key for pair in stem.pairs)
        for key, depth in stem.reused().items():
            for known in (self._reused, self._maybe_reused) if stem.pairs else (self._maybe_reused,):
                known[key] = max(depth, known.get(key, 0))

    def are_apart(self, wav: File, label: File) -> bool:
        """Whether the two lie where calls of other folders are none of theirs."""
        return self._are_apart(wav, label, self._reused)

    def may_be_apart(self, wav: File, label: File) -> bool:
        """Whether they may do so: a stem is used again there, if for files that are no whole calls."""
        return self._are_apart(wav, label, self._maybe_reused)

    def _are_apart(self, wav: File, label: File, reused: dict[Key, int]) -> bool:
        keys = wav.place.key, label.place.key
        if keys[0] == keys[1] or _looks_unique(wav.stem):
            return False
        shared = _depth_shared(*keys)
        return any(shared <= reused.get(key, -1) for key in keys) or all(key in self.complete for key in keys)


def pair_stems(by_stem: dict[str, list[File]], complete: set[Key]) -> dict[str, Stem]:
    """Pair the files of each stem, in the order of their paths.

    Args:
        by_stem: files of stems that are not a WAV and a label side by side.
        complete: keys of the places where such pairs lie.

    Returns:
        What becomes of the stems that are more than one file.
    """
    folders = Folders()
    folders.complete |= complete
    stems = {stem: Stem(files) for stem, files in by_stem.items() if len(files) > 1}
    for found in stems.values():
        folders.learn(found)
    for found in stems.values():
        found.pair_apart(folders)
    return stems


def _looks_unique(stem: str) -> bool:
    """Whether a stem is a hash, or a time and a number, as the provider's are, and no counter that another recorder has too."""
    return len(_HEX_DIGIT.findall(stem)) >= _HEX_DIGITS_OF_A_UNIQUE_STEM


def _depth_shared(one: Key, other: Key) -> int:
    return sum(1 for _ in takewhile(lambda parts: parts[0] == parts[1], zip(one, other, strict=False)))


def _group(files: Iterable[File], where: Callable[[Place], Hashable]) -> list[list[File]]:
    groups: defaultdict[Hashable, list[File]] = defaultdict(list)
    for file in files:
        groups[where(file.place)].append(file)
    return list(groups.values())


def _split(files: Iterable[File]) -> tuple[list[File], list[File]]:
    wavs: list[File] = []
    labels: list[File] = []
    for file in files:
        (wavs if file.is_audio else labels).append(file)
    return wavs, labels


def _alone(file: File, fault: Fault = None) -> Call:
    return Call(file, None, fault) if file.is_audio else Call(None, file, fault)


def _rank(files: Sequence[File]) -> tuple[bool, bool]:
    return any(file.fault for file in files), all(file.place.provider_split == "unknown" for file in files)


def _best(files: Sequence[File]) -> File:
    return min(files, key=lambda file: (*_rank([file]), _FORMATS.get(file.suffix, 0)))


def _count(files: Sequence[File], noun: str) -> str:
    return f"{len(files)} {noun}{'s' if len(files) != 1 else ''}"


def _is_same(file: File, other: File) -> bool:
    return file.suffix == other.suffix and not _differ([file, other])


def _differ(files: Sequence[File]) -> bool:
    """Whether those that can be read hold different things."""
    sound = [file for file in files if not file.fault]
    return len(sound) > 1 and len(set(_signatures(sound))) > 1


def _signatures(files: Sequence[File]) -> list[Hashable]:
    """What is equal where two files hold the same: the size, and where sizes agree the CRC-32 of all or of the start."""
    sizes = Counter(file.num_bytes for file in files)
    checked = all(_has_crc(file) for file in files)
    signatures: list[Hashable] = []
    for position, file in enumerate(files):
        if sizes[file.num_bytes] == 1:
            signatures.append((file.num_bytes, "alone", position))
        else:
            signatures.append((file.num_bytes, file.version if checked else _start_crc(file, position)))
    return signatures


def _has_crc(file: File) -> bool:
    return file.member is not None and len(file.version) == 8


def _start_crc(file: File, position: int) -> Hashable:
    try:
        return zlib.crc32(read_start(file.container, file.member))
    except Reject:
        return "unreadable", position
