"""The language that a page is written in: English where its words stand, in templates and charts; a table has the others.

A sentence is looked up as it stands, with `%(name)s` for what differs from page to page, as gettext does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from urgency_ray.config import Language
from urgency_ray.report.korean import KOREAN

_language: ContextVar[Language] = ContextVar("language", default="en")


@contextlib.contextmanager
def speaking(language: Language) -> Iterator[None]:
    """What is said inside is said in this language."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def spoken() -> Language:
    """The language of the page that is being written."""
    return _language.get()


def look_up(text: str) -> str:
    """A sentence in the language of the page, its places for figures still open (`%%` is a `%`)."""
    return KOREAN.get(text, text) if spoken() == "ko" else text


def say(text: str, **figures: object) -> str:
    """A sentence in the language of the page; one that its table lacks stays English."""
    return look_up(text) % figures
