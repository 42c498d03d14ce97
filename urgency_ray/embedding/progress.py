"""How far extraction is: a bar on a terminal, a sober line now and then in a log; both with the rate and the time left."""

from __future__ import annotations

import logging
from typing import Any

from urgency_ray.embedding.rows import Passed
from urgency_ray.progress import Bar
from urgency_ray.telemetry import CallCounters, Stage

log = logging.getLogger(__name__)

LINES_SEC = 5.0
"""Between two lines of a log."""
BAR_SEC = 0.5
"""Between two looks at a bar."""


class Progress(Bar):
    """Says calls done, rate and time left, and counts calls for Prometheus, from what the text encoders send of each batch."""

    def __init__(self, num_calls: int, stage: Stage, console: Any = None) -> None:
        super().__init__("encoded", num_calls, console)
        self.counters = CallCounters(stage)
        self.calls = 0.0
        self.audio_sec = 0.0

    @property
    def every_sec(self) -> float:
        """How often it wants to be told."""
        return BAR_SEC if self.is_drawn else LINES_SEC

    def __call__(self, batches: list[Passed]) -> None:
        """Count some batches, and say so."""
        # Batches that were under way on a node when it was lost come twice.
        self.calls = min(self.total, self.calls + sum(batch.calls for batch in batches))
        self.audio_sec += sum(batch.audio_sec for batch in batches)
        for batch in batches:
            self.counters.add(batch.calls, batch.rejected, batch.audio_sec)
        elapsed = self.elapsed()
        rate = f"{self.calls / elapsed:,.1f} calls/s, {self.audio_sec / elapsed:,.0f}x real time"
        words = self.show(self.calls, rate, elapsed)
        if not self.is_drawn:
            log.info("encoded %s of %s calls, %s", f"{self.calls:,.0f}", f"{self.total:,}", words)
