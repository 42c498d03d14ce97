"""Transcripts: what is taken out, what is joined, in which order."""

from unicodedata import normalize

import pytest

from urgency_ray.calls.label import Utterance
from urgency_ray.calls.transcript import clean, join_transcript


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("불이  났어요\t빨리\n", "불이 났어요 빨리"),
        ("저는 ***[개인정보] 입니다", "저는 입니다"),
        ("저는 *** 입니다 ***", "저는 입니다"),
        ("***[개인정보]", ""),
        ("\u3000\u00a0", ""),
        ("3*4 **", "3*4 **"),
        ("[개인정보] 동의", "[개인정보] 동의"),
    ],
)
def test_clean_takes_out_masks_and_surplus_space_and_nothing_else(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_decomposed_hangul_is_composed_and_its_mask_found() -> None:
    assert clean(normalize("NFD", "사람이 ***[개인정보] 쓰러졌어요")) == "사람이 쓰러졌어요"


UTTERANCES = (
    Utterance("a", 900, 1000, "119입니다", 0),
    Utterance("b", 0, 100, "불이 ", 1),
    Utterance("c", 100, 200, "***", 1),
    Utterance("d", 200, 300, "났어요", 1),
    Utterance("e", 300, 400, "여보세요", None),
)


def test_a_transcript_is_in_file_order_without_empty_turns() -> None:
    assert join_transcript(UTTERANCES, "all") == "119입니다 불이 났어요 여보세요"


def test_the_callers_transcript_has_neither_the_dispatcher_nor_the_unknown() -> None:
    assert join_transcript(UTTERANCES, "caller") == "불이 났어요"


def test_no_words_make_an_empty_transcript() -> None:
    assert join_transcript(UTTERANCES[2:3], "all") == ""
