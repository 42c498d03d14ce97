"""What Prometheus is told while a command works, through Ray: what became of calls, and what trials score.

Ray sends the figures of a process to the agent of its node, which Prometheus asks. They are for a dashboard, and of this
command alone: calls that an earlier one has done are not among them, and those of a node that was lost can be twice. The exact
figures are in extract.json and tune/trials.parquet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Stage = Literal["extract", "predict"]


class Meter(NamedTuple):
    """A figure: the name that Ray is given, what it is, the labels that tell its series apart, and whether it only grows."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    grows: bool = True

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return f"ray_{self.name}{'_total' if self.grows else ''}"


READ = Meter("urgency_calls_read", "Calls that are through, embedded or rejected", ("stage",))
EMBEDDED = Meter("urgency_calls_embedded", "Calls that are embedded", ("stage",))
REJECTED = Meter("urgency_calls_rejected", "Calls that are rejected, by reason", ("stage", "reason"))
AUDIO = Meter("urgency_audio_seconds", "Embedded audio, in seconds", ("stage",))
SCORE = Meter("urgency_trial_score", "Best validation macro-F1 of a trial so far", ("trial",), grows=False)
METERS = (READ, EMBEDDED, REJECTED, AUDIO, SCORE)


class CallCounters:
    """Counts the calls of a stage, in the driver; Ray must be connected."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.counters = {meter: _open(meter) for meter in (READ, EMBEDDED, REJECTED, AUDIO)}

    def add(self, calls: float, rejected: Mapping[str, float], audio_sec: float) -> None:
        """Count some calls more: all of them, those rejected by reason, and the seconds of those embedded.

        Where a call has several rows, each counts as its share of the call.
        """
        self._add(READ, calls)
        self._add(EMBEDDED, calls - sum(rejected.values()))
        self._add(AUDIO, audio_sec)
        for reason, share in rejected.items():
            self._add(REJECTED, share, reason=reason)

    def _add(self, meter: Meter, value: float, **labels: str) -> None:
        # Ray takes no zero.
        if value > 0:
            self.counters[meter].inc(value, {"stage": self.stage, **labels})


class TrialScores:
    """Shows what each trial of a search has reached, in the driver."""

    def __init__(self) -> None:
        self.gauge = _open(SCORE)
        self.scores: dict[int, float] = {}

    def set(self, trial: int, score: float) -> None:
        """The best validation macro-F1 so far of the trial of that number; one that is no number is not shown."""
        if math.isfinite(score):
            self.scores[trial] = score
        # Ray forgets a gauge that is not set again for 20 s: with the news of one, all are.
        for number, known in self.scores.items():
            self.gauge.set(known, {"trial": str(number)})


def _open(meter: Meter) -> Any:
    from ray.util import metrics

    kind = metrics.Counter if meter.grows else metrics.Gauge
    return kind(meter.name, meter.meaning, meter.labels)
