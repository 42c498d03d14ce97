"""What a user is told when the cluster's head is lost: Ray's core ends the process after a minute, without a word."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

LOOK_SEC = 3.0
SAY_SEC = 9.0
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""So many seconds Ray's core tries for, 60 if unset, before it ends the process."""
SOONER_SEC = 8.0


def watch_head(address: str, is_joined: Callable[[], bool]) -> None:
    """Look after the head as long as this process is joined to it, on a thread; end the process, with a line, once it is lost.

    Args:
        address: host and port of the head.
        is_joined: whether the process still wants it.
    """
    threading.Thread(target=_watch, args=(address, is_joined), daemon=True).start()


def _watch(address: str, is_joined: Callable[[], bool], end: Callable[[int], object] = os._exit) -> None:
    seen, said = time.monotonic(), False
    most_sec = float(os.environ.get(RECONNECT) or 60) - SOONER_SEC
    while is_joined():
        if _answers(address):
            seen, said = time.monotonic(), False
        gone_sec = time.monotonic() - seen
        if gone_sec >= SAY_SEC and not said:
            said = True
            log.warning(
                "warning: the cluster's head, %s, does not answer: without it, this ends within %g s", address, most_sec
            )
        if gone_sec >= most_sec:
            print(f"error: {_describe_loss(address)}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            # As Ray's core would: what waits for the cluster hears of nothing else.
            end(1)
            return
        time.sleep(LOOK_SEC)


def find_lost_head() -> str | None:
    """What there is to say where the head of the cluster that this process has joined does not answer; None where it does.

    For what to make of an error: Ray may report one of the many others that follow from that before the watch ends the process.
    """
    if "ray" not in sys.modules:
        return None
    import ray

    if not ray.is_initialized():
        return None
    address = ray.get_runtime_context().gcs_address
    return None if _answers(address) else _describe_loss(address)


def _describe_loss(address: str) -> str:
    return f"the cluster's head, {address}, is lost; once there is a cluster again, run the same command: what is done is kept"


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SEC).close()
    except OSError:
        return False
    return True
