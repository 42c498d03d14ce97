"""What a user is told while work waits for what others hold."""

from __future__ import annotations

import logging
import math
import time

from urgency_ray.errors import WorkError

log = logging.getLogger(__name__)

SAY_SEC = 60.0


class Waiting:
    """Says what work waits for, and gives up once that has taken `ray.wait_sec`."""

    def __init__(self, wait_sec: float | None) -> None:
        self.wait_sec = wait_sec
        self.started: float | None = None
        self.said = -math.inf

    def end(self) -> None:
        """The work goes on."""
        self.started = None

    def say(self, needs: str) -> None:
        """The work waits: say for what, at most once a minute.

        Raises:
            WorkError: it has waited for longer than it is to wait.
        """
        import ray

        now = time.monotonic()
        self.started = self.started or now
        resources: list[dict[str, float]] = [ray.available_resources(), ray.cluster_resources()]  # type: ignore[no-untyped-call]
        free, total = (found.get("CPU", 0.0) for found in resources)
        held = f"{needs}; {free:g} of the cluster's {total:g} CPUs are free"
        if self.wait_sec is not None and now - self.started >= self.wait_sec:
            raise WorkError(
                f"ray.wait_sec: waited {now - self.started:.0f} s for {held}; run the command again: what is done is kept"
            )
        self.note(held)

    def note(self, reason: str) -> None:
        """Say a wait that is nobody's fault, at most once a minute."""
        now = time.monotonic()
        if now - self.said >= SAY_SEC:
            self.said = now
            log.info("waiting for %s", reason)
