"""What the folder of a file says: the provider's split, the region, and which folders hold the same calls."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize

_PART_FOLDER = re.compile(
    r"[\[(]?\s*(?:\d+[\s._)\]-]*)?(?:(train|training|학습|훈련)|(val|valid|validation|검증))(?:[\s_-]*(?:용|데이터|data|셋|세트|set))*\s*[\])]?"
    r"(?:[\s_-]*\(?\d+\)?)?",
    re.IGNORECASE,
)
_PART_FOLDER_ABOVE = re.compile(r"(?:\d+\.)?(?:(Training)|(Validation))")
_PART_ARCHIVE = re.compile(r"([TV])[SL]\d*(?:_(?:([^_]+)_)?|$)")
_CORRESPONDING = re.compile(r"^([TV])[SL](?=\d*(?:_|$))")
_ARCHIVE_SUFFIX = re.compile(r"\.(?:zip|tar)$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s_.()\[\]-]+")
_WORD = re.compile(r"[^\s_.()\[\]-]+")
_ORDINAL = re.compile(r"\d{1,2}")
# Words for the kind of the files in a folder: what is left of its name is what it shares with the folder of the other kind.
_KIND = re.compile(
    r"(?:wav|wave|flac|mp3|ogg|opus|m4a|aiff?|audio|sound|source|json|label|labels|labeled|labelled|labeling|labelling|annotation|annot|text|transcript"
    r"|원천|음성|오디오|녹음|라벨|라벨링|전사)(?:s|file|files|data|데이터)?"
)
_RATE = re.compile(r"\d+k(?:hz)?|\d+hz|\d+bit|mono|stereo|pcm\d*")
_BESIDE_KIND = re.compile(rf"data|files?|데이터|파일|{_RATE.pattern}")


class Place(NamedTuple):
    """Where a file lies, the same object for all files of a folder.

    Attributes:
        folder: the whole path, an archive's name part of it.
        provider_split: training, validation or unknown.
        region: where the path names it.
        key: the path below the root without what says WAVs or labels: two folders of one key hold the same calls.
    """

    folder: str
    provider_split: str
    region: str | None
    key: tuple[str, ...]


@lru_cache(maxsize=1 << 16)
def place_of(folder: str, base: str) -> Place:
    """The place of a folder below `base`; where the parts of its path disagree on the split, the innermost counts."""
    split, region = "unknown", None
    num_above = base.rstrip("/").count("/")
    for number, part in enumerate(normalize("NFC", folder).split("/")):
        name = _ARCHIVE_SUFFIX.sub("", part)
        if archive := _PART_ARCHIVE.match(name):
            split, region = ("training" if archive[1] == "T" else "validation"), archive[2]
        # Above the root only the provider's own spelling counts: there, `train` and `val` may be anybody's.
        elif named := (_PART_FOLDER if number >= num_above else _PART_FOLDER_ABOVE).fullmatch(name):
            split = "training" if named[1] else "validation"
    below = normalize("NFC", folder[len(base) :].strip("/"))
    key = tuple(part for name in below.split("/") if (part := _without_kind(_ARCHIVE_SUFFIX.sub("", name))))
    return Place(folder, split, region, key)


def _without_kind(name: str) -> str:
    if _CORRESPONDING.match(name):
        return _CORRESPONDING.sub(r"\1", name)
    words = list(_WORD.finditer(name))
    kinds = [index for index, word in enumerate(words) if _KIND.fullmatch(word[0].lower())]
    if not kinds:
        return "" if words and all(_RATE.fullmatch(word[0].lower()) for word in words) else name
    # A number before the kind (1.원천데이터, 2.라벨링데이터) orders the kinds; others (wav_1, 20240101_wav) are the calls'.
    dropped = {*kinds, *([0] if kinds[0] == 1 and _ORDINAL.fullmatch(words[0][0]) else [])}
    dropped |= {index for index, word in enumerate(words) if _BESIDE_KIND.fullmatch(word[0].lower())}
    for index in sorted(dropped, reverse=True):
        name = name[: words[index].start()] + name[words[index].end() :]
    return _CORRESPONDING.sub(r"\1", _SEPARATORS.sub(lambda found: found[0][0], name).strip(" _.()[]-"))
