"""What figures give away about the rows that they are of: classes without rows, a val that is not like test."""

from __future__ import annotations

import math
from collections.abc import Iterator

from urgency_ray.scoring.blocks import ClassificationBlock

OPTIMISM = 0.03
"""What the choice of the best epoch flatters val by, at most, on some hundred rows."""

LEAST_ROWS = 30
"""A bootstrap of fewer rows is narrower than chance: that of one row has no width."""


def describe_absent(block: ClassificationBlock, split: str) -> Iterator[str]:
    """Says of a `classification_block` which classes have no rows, where there are such."""
    absent = ", ".join(label for label, figures in block.per_class.items() if not figures.support)
    if absent:
        yield f"no row of {split} is {absent}: macro-F1 is the mean over the classes that occur in truth or predictions"


def describe_gap(val: ClassificationBlock, test: ClassificationBlock) -> Iterator[str]:
    """Says where val and test differ by more than chance and the choice of the best epoch on val explain.

    Their intervals, of different calls, give the standard error of the difference (as of independent normal figures); its 95 %
    interval must stay clear of 0 by `OPTIMISM`. Of fewer than `LEAST_ROWS` nothing is said.
    """
    if min(val.num_rows, test.num_rows) < LEAST_ROWS:
        return
    difference = val.macro_f1 - test.macro_f1
    variance = sum(((high - low) / 2 / 1.96) ** 2 for low, high in (val.macro_f1_interval, test.macro_f1_interval))
    if abs(difference) - 1.96 * math.sqrt(variance) > OPTIMISM:
        yield (
            f"val and test differ beyond noise (macro-F1 {val.macro_f1:.3f} and {test.macro_f1:.3f}): they are not alike, "
            "or the embeddings were made by a model that has seen labels of one of them"
        )
