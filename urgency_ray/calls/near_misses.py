"""WAVs and labels that would be a call, were they named alike: upper case, blanks, (1), a suffix too many, garbled names."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

_BLANKS = re.compile(r"[\s\u200b-\u200f\u202a-\u202e\u2060\ufeff]+")
_SUFFIXES = re.compile(r"(?:\.(?:wave?|json|txt|mp3|m4a|flac|ogg|pcm|raw))+$", re.IGNORECASE)
_COPY = re.compile(r"(?:[\s_-]*(?:\(\d+\)|\[\d+\]|복사본|사본|copy|copy\s*\d+))+$", re.IGNORECASE)
_HANGUL = re.compile("[가-힣]")
_MISREADINGS = [
    (wrong, right) for right in ("utf-8", "cp949") for wrong in ("cp437", "latin-1", "cp1252", "cp949") if wrong != right
]


class NearMiss(NamedTuple):
    """A WAV's stem and a label's that differ in `kind` alone."""

    wav: str
    label: str
    kind: str


def _without_blanks(stem: str) -> str:
    return _BLANKS.sub("", stem)


def _without_suffix(stem: str) -> str:
    return _SUFFIXES.sub("", stem)


def _without_copy(stem: str) -> str:
    return _COPY.sub("", stem)


def _read_anew(stem: str) -> str:
    """A name whose Korean was read in another encoding than it was written in."""
    if not stem.isascii():
        for wrong, right in _MISREADINGS:
            with contextlib.suppress(UnicodeError):
                meant = stem.encode(wrong).decode(right)
                if _HANGUL.search(meant):
                    return meant
    return stem


_KINDS: dict[str, Callable[[str], str]] = {
    "in garbled Korean": _read_anew,
    "in a suffix too many": _without_suffix,
    "in a copy's number": _without_copy,
    "in blanks": _without_blanks,
    "in upper and lower case": str.casefold,
}


def find_near_misses(wavs: Iterable[str], labels: Iterable[str]) -> list[NearMiss]:
    """Pairs of stems, of WAVs without labels and of labels without WAVs, that are one but for their spelling."""
    spelled: tuple[defaultdict[str, list[str]], ...] = defaultdict(list), defaultdict(list)
    for stems, found in zip((wavs, labels), spelled, strict=True):
        for stem in stems:
            found[_spell(stem)].append(stem)
    pairs = ((stems, spelled[1][key]) for key, stems in spelled[0].items() if key in spelled[1])
    return [NearMiss(one[0], two[0], _kind(one[0], two[0])) for one, two in pairs if len(one) == len(two) == 1]


def _spell(stem: str) -> str:
    for change in _KINDS.values():
        stem = change(stem)
    return stem


def _kind(wav: str, label: str) -> str:
    return next((kind for kind, change in _KINDS.items() if change(wav) == change(label)), "in several ways")
