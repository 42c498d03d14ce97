"""Utterances -> transcript: cleaned and joined. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal
from unicodedata import normalize

from urgency_ray.calls.label import Utterance
from urgency_ray.errors import Reason, Reject
from urgency_ray.schema import CALLER

# Full-width signs are found as those of ASCII. NFKC would also take ㅋㅋ and ① apart, which are words to an encoder.
_AS_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0x2217: "*"}

# Words withheld for privacy: said on the phone, but no speech to a text encoder. Every repeat is bounded or takes all that it
# can at once: a hostile text must not cost the square of its length.
_SPACE = r"\s{0,3}"
_NAMED = rf"[\[({{<【〔]{_SPACE}개{_SPACE}인{_SPACE}정{_SPACE}보"
_CLOSED = rf"{_SPACE}[\])}}>】〕]"
_STAR = r"(?:\\?\*)"
_MASK = re.compile(
    rf"(?P<stars>{_STAR}++)(?P<tag>{_SPACE}{_NAMED}(?:{_CLOSED}|(?![가-힣]))(?:{_STAR}*+))?|{_NAMED}{_CLOSED}(?:{_STAR}*+)"
)

_HEARD = (
    "웃음|웃는다|한숨|울음|울먹임|흐느낌|기침|재채기|신음|비명|침묵|무음|묵음|잡음|소음|음악|노래|박수|사이렌|경적|통화음"
    "|불명|불분명|청취불가"
)
_NOISE = re.compile(
    "|".join(
        (
            rf"[(\[{{<]{_SPACE}(?:{_HEARD}|[가-힣 ]{{0,12}}소리){_SPACE}[)\]}}>]",  # (웃음), (사이렌 소리)
            r"[{\[<][A-Za-z_ /-]{2,20}[}\]>]",  # {laughing}, [noise], <unk>
            r"(?<![A-Za-z0-9])[blnou]/(?![A-Za-z0-9/])",  # breath, laughter, noise, speech of others, not understood
            r"\(\(\s{0,8}\)\)|\(\s{0,8}\)",  # not understood
            r"&[a-z-]{1,20}\d{0,3}&|#?@[가-힣]{1,10}\d{0,3}#?",  # &name1&, #@이름#
            r"[○◯〇●]{2,}+|(?<![A-Za-z0-9])(?:O{3,}+|X{3,}+|x{3,}+)(?![A-Za-z0-9])",  # names withheld otherwise
        )
    )
)
# What all of these have: most turns are spared the search.
_SIGN = re.compile(r"[^\w\s.,?!]|O{3}|X{3}|x{3}|[ＯＸｘ]{3}")
# (119)/(일일구): as it is written, and as it was said.
_TWICE = re.compile(r"\(([^()/]{1,80})\)/\([^()/]{1,80}\)")
# 음/, 그+, 났어요*: a filler, a repeat, hardly understood; the word itself was said.
_WORD_MARK = re.compile(r"(?<=[가-힣])[/+*](?!\S)")


def clean(text: str) -> str:
    """The words of a transcript, in NFC, single spaces between them.

    What is no word is taken out, full-width or not: privacy masks (`***`, `[개인정보]`, with or without stars, in any brackets)
    and the marks of AI-Hub's, KsponSpeech's and ETRI's transcribers (`(웃음)`, `b/`, `{laughing}`, `&name1&`, `○○○`).
    """
    text = normalize("NFC", text)
    if _SIGN.search(text):
        for pattern, keep in ((_MASK, _few_stars), (_NOISE, _nothing), (_TWICE, _as_written), (_WORD_MARK, _nothing)):
            text = _take_out(pattern, keep, text)
    return " ".join(text.split())


def has_words(text: str) -> bool:
    """Whether a letter or a digit is in a text: signs alone say nothing."""
    return any(map(str.isalnum, text))


def wanted_utterances(utterances: Sequence[Utterance], speakers: Literal["all", "caller"]) -> list[Utterance]:
    """Those of the wanted speakers.

    Raises:
        Reject: invalid_label: the caller's are wanted, and the label does not say of any who speaks.
    """
    if speakers == "all":
        return list(utterances)
    if utterances and all(utterance.speaker is None for utterance in utterances):
        raise Reject(
            Reason.INVALID_LABEL, "utterances[0].speaker: must be 1 for the caller, or 0, where data.speakers is caller"
        )
    return [utterance for utterance in utterances if utterance.speaker == CALLER]


def join_transcript(utterances: Sequence[Utterance], speakers: Literal["all", "caller"]) -> str:
    """The cleaned texts of the wanted utterances, in their order.

    Raises:
        Reject: see `wanted_utterances`.
    """
    return " ".join(filter(None, (clean(utterance.text) for utterance in wanted_utterances(utterances, speakers))))


def _take_out(pattern: re.Pattern[str], keep: Callable[[re.Match[str]], tuple[int, int]], text: str) -> str:
    """`text` without what is found in it, but for the span of each find that `keep` gives."""
    parts, end = [], 0
    for found in pattern.finditer(text.translate(_AS_ASCII)):  # of the same length
        start, stop = keep(found)
        parts += [text[end : found.start()], text[start:stop]]
        end = found.end()
    return "".join([*parts, text[end:]])


def _nothing(found: re.Match[str]) -> tuple[int, int]:
    return found.end(), found.end()


def _few_stars(found: re.Match[str]) -> tuple[int, int]:
    is_mask = found["stars"] is None or found["tag"] is not None or found["stars"].count("*") >= 3
    return _nothing(found) if is_mask else found.span()


def _as_written(found: re.Match[str]) -> tuple[int, int]:
    return found.span(1)
