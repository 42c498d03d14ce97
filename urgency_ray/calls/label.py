"""A label file -> `Label`: what the provider says of a call, checked."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import BaseModel, FailFast, Field, ValidationError

from urgency_ray.errors import Reason, Reject
from urgency_ray.schema import URGENCY_LABELS

MAX_LABEL_BYTES = 16 << 20
"""Largest label file that is read; a real one has about 5 KB."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One turn of a call. Times are from the start of the audio and can lie outside it; an id can repeat in its call.

    `id` is the turn's index where the file has none.
    """

    id: str
    start_ms: int
    end_ms: int
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


_Milliseconds = Annotated[float, Field(ge=-(2**53), le=2**53, allow_inf_nan=False)]


class _UtteranceFile(BaseModel, strict=True):
    id: str | None = None
    start: _Milliseconds = Field(alias="startAt")
    end: _Milliseconds = Field(alias="endAt")
    text: str
    speaker: int | None = Field(None, ge=0, le=127)


class _LabelFile(BaseModel, strict=True):
    # Without FailFast a hostile file of 16 MiB makes millions of faults, and gigabytes of them.
    utterances: Annotated[list[_UtteranceFile], FailFast()]
    urgency: Any = Field(None, alias="urgencyLevel")
    sentiment: str | None = None
    disaster_large: str | None = Field(None, alias="disasterLarge")
    disaster_medium: str | None = Field(None, alias="disasterMedium")


def parse_label(content: bytes, require_urgency: bool) -> Label:
    """Read a label file (UTF-8, with or without a BOM); only the fields that `Label` holds are looked at.

    Raises:
        Reject: invalid_json, invalid_label, missing_urgency (where required) or unknown_urgency. The detail names the field
            and never quotes a transcript or an address.
    """
    try:
        label = _LabelFile.model_validate_json(content.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        # The input itself stays out of the error: it is the transcript.
        fault = error.errors(include_input=False, include_url=False)[0]
        if fault["type"] == "json_invalid":
            position = re.search(r"line \d+ column \d+$", fault["msg"])
            raise Reject(Reason.INVALID_JSON, position[0] if position else "") from None
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
        message = fault["msg"].replace("Input should be", "must be").replace("Field required", "must be given")
        raise Reject(Reason.INVALID_LABEL, f"{field or 'the label'}: {message}") from None
    return Label(
        tuple(
            Utterance(turn.id or str(index), round(turn.start), round(turn.end), turn.text, turn.speaker)
            for index, turn in enumerate(label.utterances)
        ),
        _parse_urgency(label.urgency, require_urgency),
        _tidy(label.sentiment),
        _tidy(label.disaster_large),
        _tidy(label.disaster_medium),
    )


def _tidy(name: str | None) -> str | None:
    return normalize("NFC", name).strip() or None if name else None


def _parse_urgency(value: Any, required: bool) -> int | None:
    name = _tidy(value) if isinstance(value, str) else None
    if value is None or (isinstance(value, str) and name is None):
        if required:
            raise Reject(Reason.MISSING_URGENCY, "urgencyLevel: absent, null or blank")
        return None
    if name not in URGENCY_LABELS:
        shown = repr(value) if isinstance(value, str) and len(value) <= 20 else f"a value of type {type(value).__name__}"
        raise Reject(Reason.UNKNOWN_URGENCY, f"urgencyLevel: must be one of {', '.join(URGENCY_LABELS)} but got {shown}")
    return URGENCY_LABELS.index(name)
