"""How far what a transcriber wrote is from the words of a label: edits of letters and of words."""

from __future__ import annotations

from collections.abc import Callable
from unicodedata import category, normalize

import jiwer

from urgency_ray.calls.transcript import clean


def count_errors(reference: str, heard: str) -> dict[str, int] | None:
    """Edits (substitutions, deletions, insertions) that make one text of the other, the fewest there can be.

    Neither masks and noise marks count, nor signs, nor capitals. Letters are counted without blanks, which Korean writers set
    as they like.

    Args:
        reference: what a label says.
        heard: what a transcriber says.

    Returns:
        `num_letters` and `num_words` of the reference, `num_letter_errors` and `num_word_errors`; None where the reference has
        no words.
    """
    wanted, said = (_words(text) for text in (reference, heard))
    if not wanted:
        return None
    letters, words = (
        _edits(process, wanted, said, mark)
        for process, mark in (
            (jiwer.process_characters, ""),
            (jiwer.process_words, " "),
        )
    )
    return {
        "num_letters": len("".join(wanted)),
        "num_letter_errors": letters,
        "num_words": len(wanted),
        "num_word_errors": words,
    }


def _edits(
    process: Callable[[str, str], jiwer.CharacterOutput | jiwer.WordOutput], wanted: list[str], said: list[str], mark: str
) -> int:
    found = process(mark.join(wanted), mark.join(said))
    return found.substitutions + found.deletions + found.insertions


def _words(text: str) -> list[str]:
    letters = (letter if category(letter)[0] in "LMN" else " " for letter in normalize("NFC", clean(text)).lower())
    return "".join(letters).split()
