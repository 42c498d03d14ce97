"""How far extraction is: a bar on a terminal, a sober line now and then in a log; both with the rate and the time left."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from urgency_ray.embedding.rows import Passed
from urgency_ray.telemetry import CallCounters, Stage

log = logging.getLogger(__name__)

LINES_SEC = 5.0
"""Between two lines of a log."""
BAR_SEC = 0.5
"""Between two looks at a bar."""


class Progress:
    """Says calls done, rate and time left, and counts calls for Prometheus, from what the text encoders send of each batch.

    On a terminal the bar lives as long as the block `with Progress(...) as progress`; what is logged meanwhile stands above it.
    """

    def __init__(self, num_calls: int, stage: Stage, console: Any = None) -> None:
        """`console`: rich's, to draw a bar on; None logs lines, but where stderr is a terminal, which then has the bar."""
        self.num_calls = num_calls
        self.counters = CallCounters(stage)
        self.calls = 0.0
        self.audio_sec = 0.0
        self.started = time.monotonic()
        self.bar: Any = None
        if console is None and sys.stderr.isatty():
            from rich.console import Console

            console = Console(stderr=True)
        if console is not None:
            self.bar = _make_bar(console)
            self.task = self.bar.add_task("encoded", total=num_calls, rate="")

    @property
    def every_sec(self) -> float:
        """How often it wants to be told."""
        return LINES_SEC if self.bar is None else BAR_SEC

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, batches: list[Passed]) -> None:
        """Count some batches, and say so."""
        # Batches that were under way on a node when it was lost come twice.
        self.calls = min(self.num_calls, self.calls + sum(batch.calls for batch in batches))
        self.audio_sec += sum(batch.audio_sec for batch in batches)
        for batch in batches:
            self.counters.add(batch.calls, batch.rejected, batch.audio_sec)
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.num_calls - self.calls) / self.calls
        rate = f"{self.calls / elapsed:,.1f} calls/s, {self.audio_sec / elapsed:,.0f}x real time, {_duration(left)} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=round(self.calls), rate=rate)
        else:
            log.info("encoded %s of %s calls, %s", f"{self.calls:,.0f}", f"{self.num_calls:,}", rate)


def _make_bar(console: Any) -> Any:
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
    )
    return progress.Progress(*columns, console=console)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
