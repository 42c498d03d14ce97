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
_MASK_OF_0_2_0 = re.compile(r"\*{3,}(?:\[개인정보\])?")
_NAMED = rf"[\[({{<【〔]{_SPACE}개{_SPACE}인{_SPACE}정{_SPACE}보"
_CLOSED = rf"{_SPACE}[\])}}>】〕]"
_STAR = r"(?:\\?\*)"
_MASK = re.compile(
    rf"(?P<stars>{_STAR}++)(?P<tag>{_SPACE}{_NAMED}(?:{_CLOSED}|(?![가-힣]))(?:{_STAR}*+))?|{_NAMED}{_CLOSED}(?:{_STAR}*+)"
)

_HEARD = (
    r"웃음|웃는다|웃으며|웃으면서|한숨|탄식|울음|울먹임|흐느낌|울며|울면서|흐느끼며|숨|호흡|심호흡|하품|기침|헛기침|재채기|목청|신음|비명|고함"
    r"|침묵|무음|묵음|무응답|잡음|소음|노이즈|웅성거림|웅성웅성|배경음|효과음|기계음|신호음|통화음|연결음|음악|배경음악|노래|흥얼거림|환호|박수"
    r"|사이렌|경적|벨|전화벨"
)
_NOT_HEARD = (
    r"불명|불명확|불분명|(?:청취|판독|식별) ?불가|(?:잘 ?)?안 ?들림|들리지 ?않음|알 ?수 ?없음|겹침|말 ?겹침|동시 ?발화"
    r"|(?:전화 ?|통화 ?)?(?:끊김|끊음|끊어짐)|통화 ?종료"
)
_HEARD_IN_ENGLISH = (
    "noise|bgm|music|laugh|laughs|laughing|laughter|giggle|breath|breathing|cough|coughing|sigh|sob|crying|scream|singing|applause"
    "|silence|pause|beep|siren|crosstalk|inaudible|indistinct|unclear|unintelligible|unk|unknown"
)
_WITHHELD = "이름|성명|전화번호|연락처|주민번호|주민등록번호|생년월일|주소|상호|상호명|회사명|계좌번호|카드번호|차량번호"
_NOISE = re.compile(
    "|".join(
        (
            # (웃음), (노이즈), (주변 소음), (사이렌 소리), /(noise)
            rf"(?:(?<![\w)])/)?[(\[{{<](?=[^()\[\]{{}}<>]{{1,30}}[)\]}}>]){_SPACE}"
            rf"(?:(?:[가-힣]{{1,6}} )?(?:{_HEARD})|{_NOT_HEARD}|[가-힣 ]{{0,12}}소리|(?i:{_HEARD_IN_ENGLISH})){_SPACE}[)\]}}>]",
            r"[{\[<][A-Za-z_ /-]{2,20}\d{0,3}[}\]>]",  # {laughing}, [noise], <unk>, {name1}
            rf"[{{\[<]{_SPACE}(?:{_WITHHELD})\d{{0,3}}{_SPACE}[}}\]>]",  # [이름1]
            r"(?<![A-Za-z0-9])[blnou]/(?![A-Za-z0-9/])",  # breath, laughter, noise, speech of others, not understood
            r"\((?:SN|NO):[^()]{0,40}\)",  # the speaker's noises, and others
            r"\(\([xX\s]{0,40}\)\)|\(\s{0,8}\)",  # not understood
            r"&[a-z가-힣-]{1,20}\d{0,3}&|#[a-z가-힣-]{1,20}\d{0,3}#|#?@[가-힣]{1,10}\d{0,3}#?",  # &name1&, #이름#, @이름1
            r"[○◯〇●◎□■△▲◇◆]{2,}+|(?<![A-Za-z0-9])(?:O{3,}+|X{3,}+|x{3,}+)(?![A-Za-z0-9])",  # names withheld otherwise
        )
    )
)
# What all of these have: most turns are spared the search.
_SIGN = re.compile(r"[^\w\s.,?!]|O{3}|X{3}|x{3}|[ＯＸｘ]{3}")
# (119)/(일일구): as it is written, and as it was said.
_TWICE = re.compile(r"\(([^()/]{1,80})\)/\([^()/]{1,80}\)")
# ((강남)), (FP:어): words that were guessed at, a filler.
_NAMED_WORD = re.compile(r"\(\(([^()]{1,80})\)\)|\((?:FP|SP):([^()]{0,80})\)")
# 음/, 그+, 났어요*: a filler, a repeat, hardly understood; the word itself was said.
_WORD_MARK = re.compile(r"(?<=[가-힣])[/+*](?!\S)")


def clean(text: str, rules: Literal[1, 2] = 2) -> str:
    """The words of a transcript, in NFC, single spaces between them.

    What is no word is taken out, full-width or not: privacy masks (`***`, `[개인정보]`, with or without stars, in any brackets)
    and the marks of AI-Hub's, KsponSpeech's, NIKL's and ETRI's transcribers (`(웃음)`, `b/`, `{laughing}`, `&name1&`, `○○○`).

    Args:
        text: what was written down.
        rules: `data.text_rules`. Whatever changes what comes out of here is a new number there: an embedding is of its words.
    """
    text = normalize("NFC", text)
    if rules == 1:
        text = _MASK_OF_0_2_0.sub("", text)
    elif _SIGN.search(text):
        for pattern, keep in _RULES:
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


def join_transcript(utterances: Sequence[Utterance], speakers: Literal["all", "caller"], rules: Literal[1, 2] = 2) -> str:
    """The texts of the wanted utterances, in their order, cleaned by `rules`.

    Raises:
        Reject: see `wanted_utterances`.
    """
    return " ".join(filter(None, (clean(utterance.text, rules) for utterance in wanted_utterances(utterances, speakers))))


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
    return found.span(found.lastindex or 0)


_RULES = ((_MASK, _few_stars), (_NOISE, _nothing), (_TWICE, _as_written), (_NAMED_WORD, _as_written), (_WORD_MARK, _nothing))
