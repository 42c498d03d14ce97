"""Which exceptions are faults that a user can mend, wherever they happened, and the line that says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from urgency_ray import cluster, storage
from urgency_ray.errors import RequestError, UnreachableError, WorkError

KNOWN_FAULTS = (RequestError, WorkError, OSError, FloatingPointError)
RETRY_ADVICE = "\nFailed to apply UDF transform after"
FULL_DISK = ("No space left on device", "Disk quota exceeded")
RAY_LOSSES = (
    "ActorDiedError",
    "ActorUnavailableError",
    "NodeDiedError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "WorkerCrashedError",
)
"""Exceptions of Ray that say what a cluster has lost: processes, nodes, objects, room."""


def find_fault(error: BaseException) -> BaseException | None:
    """The fault that an exception is, or came from, also of a worker; None where it is a bug."""
    known = next((cause for cause in _causes(error) if isinstance(cause, KNOWN_FAULTS) or _is_loss(cause)), None)
    # Of what follows from a lost head, Ray reports now this and now that.
    if (known is None or _is_loss(known)) and (lost := cluster.find_lost_head()):
        return UnreachableError(lost)
    return known


def describe_fault(error: BaseException, places: Sequence[str]) -> str:
    """What is said of a fault.

    Args:
        error: what `find_fault` gave.
        places: paths and URIs that the command works on, one of which may be full.
    """
    # Ray Data adds lines on settings of its own to what a task raises.
    said = str(error).partition(RETRY_ADVICE)[0]
    if any(words in said for words in FULL_DISK) and (place := storage.find_full(places)):
        return f"{place}: no space is left on its disk; free some, and run the command again: what is done is kept"
    if _is_loss(error):
        return f"{type(error).__name__}: {said.strip().splitlines()[0]} Run the command again: what is done is kept"
    return said


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from; Ray keeps a worker's own exception in `cause` or `worker_failures`.

    One with a `cause` is left out itself: it poses as that, with the traceback for its text.
    """
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop(0)
        if isinstance(current, BaseException):
            if getattr(current, "cause", None) is None:
                yield current
            failures = getattr(current, "worker_failures", {})
            inner = (getattr(current, name, None) for name in ("cause", "controller_failure", "health_check_failure"))
            pending += [*inner, current.__cause__, *failures.values()]


def _is_loss(error: BaseException) -> bool:
    """Whether a process, a node or an object of the cluster was lost, or its memory or disk was: no bug of a command."""
    exceptions = sys.modules.get("ray.exceptions")
    if exceptions is None or getattr(error, "actor_init_failed", False):
        return False
    return isinstance(error, tuple(getattr(exceptions, name) for name in RAY_LOSSES))
