"""Transcripts: what is taken out, what is joined, in which order."""

from unicodedata import normalize

import pytest

from urgency_ray.calls.label import Utterance
from urgency_ray.calls.transcript import clean, has_words, join_transcript, wanted_utterances
from urgency_ray.errors import Reason, Reject


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("불이  났어요\t빨리\n", "불이 났어요 빨리"),
        ("저는 ***[개인정보] 입니다", "저는 입니다"),
        ("저는 *** 입니다 ***", "저는 입니다"),
        ("***[개인정보]", ""),
        ("\u3000\u00a0", ""),
        ("3*4 **", "3*4 **"),
        ("[개인정보] 동의", "동의"),
        ("개인정보 동의, *[개인정보보호] 2*3", "개인정보 동의, *[개인정보보호] 2*3"),
        (
            "(집) 앞, [가] 동, 남/여 50대, a/s, no/yes, ＡＢＣ ㅋㅋ ①, (큰 길) (주소) #3",
            "(집) 앞, [가] 동, 남/여 50대, a/s, no/yes, ＡＢＣ ㅋㅋ ①, (큰 길) (주소) #3",
        ),
    ],
)
def test_clean_takes_out_masks_and_surplus_space_and_nothing_else(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_decomposed_hangul_is_composed_and_its_mask_found() -> None:
    assert clean(normalize("NFD", "사람이 ***[개인정보] 쓰러졌어요")) == "사람이 쓰러졌어요"


@pytest.mark.parametrize(
    "mask",
    [
        *(
            "***",
            "****",
            "\\*\\*\\*",
            "***[개인정보]",
            "**[개인정보]",
            "*[개인정보]",
            "[개인정보]",
            "[개인정보]***",
            "*** [개인정보]",
        ),
        *("***[ 개인 정보 ]", "＊＊＊［개인정보］", "[개인정보］", "***(개인정보)", "(개인정보)", "{개인정보}", "【개인정보】"),
        *("***[개인정보", "○○○", "●●", "OOO", "XXXX", "&name1&", "&company-name12&", "@이름1", "#@이름#"),
        *("#이름#", "#상호명2#", "&이름1&", "[이름]", "***[주소]", "{전화번호1}", "□□□", "△△"),
    ],
)
def test_a_mask_is_no_word_however_it_is_written(mask: str) -> None:
    assert clean(f"제 이름은 {mask} 입니다") == "제 이름은 입니다"
    assert clean(normalize("NFD", mask)) == ""


@pytest.mark.parametrize(
    "mark",
    [
        *("(웃음)", "（웃음）", "( 한숨 )", "[웃음]", "(사이렌 소리)", "(숨소리)", "{laughing}", "[noise]", "<unk>"),
        *("b/", "n/", "o/ l/ u/", "ｂ／", "((  ))", "()", "((xx))", "((xxxx))"),
        *(
            "(노이즈)",
            "[노이즈]",
            "(주변 소음)",
            "(웅성거림)",
            "(흐느끼며)",
            "(숨)",
            "(안 들림)",
            "(통화 종료)",
            "(불명확)",
            "(전화벨)",
        ),
        *("(noise)", "/(bgm)", "(Laugh)", "(SN:웃음)", "(NO:)", "{name1}", "<SPK_01>"),
    ],
)
def test_a_noise_is_no_word(mark: str) -> None:
    assert clean(f"불이 {mark} 났어요") == "불이 났어요"
    assert clean(mark) == ""


def test_marks_at_a_word_go_and_the_word_stays() -> None:
    assert clean("그+ 불이 음/ 났어요*") == "그 불이 음 났어요"
    assert clean("(119)/(일일구)에 했어요") == "119에 했어요"
    assert clean("((강남))에 (FP:어) 불이 (SP:났어요)") == "강남에 어 불이 났어요"


def test_what_0_2_0_took_out_can_be_had_still() -> None:
    text = "(웃음) 저는 ***[개인정보] b/ [개인정보]"
    assert clean(text, rules=1) == "(웃음) 저는 b/ [개인정보]"
    assert join_transcript([Utterance("a", 0, 1, text, 1)], "all", 1) == clean(text, rules=1)


@pytest.mark.parametrize("text", [". . ?", "…", "*", "() -", "（）", "♪"])
def test_without_a_letter_or_a_digit_there_are_no_words(text: str) -> None:
    assert not has_words(clean(text))


@pytest.mark.parametrize(
    "sign",
    [
        "*",
        "\\*",
        "(",
        "[",
        "[개",
        "((",
        "(가",
        "&a",
        "@가",
        "○",
        "b/",
        "O",
        "{a",
        "(a)/",
        "( ",
        "((x",
        "(SN:",
        "(FP:",
        "#가",
        "(가 ",
        "/(",
        "<이름",
    ],
)
def test_a_hostile_text_costs_no_more_than_its_length(sign: str) -> None:
    clean(sign * 200_000)  # minutes, where a pattern goes back over all that it has seen


UTTERANCES = (
    Utterance("a", 900, 1000, "119입니다", 0),
    Utterance("b", 0, 100, "불이 ", 1),
    Utterance("c", 100, 200, "***", 1),
    Utterance("d", 200, 300, "났어요", 1),
    Utterance("e", 300, 400, "여보세요", None),
)


def test_a_transcript_is_in_the_order_given_without_empty_turns() -> None:
    assert join_transcript(UTTERANCES, "all") == "119입니다 불이 났어요 여보세요"


def test_the_callers_transcript_has_neither_the_dispatcher_nor_the_unknown() -> None:
    assert join_transcript(UTTERANCES, "caller") == "불이 났어요"


def test_who_calls_must_be_known_where_the_callers_words_are_wanted() -> None:
    assert wanted_utterances(UTTERANCES[4:], "all") == list(UTTERANCES[4:])
    assert wanted_utterances(UTTERANCES[:1], "caller") == []
    with pytest.raises(Reject, match=r"data\.speakers is caller") as caught:
        wanted_utterances(UTTERANCES[4:], "caller")
    assert caught.value.reason == Reason.INVALID_LABEL


def test_no_words_make_an_empty_transcript() -> None:
    assert join_transcript(UTTERANCES[2:3], "all") == ""


def test_a_turn_of_signs_alone_stays() -> None:
    assert join_transcript([Utterance("a", 0, 1, "네", 1), Utterance("b", 1, 2, "?", 1)], "all") == "네 ?"
