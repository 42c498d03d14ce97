"""The cells of a manifest's row -> what they say of a call: which column says what, and each value checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, get_args
from unicodedata import normalize

from urgency_ray.calls.manifest_rows import find_cell
from urgency_ray.config import ManifestColumn
from urgency_ray.errors import RequestError
from urgency_ray.schema import URGENCY_KEYS, URGENCY_LABELS

Column = ManifestColumn

USUAL_COLUMNS: dict[Column, tuple[str, ...]] = {
    "audio": (
        "audio",
        "audio_filepath",
        "audio_path",
        "wav_file_path",
        "wav_path",
        "wav",
        "path",
        "recording.sources.0.source",
    ),
    "id": ("id", "call_id", "file_id", "_id"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "utterances": ("utterances", "supervisions"),
    "label": ("label", "label_path", "label_filepath", "json_path"),
    "urgency": ("urgency", "urgencyLevel", "urgency_level", "urgency_y"),
    "sentiment": ("sentiment",),
    "disaster_large": ("disaster_large", "disasterLarge"),
    "disaster_medium": ("disaster_medium", "disasterMedium"),
    "split": ("split", "provider_split", "subset"),
    "speaker": ("speaker", "speaker_id", "caller", "caller_id"),
    "group": ("group", "group_id"),
    "region": ("region",),
    "offset": ("offset", "start"),
    "duration": ("duration",),
}
"""What says what, where `data.manifest_columns` does not; the first that a row has counts. NeMo's and Lhotse's names are among
them."""
_ALIKE: dict[Any, str] = {key: label for keys in (URGENCY_KEYS, "012") for key, label in zip(keys, URGENCY_LABELS, strict=True)}
_SPLITS = {"train": "training", "training": "training", "test": "test", "": "unknown", "unknown": "unknown"} | dict.fromkeys(
    ("val", "valid", "validation", "dev", "eval"), "validation"
)
_MAX_SEC = 1e9


class FaultyCellError(ValueError):
    """A value that cannot be read; the text names the column and never quotes the value."""


class Columns:
    """Which columns of a manifest say what.

    Attributes:
        seen: what some row has had a column for, and the names of all columns.

    Args:
        named: the user's own names.
    """

    def __init__(self, named: Mapping[str, str]) -> None:
        self.named: dict[Column, str] = {what: named[what] for what in get_args(Column) if what in named}
        taken = set(named.values())
        self._names: dict[Column, tuple[str, ...]] = {
            what: (named[what],) if what in named else tuple(name for name in USUAL_COLUMNS[what] if name not in taken)
            for what in get_args(Column)
        }
        self._tops = {what: [(name, name.partition(".")[0]) for name in names] for what, names in self._names.items()}
        self.seen: set[Column] = set()
        self.names: dict[str, None] = {}

    def pick(self, cells: dict[str, Any]) -> dict[Column, Any]:
        """What the row has a value for."""
        self.names.update(dict.fromkeys(cells))
        picked: dict[Column, Any] = {}
        for what, names in self._tops.items():
            for name, top in names:
                if name in cells or top in cells:
                    self.seen.add(what)
                    if (value := find_cell(cells, name)) is not None:
                        picked[what] = value
                        break
        return picked

    def refuse_missing(self, wanted: list[tuple[Column, ...]]) -> None:
        """Whether the file has a column of each name that was given, and one of each group that is wanted.

        Raises:
            RequestError: it has not.
        """
        there = f"its columns are {', '.join(list(self.names)[:20]) or 'none that can be read'}"
        for what, name in self.named.items():
            if what not in self.seen:
                raise RequestError(f"has no column {name}, which data.manifest_columns names for {what}; {there}")
        for group in wanted:
            if not self.seen.intersection(group):
                names = ", ".join(name for what in group for name in self._names[what])
                kinds = " or ".join(group)
                raise RequestError(
                    f"has no column for {kinds} ({names}); {there}: name it in data.manifest_columns, {{{group[0]}: NAME}}"
                )


def as_text(value: Any, what: Column) -> str:
    """A name, in NFC."""
    return normalize("NFC", as_path(value, what))


def as_path(value: Any, what: Column) -> str:
    """A text of one line as it is, or a whole number as one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in text):
        raise FaultyCellError(f"{what}: must be a text of one line")
    return text


def as_ms(value: Any, what: Column) -> int:
    """Seconds, as a number or its text, in ms."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_SEC:
        raise FaultyCellError(f"{what}: must be a number of seconds, from 0 on")
    return round(1000 * seconds)


def as_split(value: Any) -> str:
    """The `provider_split` of train, val or test, or of the provider's own names."""
    found = _SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise FaultyCellError("split: must be train, val or test (or training, validation)")
    return found


def label_of(cells: dict[Column, Any], duration_ms: int | None) -> str | None:
    """JSON with the fields of a label file that the row gives; None where it gives none.

    A text is one utterance, as long as the call where `duration_ms` says it; beside a label file it gives what replaces fields
    of that.

    Raises:
        FaultyCellError: the utterances are no list of mappings, or the row has words and a label file.
    """
    fields = {
        "urgencyLevel": _urgency(cells.get("urgency")),
        "sentiment": cells.get("sentiment"),
        "disasterLarge": cells.get("disaster_large"),
        "disasterMedium": cells.get("disaster_medium"),
    }
    label = {name: value for name, value in fields.items() if value is not None}
    words = next((what for what in ("utterances", "text") if what in cells), None)
    if "label" in cells:
        if words:
            raise FaultyCellError(f"label and {words}: both say the words; give one of them")
    elif words or label:
        label["utterances"] = _utterances(cells, duration_ms) if words else []
    try:
        text = json.dumps(label, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise FaultyCellError("a value that JSON cannot hold, or half of a character") from None
    return text if label else None


def _urgency(value: Any) -> Any:
    """The label of 0, 1, 2, or low, mid, high; anything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _ALIKE.get(str(int(value)), str(value)) if value == value // 1 else str(value)
    return _ALIKE.get(value.strip().lower(), value) if isinstance(value, str) else value


def _utterances(cells: dict[Column, Any], duration_ms: int | None) -> list[dict[str, Any]]:
    if "utterances" not in cells:
        span = {} if duration_ms is None else {"startAt": 0, "endAt": duration_ms}
        return [{"text": cells["text"], **span}]
    turns = cells["utterances"]
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError):
            raise FaultyCellError("utterances: no JSON") from None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise FaultyCellError("utterances: must be a list of objects with text, startAt, endAt and speaker")
    return [_turn(turn) for turn in turns]


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    """An utterance of a label file; the seconds of `start` and `end`, or `duration`, become its ms."""
    known = {name: turn[name] for name in ("id", "startAt", "endAt", "text", "speaker") if turn.get(name) is not None}
    start, end, duration = (turn.get(name) for name in ("start", "end", "duration"))
    if start is not None and "startAt" not in known:
        start_ms = as_ms(start, "utterances")
        known["startAt"] = start_ms
        if end is not None or duration is not None:
            known["endAt"] = start_ms + as_ms(duration, "utterances") if end is None else as_ms(end, "utterances")
    return known
