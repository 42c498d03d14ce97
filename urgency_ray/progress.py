"""How far a command is: a bar on a terminal, with the rate and the time left. A log has lines of its own instead."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self


class Bar:
    """What is done of a whole; drawn on a terminal alone.

    It lives as long as the block `with Bar(...) as bar`; what is logged meanwhile stands above it.

    Attributes:
        total: the whole, in the unit of `show`.
        started: monotonic seconds.
    """

    def __init__(self, what: str, total: int, console: Any = None) -> None:
        """`console`: rich's, to draw on; None draws where stderr is a terminal."""
        self.total = total
        self.started = time.monotonic()
        self._drawn: Any = None
        if console is None and sys.stderr.isatty():
            from rich.console import Console

            console = Console(stderr=True)
        if console is not None:
            self._drawn = _make_bar(console)
            self._task = self._drawn.add_task(what, total=total, rate="")

    @property
    def is_drawn(self) -> bool:
        """Whether anybody sees it."""
        return self._drawn is not None

    def __enter__(self) -> Self:
        if self._drawn is not None:
            self._drawn.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune writes copies of what it calls to disk; a terminal has no place there.
        return self.__dict__ | {"_drawn": None}

    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.started

    def show(self, done: float, rate: str, elapsed: float) -> str:
        """Draw it; returns the rate, as the caller words it, with the time that is left at the pace so far."""
        words = f"{rate}, {describe_duration(elapsed * (self.total - done) / done)} left"
        if self._drawn is not None:
            self._drawn.update(self._task, completed=round(done), total=self.total, rate=words)
        return words


def _make_bar(console: Any) -> Any:
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
    )
    return progress.Progress(*columns, console=console)


def describe_duration(seconds: float) -> str:
    """Such as `1 h 05 min`, `2 min 30 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
