"""Utterances -> transcript: cleaned and joined. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal
from unicodedata import normalize

from urgency_ray.calls.label import Utterance
from urgency_ray.schema import CALLER

# Words withheld for privacy: said on the phone, but no speech to a text encoder.
_MASK = re.compile(r"\*{3,}(?:\[개인정보\])?")


def clean(text: str) -> str:
    """The words of a transcript: in NFC, without privacy masks (`***[개인정보]`, `***`), single spaces between them."""
    return " ".join(_MASK.sub("", normalize("NFC", text)).split())


def join_transcript(utterances: Iterable[Utterance], speakers: Literal["all", "caller"]) -> str:
    """The cleaned texts of all utterances, or of the caller's alone, in the order of the file; empty if no word is left."""
    texts = (clean(utterance.text) for utterance in utterances if speakers == "all" or utterance.speaker == CALLER)
    return " ".join(filter(None, texts))
