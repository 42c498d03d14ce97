"""One pair of hands at a time: a lease on a piece of work in a run folder, on local disks and in object stores.

A lease is a small JSON file that says who holds it (host, process) and is written anew every `BEAT_SEC` while its holder lives.
No two machines' clocks are compared: whoever finds a lease of another host watches whether it beats. One whose holder was
killed is taken over with a word.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from urgency_ray import storage
from urgency_ray.errors import RequestError

log = logging.getLogger(__name__)

BEAT_SEC = 2.0
WATCH_SEC = 30.0
"""A lease that does not beat for so long is nobody's: a store may be slow, and a process busy in one long call."""
SETTLE_SEC = 0.5
"""Two that take over a lease in the same moment both read it again after so long: the one whose name is in it has it."""


@dataclass(frozen=True)
class Lease:
    """The content of a lease file.

    Attributes:
        host: name of the machine and, where there are such, of its space of process ids (a container has one of its own).
        pid: process of the holder.
        token: of this one lease.
        beat: counts how often it was written.
    """

    host: str
    pid: int
    token: str
    beat: int


@contextlib.contextmanager
def hold(location: str, work: str) -> Iterator[None]:
    """Hold the lease at `location` while the block runs.

    Args:
        location: path or URI of the lease file.
        work: what it is for, in words: `extract into runs/a`.

    Raises:
        RequestError: somebody else holds it, and lives.
        OSError: the folder cannot be written.
    """
    mine = Lease(_host(), os.getpid(), uuid.uuid4().hex, 0)
    _take(location, mine, work)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(location, mine, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        # A store that is away keeps the lease, which is taken over, and must not hide why the block has ended.
        with contextlib.suppress(OSError):
            found = _read(location, patience_sec=0.0)
            if found is not None and found.token == mine.token:
                storage.remove_file(location, patience_sec=0.0)


def _take(location: str, mine: Lease, work: str) -> None:
    found = _read(location)
    if found is None:
        if storage.create_text(location, _to_json(mine)):
            return
        found = _read(location)
    if found is not None:
        who = f"process {found.pid} on {_name(found.host)}"
        if _lives(location, found):
            raise RequestError(f"{work}: {who} is at it already; wait for its end, or end it, and try again")
        log.warning("warning: %s: taken over from %s, which has ended", work, who)
    _write(location, mine)
    time.sleep(SETTLE_SEC)
    now = _read(location)
    if now is None or now.token != mine.token:
        raise RequestError(f"{work}: another process has begun it in the same moment; wait for its end, and try again")


def _lives(location: str, lease: Lease) -> bool:
    """Whether the holder of a lease is still at work; where its process cannot be asked for, the lease is watched."""
    if lease.host == _host() and not _is_running(lease.pid):
        return False
    deadline = time.monotonic() + WATCH_SEC
    while time.monotonic() < deadline:
        time.sleep(BEAT_SEC / 4)
        now = _read(location)
        if now is None:
            return False  # its holder has come to its end
        if (now.token, now.beat) != (lease.token, lease.beat):
            return True
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(location: str, lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SEC):
        lease = replace(lease, beat=lease.beat + 1)
        # A store that does not answer for a moment is the work's business, which has its own patience.
        with contextlib.suppress(OSError):
            _write(location, lease, patience_sec=0.0)


def _host() -> str:
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _name(host: str) -> str:
    return host.partition(" ")[0]


def _read(location: str, patience_sec: float | None = None) -> Lease | None:
    """The lease that is there; None where there is none, or what is left of one that was being written."""
    try:
        return Lease(**json.loads(storage.read_text(location, patience_sec)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(location: str, lease: Lease, patience_sec: float | None = None) -> None:
    storage.write_text(location, _to_json(lease), patience_sec)


def _to_json(lease: Lease) -> str:
    return json.dumps(asdict(lease))
