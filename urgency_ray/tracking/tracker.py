"""What a run tells, and who listens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from urgency_ray.schema import URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.scoring.blocks import Figures

URGENCY_NAMES: dict[str, str] = dict(zip(URGENCY_LABELS, URGENCY_KEYS, strict=True))

Epochs = Sequence[tuple[str, Mapping[str, Any]]]
"""Names of models, each with the figures of one of its epochs (`training.history.EpochRow` without its names)."""


@dataclass(frozen=True)
class TrialNote:
    """A trial of a search that has ended.

    Attributes:
        number: in the study.
        state: completed, stopped or failed.
        fields: the config fields that it tried.
        val_macro_f1: after each epoch, from the first on.
        score: what it is ranked by; None of one that failed.
    """

    number: int
    state: str
    fields: Mapping[str, Any]
    val_macro_f1: Sequence[float]
    score: float | None


@dataclass(frozen=True)
class Ended:
    """What a run came to.

    Attributes:
        figures: by name, as `figures_of` has them.
        files: paths or URIs of its files and folders.
    """

    figures: Mapping[str, float]
    files: Sequence[str]


class Tracker(Protocol):
    """One that a run is told to: on a thread of its own, one message at a time. What it raises is its end, with a warning."""

    name: str

    def epochs(self, epochs: Epochs) -> None:
        """Take figures of epochs."""

    def trial(self, trial: TrialNote) -> None:
        """Take a trial."""

    def end(self, ended: Ended) -> None:
        """Take what the run came to; nothing comes after it."""

    def fail(self) -> None:
        """The run ends without a result; nothing comes after it."""


def figures_of(figures: Figures) -> dict[str, float]:
    """All numbers of metrics.json by their path in it, `splits/test/urgency/macro_f1`; classes of urgency by their ASCII names.

    Left out are lists, and what has names beyond ASCII, those of emotions, which servers do not take.
    """
    return {name: value for name, value in _iter_numbers("", figures.model_dump()) if name.isascii() and math.isfinite(value)}


def _iter_numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            ascii_key = URGENCY_NAMES.get(str(key), str(key))
            yield from _iter_numbers(f"{name}/{ascii_key}" if name else ascii_key, inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
