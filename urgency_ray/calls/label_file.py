"""The bytes of a label file -> its fields, unchecked: encodings, and the shapes that a file of one call comes in."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError

from urgency_ray.calls.encodings import EncodingError, to_utf8
from urgency_ray.calls.foreign import describe_head
from urgency_ray.errors import Reason, Reject

# Ten turns a second of the longest call.
_MAX_TURNS = 72_000
_MAX_WRAPPED_BYTES = 1 << 20
# Outside of texts, spaces are as good. Other control characters can be those of an encoding that is not read (ISO-2022-KR).
_BLANKS_AS_SPACES = bytes.maketrans(b"\t\n\v\f\r", b"     ")


class Turn(BaseModel):
    """An utterance as it stands in the file; `label` says what is taken of it."""

    id: Any = None
    start: Any = Field(None, alias="startAt")
    end: Any = Field(None, alias="endAt")
    text: Any = None
    speaker: Any = None


class _Said(BaseModel):
    """What a label says of a call beside its words."""

    urgency: Any = Field(None, alias="urgencyLevel")
    sentiment: Any = None
    disaster_large: Any = Field(None, alias="disasterLarge")
    disaster_medium: Any = Field(None, alias="disasterMedium")


class LabelFile(_Said):
    """A label as it stands in the file."""

    # Without FailFast a hostile file of 16 MiB makes millions of faults, and gigabytes of them; of turns likewise.
    utterances: Annotated[list[Turn], FailFast(), Field(max_length=_MAX_TURNS)]


class _Wordless(_Said):
    utterances: None = None


_KEYS = frozenset(field.alias or name for name, field in LabelFile.model_fields.items())
_LIST_OF_ONE = TypeAdapter(Annotated[list[LabelFile], Field(min_length=1, max_length=1), FailFast()])
_WRAPPED = TypeAdapter(Annotated[dict[str, LabelFile], Field(min_length=1, max_length=1)])


def read_label_file(content: bytes, given: str | None = None, *, require_text: bool = True) -> LabelFile:
    """Read JSON in UTF-8 (with or without a BOM), UTF-16, UTF-32 or cp949: a label, a list of one, or one inside an object.

    Tabs and line ends in a text are spaces, NULs behind it nothing.

    Args:
        content: the whole file.
        given: JSON with fields that count in place of the file's.
        require_text: whether a label must have utterances; else one that has some other field of a label may do without.

    Raises:
        Reject: invalid_json or invalid_label. The detail names the place or the field, and quotes nothing.
    """
    content = _to_utf8(content)
    try:
        label = LabelFile.model_validate_json(content)
    except ValidationError as error:
        label = (None if require_text else _read_wordless(content)) or _read_otherwise(content, error)
    _refuse_repeated(content)
    if given is None:
        return label
    fields = json.loads(given)
    aliases = {name: field.alias or name for name, field in LabelFile.model_fields.items()}
    return label.model_copy(update={name: fields[alias] for name, alias in aliases.items() if alias in fields})


def holds_several(content: bytes) -> bool:
    """Whether a file that is no label by itself seems to hold those of several calls."""
    try:
        content = _to_utf8(content)
    except Reject:
        return False
    return any(content.count(key) > 1 for key in (b'"utterances"', b'"urgencyLevel"'))


def _read_otherwise(content: bytes, error: ValidationError) -> LabelFile:
    """The label of a file that is not simply one."""
    fault = _first_fault(error)
    spaced = content.translate(_BLANKS_AS_SPACES).rstrip(b" \0")
    if fault["type"] == "json_invalid":
        try:
            return LabelFile.model_validate_json(spaced)
        except ValidationError as again:
            if _first_fault(again)["type"] == "json_invalid":
                known = describe_head(content)
                raise Reject(Reason.INVALID_JSON, known or _describe_json(fault["msg"])) from None
            fault = _first_fault(again)
    if not fault["loc"] or (fault["loc"] == ("utterances",) and fault["type"] == "missing"):
        return _unwrap(spaced, fault)
    raise _describe(fault, fault["loc"])


def _read_wordless(content: bytes) -> LabelFile | None:
    """A label without utterances, by the other fields that it has; None where it is something else."""
    try:
        found = _Wordless.model_validate_json(content.translate(_BLANKS_AS_SPACES).rstrip(b" \0"))
    except ValidationError:
        return None
    said = {name: getattr(found, name) for name in _Said.model_fields}
    return LabelFile.model_construct(utterances=[], **said) if found.model_fields_set else None


def _unwrap(content: bytes, fault: Any) -> LabelFile:
    """The label of a file that is a list of one, or an object around one; `fault` is that of the file as a label."""
    try:
        if content.lstrip()[:1] == b"[":
            return _LIST_OF_ONE.validate_json(content)[0]
        if len(content) <= _MAX_WRAPPED_BYTES:
            return next(iter(_WRAPPED.validate_json(content).values()))
    except ValidationError as other:
        inside = _first_fault(other)
        if inside["type"] == "too_long" and not inside["loc"]:
            what = "the label: a list of several; one JSON file for each call is read, named as its recording"
            raise Reject(Reason.INVALID_LABEL, what) from None
        if inside["loc"][:1] == (0,):
            raise _describe(inside, inside["loc"][1:]) from None
    raise _describe(fault, fault["loc"])


def _describe(fault: Any, path: tuple[int | str, ...]) -> Reject:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    message = fault["msg"].replace("Input should be", "must be").replace("Field required", "must be given")
    return Reject(Reason.INVALID_LABEL, f"{field or 'the label'}: {message.replace('List should have', 'must have')}")


def _first_fault(error: ValidationError) -> Any:
    # The input itself stays out of the error: it is the transcript.
    return error.errors(include_input=False, include_url=False)[0]


def _describe_json(message: str) -> str:
    """`line 1 column 5: expected value`, of pydantic's message."""
    found = re.fullmatch(r"(?:Invalid JSON: )?(.*?) at (line \d+ column \d+)", message)
    if found is None:
        return ""
    several = "more than one JSON value; one label a file is read"
    return f"{found[2]}: {several if found[1] == 'trailing characters' else found[1]}"


def _to_utf8(content: bytes) -> bytes:
    try:
        return to_utf8(content)
    except EncodingError as error:
        raise Reject(Reason.INVALID_JSON, describe_head(content) or str(error)) from None


def _refuse_repeated(content: bytes) -> None:
    """Reject a label that has a field twice, of which JSON's readers take the last: which was meant cannot be known."""
    if all(content.count(f'"{key}"'.encode()) < 2 for key in _KEYS):
        return
    # A name can also stand in a text, or further inside: slow, but such files are few.
    repeated: set[str] = set()
    is_wordless = b'"utterances"' not in content

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if is_wordless or "utterances" in keys:
            repeated.update(key for key in _KEYS if keys.count(key) > 1)
        return dict(pairs)

    json.loads(content.translate(_BLANKS_AS_SPACES).rstrip(b" \0"), object_pairs_hook=note, parse_int=float)
    if repeated:
        raise Reject(Reason.INVALID_LABEL, f"{min(repeated)}: given more than once")
