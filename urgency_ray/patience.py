"""How long a store that does not answer is asked again, and how it is told from one that has answered."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from urgency_ray.errors import UnreachableError

log = logging.getLogger(__name__)

PATIENCE_SEC = 60.0
FIRST_WAIT_SEC = 0.5
MOST_WAIT_SEC = 5.0
GIVEN_UP = "has not answered for"
_OUTAGE = re.compile(
    r"AWS Error (?:NETWORK_CONNECTION|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|INTERNAL_FAILURE)"
    r"|HTTP status (?:429|5\d\d)|Status\((?:UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL)"
)
"""What Arrow says of a store that does not answer now and may later. One that refuses has answered, and will again."""

Result = TypeVar("Result")


def is_outage(error: BaseException) -> bool:
    """Whether an error, or what it came from, is that a store does not answer."""
    return _OUTAGE.search(str(error)) is not None


def patiently(location: str, work: Callable[[], Result], patience_sec: float | None = None) -> Result:
    """What `work` gives, which is begun again while the store that it needs does not answer.

    Args:
        location: path or URI, for what is said.
        work: may run several times.
        patience_sec: how long to try; None is `PATIENCE_SEC`.

    Raises:
        UnreachableError: it has not answered for so long.
    """
    patience_sec = PATIENCE_SEC if patience_sec is None else patience_sec
    deadline, wait_sec = time.monotonic() + patience_sec, FIRST_WAIT_SEC
    while True:
        try:
            return work()
        except UnreachableError:
            raise  # somebody below has been patient already
        except OSError as error:
            if not is_outage(error):
                raise
            if time.monotonic() + wait_sec > deadline:
                words = " ".join(str(error).split())
                raise UnreachableError(
                    f"{location}: {GIVEN_UP} {patience_sec:g} s: {words}; what is done is kept: run the command again"
                ) from None
        if wait_sec == FIRST_WAIT_SEC:
            log.warning("warning: %s does not answer: trying again for %g s", location, patience_sec)
        time.sleep(wait_sec)
        wait_sec = min(2 * wait_sec, MOST_WAIT_SEC)
