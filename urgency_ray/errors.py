"""Everything that can go wrong for a reason that is not a bug, and what becomes of it.

    Exception
     ├─ ValueError
     │   └─ RequestError        what was asked for cannot be done as stated: one line, exit code 2, before the work
     ├─ OSError                 files, stores and clusters: one line, exit code 1
     │   └─ UnreachableError    a file may be as it should, in a place that does not answer; what is done is kept
     ├─ FloatingPointError      a training whose loss is not finite: one line, exit code 1
     ├─ RuntimeError
     │   └─ WorkError           the work came to nothing, for a reason that it can name: one line, exit code 1
     └─ Reject                  one call or utterance cannot be used: never leaves the pipeline, becomes a row with a `Reason`

Anything else is a bug, and keeps its traceback.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class RequestError(ValueError):
    """A request that cannot be carried out as stated; the text is one line per fault, fit to show to the user."""


class UnreachableError(OSError):
    """A file that may be as it should, in a place that does not answer."""


def first_line(error: BaseException) -> str:
    """What an exception of somebody else's says, on one line."""
    lines = str(error).strip().splitlines()
    # PyTorch's first line names the class, and what is wrong comes below it.
    said = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0] if lines else ""
    return f"{type(error).__name__}: {' '.join(said.split())}" if said else type(error).__name__


def first_fault(error: ValidationError, root: str) -> str:
    """The first of what pydantic found: `root.field.of.it: what is wrong`."""
    fault = error.errors()[0]
    return f"{'.'.join([root, *map(str, fault['loc'])])}: {fault['msg']}"


class WorkError(RuntimeError):
    """Work that came to nothing for a reason that is no bug; the text says what the reason is."""


class Reason(StrEnum):
    """Why a call, or an utterance, is not embedded. Each value is what a user reads in extract.json and in the report."""

    MISSING_AUDIO = "missing_audio"  # a label without a WAV of the same stem
    MISSING_LABEL = "missing_label"  # a WAV without a label of the same stem
    DUPLICATE_STEM = "duplicate_stem"  # a copy of a call, or a second WAV or label beside one
    DUPLICATE_ID = "duplicate_id"  # a row of a manifest whose id another row before it has
    INVALID_ROW = "invalid_row"  # a row of a manifest with a value that cannot be read, or without one that it needs
    AMBIGUOUS_STEM = "ambiguous_stem"  # several files of a stem, and nothing says which belong together
    UNREADABLE_ARCHIVE = "unreadable_archive"  # of another kind, in parts, or its directory is damaged
    UNREADABLE_FILE = "unreadable_file"  # encrypted, damaged, no regular file, or the read failed
    FILE_TOO_LARGE = "file_too_large"  # larger than the longest call could be
    INVALID_JSON = "invalid_json"  # not JSON, or in no encoding that is read (UTF-8, UTF-16, cp949)
    INVALID_LABEL = "invalid_label"  # a field that is used is missing, given twice or of the wrong type
    MISSING_URGENCY = "missing_urgency"  # urgencyLevel absent or null
    UNKNOWN_URGENCY = "unknown_urgency"  # urgencyLevel outside 하, 중, 상
    NO_TEXT = "no_text"  # no letter or digit in the transcript, once marks and masks are out, or none heard by the transcriber
    NOT_AUDIO = "not_audio"  # nothing that libsndfile can decode
    EMPTY_AUDIO = "empty_audio"  # zero bytes, or a header without samples
    TRUNCATED_AUDIO = "truncated_audio"  # the header promises more samples than there are, by more than 0.1 s
    TOO_LONG = "too_long"  # longer than data.max_call_sec
    INVALID_SAMPLES = "invalid_samples"  # NaN or infinite samples
    SILENT_AUDIO = "silent_audio"  # every sample is zero, or the same
    CHANNELS_CANCEL = "channels_cancel"  # the mean of the channels is silence, and they are not
    TOO_SHORT = "too_short"  # a call under data.min_call_sec, or what is there of an utterance under data.min_utterance_sec
    INVALID_EMBEDDING = "invalid_embedding"  # NaN or infinite values from an encoder
    INVALID_PROBABILITY = "invalid_probability"  # NaN or infinite values from the classifier, as extreme embeddings give them
    INVALID_SPAN = "invalid_span"  # an utterance without times, that ends before it starts, or lies outside the audio


class Reject(Exception):  # noqa: N818 - not an error of the program: a fact about one input
    """An input that cannot be used. `detail` says more, and never holds words of a transcript or an address."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[Reject], tuple[Reason, str]]:
        return Reject, (self.reason, self.detail)
