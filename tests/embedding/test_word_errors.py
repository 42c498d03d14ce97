"""Errors of letters and words, each figure worked out by hand."""

import pytest

from urgency_ray.embedding.word_errors import count_errors


def errors(reference: str, heard: str) -> tuple[int, int, int, int] | None:
    counts = count_errors(reference, heard)
    return None if counts is None else tuple(counts.values())  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("reference", "heard", "wanted"),
    [
        ("불이 났어요", "불이 났어요", (5, 0, 2, 0)),
        ("불이 났어요", "물이 났어요", (5, 1, 2, 1)),  # a letter for another
        ("불이 났어요", "불 났어요", (5, 1, 2, 1)),  # a letter less
        ("불이 났어요", "불이 지금 났어요", (5, 2, 2, 1)),  # a word more
        ("불이 났어요", "", (5, 5, 2, 2)),
        ("불이 났어요", "불이났어요", (5, 0, 2, 2)),  # blanks are no letters: one word for another, and one less
        ("가", "가나다라", (1, 3, 1, 1)),
        ("119 OK!", "119, ok.", (5, 0, 2, 0)),  # neither signs nor capitals
        ("***[개인정보] 사람이 (웃음) b/ 쓰러졌어요", "사람이 쓰러졌어요", (8, 0, 2, 0)),  # nor masks and noises
        ("사람이 쓰러졌어요", "{laughing} 사람이 쓰러졌어요", (8, 0, 2, 0)),
    ],
)
def test_the_fewest_edits_are_counted(reference: str, heard: str, wanted: tuple[int, ...]) -> None:
    assert errors(reference, heard) == wanted


@pytest.mark.parametrize("reference", ["", "***[개인정보]", "(웃음)", "..."])
def test_where_a_label_has_no_words_there_is_nothing_to_compare(reference: str) -> None:
    assert errors(reference, "불이 났어요") is None
