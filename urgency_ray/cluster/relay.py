"""News from the processes of a cluster to the driver."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

log = logging.getLogger(__name__)


class _Mailbox:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    def put(self, message: Any) -> None:
        self.messages.append(message)

    def take(self) -> list[Any]:
        messages, self.messages = self.messages, []
        return messages


class Send(Protocol):
    """What a worker calls to send a message to the driver: at once, or within `wait_sec` once the message has arrived."""

    def __call__(self, message: Any, wait_sec: float = 0.0) -> None:
        """Send; a process that ends right after it must wait, or the message may end with it."""


class Relay:
    """Hands the driver what workers send while its block runs: `with Relay(handle, every_sec) as send`.

    Workers call `send(message)`; `handle` gets the list of messages since its last call, on a thread of the driver. The block's
    end raises the first exception of `handle`, which still gets what comes after it; a block that ends in an exception of its
    own has it in a note. What lies in the mailbox is lost with its process, and where that cannot be started again a warning
    says that nothing comes any more: only news are sent through it, and the run goes on.
    """

    def __init__(self, handle: Callable[[list[Any]], None], every_sec: float) -> None:
        import ray

        self.handle = handle
        self.every_sec = every_sec
        self.mailbox: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox).remote()
        self.done = threading.Event()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Send:
        self.thread.start()
        return functools.partial(_send, self.mailbox)

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        import ray

        self.done.set()
        try:
            self.thread.join()
        finally:
            ray.kill(self.mailbox)
        if self.error is None:
            return
        if raised is None:
            raise self.error
        raised.add_note(f"What takes the workers' messages failed, too: {self.error!r}")

    def _watch(self) -> None:
        import ray

        ended = False
        while not ended:
            ended = self.done.wait(self.every_sec)
            try:
                messages = ray.get(self.mailbox.take.remote())
            except ray.exceptions.RayActorError:
                log.warning("warning: what the workers report is lost from here on, with the process that collects it")
                return
            except Exception as error:
                self.error = self.error or error
                return
            try:
                if messages:
                    self.handle(messages)
            except Exception as error:
                self.error = self.error or error


def _send(mailbox: Any, message: Any, wait_sec: float = 0.0) -> None:
    import ray

    arrived = mailbox.put.remote(message)
    if wait_sec:
        ray.wait([arrived], timeout=wait_sec)
