"""A label file -> `Label`: what the provider says of a call, checked as far as it is used."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any
from unicodedata import normalize

from urgency_ray.calls.label_file import Turn, read_label_file
from urgency_ray.errors import Reason, Reject
from urgency_ray.schema import URGENCY_LABELS

MAX_LABEL_BYTES = 16 << 20
"""Largest label file that is read; a real one has about 5 KB."""

_MAX_NUMBER = 2**53
_MAX_DIGITS = 32
_MAX_SPEAKER = 127


@dataclass(frozen=True, slots=True)
class Utterance:
    """One turn of a call. Times are from the start of the audio and can lie outside it; an id can repeat in its call.

    `id` is the turn's index in the file where it has none; times and speaker are None where the file does not say.
    """

    id: str
    start_ms: int | None
    end_ms: int | None
    text: str
    speaker: int | None


@dataclass(frozen=True, slots=True)
class Label:
    """What a label file says of a call. `urgency` is an index of `URGENCY_LABELS`; names are in NFC, blank ones None."""

    utterances: tuple[Utterance, ...]
    urgency: int | None
    sentiment: str | None
    disaster_large: str | None
    disaster_medium: str | None


NO_LABEL = Label((), None, None, None, None)
"""Of a recording without a label file."""


def parse_label(content: bytes, require_urgency: bool, given: str | None = None, *, require_text: bool = True) -> Label:
    """Read a label file; only the fields that `Label` holds are looked at.

    Utterances are in the order of their starts, and where one has none, it follows that before it in the file. A row of a whole
    call needs their texts alone, so what else is missing, null or blank is no fault here.

    Args:
        content: the whole file, see `read_label_file`.
        require_urgency: whether a call without one of `URGENCY_LABELS` is a reject; else its urgency is None.
        given: what a manifest says in place of the file, see `read_label_file`.
        require_text: whether a label must have utterances, and those texts.

    Raises:
        Reject: invalid_json, invalid_label, missing_urgency or unknown_urgency. The detail names the field and never quotes a
            transcript or an address.
    """
    label = read_label_file(content, given, require_text=require_text)
    turns = label.utterances
    if require_text and turns and not any("text" in turn.model_fields_set for turn in turns):
        raise _wrong("utterances[0].text", "given")
    return Label(
        tuple(_in_order(_parse_turn(index, turn) for index, turn in enumerate(turns))),
        _parse_urgency(label.urgency, require_urgency),
        _parse_name(label.sentiment, "sentiment"),
        _parse_name(label.disaster_large, "disasterLarge"),
        _parse_name(label.disaster_medium, "disasterMedium"),
    )


def _in_order(turns: Iterable[tuple[float | None, Utterance]]) -> list[Utterance]:
    keyed, last = [], -math.inf
    for start, utterance in turns:
        last = last if start is None else start
        keyed.append((last, utterance))
    return [utterance for _, utterance in sorted(keyed, key=itemgetter(0))]


def _parse_turn(index: int, turn: Turn) -> tuple[float | None, Utterance]:
    """A turn and its exact start: of times in seconds, whole milliseconds would lose the order."""
    field = f"utterances[{index}]"
    start, end = _parse_time(turn.start, f"{field}.startAt"), _parse_time(turn.end, f"{field}.endAt")
    start_ms, end_ms = (None if time is None else round(time) for time in (start, end))
    text, speaker = _parse_text(turn.text, f"{field}.text"), _parse_speaker(turn.speaker, f"{field}.speaker")
    return start, Utterance(_as_text(turn.id) or str(index), start_ms, end_ms, text, speaker)


def _parse_time(value: Any, field: str) -> float | None:
    """Milliseconds; None where there are none, as in `00:01:02`."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= _MAX_DIGITS else None
        except ValueError:
            return None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(field, "a valid number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(field, "a finite number")
    if abs(value) > _MAX_NUMBER:
        raise _wrong(field, "a number of milliseconds below 2**53")
    return float(value)


def _parse_speaker(value: Any, field: str) -> int | None:
    """Speakers are small numbers, also in quotes or as floats; a name, or -1, says that no number is known."""
    if isinstance(value, str):
        try:
            number = float(value) if len(value) <= _MAX_DIGITS else math.nan
        except ValueError:
            return None
        return int(number) if number.is_integer() and 0 <= number <= _MAX_SPEAKER else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _MAX_SPEAKER or value != value // 1:
        raise _wrong(field, f"a whole number from 0 to {_MAX_SPEAKER}, or null")
    return int(value) if value >= 0 else None


def _parse_text(value: Any, field: str) -> str:
    text = "" if value is None else _as_text(value)
    if text is None:
        raise _wrong(field, "a text")
    return text


def _parse_name(value: Any, field: str) -> str | None:
    """A name, or several of them as one."""
    texts = [_as_text(part) for part in (value if isinstance(value, list) else [value]) if part is not None]
    if None in texts:
        raise _wrong(field, "a text")
    return _tidy(", ".join(text for text in texts if text))


def _as_text(value: Any) -> str | None:
    """A text, or a number as one; None of anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MAX_NUMBER <= value <= _MAX_NUMBER:
        return None
    return str(round(value)) if value == value // 1 else str(value)


def _tidy(name: str) -> str | None:
    return normalize("NFC", name).strip() or None


def _parse_urgency(value: Any, required: bool) -> int | None:
    name = _tidy(value) if isinstance(value, str) else None
    if name in URGENCY_LABELS:
        return URGENCY_LABELS.index(name)
    if not required:
        return None
    if value is None or (isinstance(value, str) and name is None):
        raise Reject(Reason.MISSING_URGENCY, "urgencyLevel: absent, null or blank")
    shown = repr(value) if isinstance(value, str) and len(value) <= 20 else f"a value of type {type(value).__name__}"
    raise Reject(Reason.UNKNOWN_URGENCY, f"urgencyLevel: must be one of {', '.join(URGENCY_LABELS)} but got {shown}")


def _wrong(field: str, wanted: str) -> Reject:
    return Reject(Reason.INVALID_LABEL, f"{field}: must be {wanted}")
