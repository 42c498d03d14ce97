"""Joining a Ray cluster, or starting a private one, and what it offers.

Ray is imported where it is used: `set_environment` must come before the first import of Ray Train.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

from urgency_ray.config import RayConfig
from urgency_ray.errors import RequestError, UnreachableError, WorkError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

STDERR = 2
ASK_SEC = 120.0
"""Time for all nodes to answer a question: a process has to start on each, and one that wants a GPU must find it free."""
SAY_SEC = 60.0
NOTICE = b"Set ray log level from environment variable"

NEEDED = {
    # Ray Train's older implementation wants another CPU for the training itself, and waits for it for ever.
    "RAY_TRAIN_V2_ENABLED": "1",
    # Ray Tune prints its own tables otherwise, whatever its verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
}
WISHED = {
    # Ray Train takes a worker's report when it next polls it: the default of 2 s dwarfs a small epoch.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # So long workers wait for their place before a training says so, and sees whether the nodes are still those of its plan.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "25",
    # The core worker would warn, on the terminal, that Ray Data's actors have arguments in the object store; all of them have.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Threads that wait for each other by spinning keep a busy core from the very one they wait for: an epoch beside other work
    # took four to ten times as long. OpenMP reads it when PyTorch is imported.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def set_environment() -> None:
    """Set the environment variables of this process: NEEDED whatever the user's say, WISHED where there is none.

    For the command line, before a command is imported; for `connect`; and for a process of the cluster that starts a training
    of its own. Ray reads RAY_TRAIN_V2_ENABLED when Ray Train is imported and again when a training starts, RAY_AIR_NEW_OUTPUT
    when a search starts, and the interval in the process of a training's controller, which gets it from here.

    Raises:
        RequestError: Ray Train was imported under RAY_TRAIN_V2_ENABLED=0: what has been imported stays its older one.
    """
    os.environ |= NEEDED | {name: value for name, value in WISHED.items() if name not in os.environ}
    train = sys.modules.get("ray.train")
    # Of its names, one that the older one lacks.
    if train is not None and not hasattr(train, "ControllerError"):
        raise RequestError(
            "RAY_TRAIN_V2_ENABLED: is 0 in the environment, which turns the Ray Train that is needed off; unset it"
        )


def connect(config: RayConfig) -> None:
    """Join `config.address`, else RAY_ADDRESS, else start a private cluster on this machine; see also `set_environment`.

    Where Ray is connected already, the environment is all that it sets.

    Raises:
        ConnectionError: there is no cluster at the address.
        RequestError: the environment has turned off what is needed of Ray, too late to mend it.
    """
    import ray

    set_environment()
    if ray.is_initialized():
        return
    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Its errors are raised, too: once is enough.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # A private cluster never joins whatever else runs on the machine.
    address, local = _address(config), is_private(config)
    _refuse_dead_address(address)
    if local:
        # Nobody takes this machine back with notice; the actor of Ray Train that watches for it starts with every training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    with _without_notices():
        ray.init(
            address=address,
            num_cpus=config.num_cpus if local else None,
            include_dashboard=False if local else None,
            logging_level=logging.ERROR,
            # Workers' logs stay in Ray's log folder: what a user should see comes through a Relay.
            log_to_driver=False,
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Wrapped, as is its default, what a user can mend loses its type on the way to the driver, and with it the one line.
    context.raise_original_map_exception = True


def is_private(config: RayConfig) -> bool:
    """Whether the command starts a cluster of its own, on this machine, or has done so."""
    return _address(config) == "local"


def _address(config: RayConfig) -> str:
    return config.address or os.environ.get("RAY_ADDRESS") or "local"


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Hold back what this process writes to its stderr, and let all of it go on but for NOTICE.

    Ray's core writes there itself, whatever Python's logging says, also that it has read RAY_BACKEND_LOG_LEVEL.
    """
    sys.stderr.flush()
    terminal = os.dup(STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, STDERR)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if NOTICE not in line:
                    os.write(STDERR, line)


def _refuse_dead_address(address: str) -> None:
    # ray.init would try for minutes before it gives up.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(f"ray.address {address}: no Ray cluster answers there ({error.strerror or error})") from None


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


class Node(NamedTuple):
    """Logical CPUs and GPUs of a node."""

    cpus: float
    gpus: float = 0.0


def count_places(nodes: Iterable[Node], cpus: float, gpus: float = 0.0) -> int:
    """How many workers of `cpus` logical CPUs and `gpus` GPUs the nodes hold; no worker spans two nodes, no share two GPUs."""
    return sum(min(int(node.cpus // cpus), _gpu_places(node, gpus)) if gpus else int(node.cpus // cpus) for node in nodes)


def _gpu_places(node: Node, share: float) -> int:
    return int(node.gpus) * int(1 / share) if share <= 1 else int(node.gpus // share)


def nodes_by_id() -> dict[str, Node]:
    """The living nodes that have CPUs, by Ray's id.

    Raises:
        RequestError: there are none.
    """
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    having = {node["NodeID"]: node["Resources"] for node in found if node["Alive"] and node["Resources"].get("CPU")}
    if not having:
        raise RequestError("ray.address: no node with CPUs has joined the cluster yet; start its workers first")
    return {name: Node(float(each["CPU"]), float(each.get("GPU", 0.0))) for name, each in having.items()}


def nodes() -> list[Node]:
    """The nodes that have CPUs, ascending.

    Raises:
        RequestError: there are none.
    """
    return sorted(nodes_by_id().values())


def num_gpus() -> int:
    """GPUs of the cluster's nodes that have CPUs, too: without one, no process could use them."""
    return int(sum(node.gpus for node in nodes()))


def ask_nodes(question: Callable[[], Answer], *, on_gpu: bool = False) -> list[Answer]:
    """What a function of no arguments answers on each node that has CPUs; `on_gpu`: on each that has GPUs, where it sees one.

    It takes no slot from others, but a thousandth of a GPU. A node that is lost meanwhile has no say.

    Raises:
        UnreachableError: no answer within `ASK_SEC`, of one node or of all.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    found = [node for node, size in nodes_by_id().items() if size.gpus or not on_gpu]
    if found == [ray.get_runtime_context().get_node_id()] and not on_gpu:
        return [question()]
    ask = ray.remote(num_cpus=0, num_gpus=0.001 if on_gpu else 0)(question)
    asked = [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in found]
    ready, waiting = ray.wait(asked, num_returns=len(asked), timeout=ASK_SEC)
    answers = []
    for each in ready:
        with contextlib.suppress(ray.exceptions.RayError):
            answers.append(ray.get(each))
    if waiting or not answers:
        raise UnreachableError(
            f"{len(asked) - len(answers)} of {len(asked)} nodes gave no answer within {ASK_SEC:g} s"
            + ("; are all of their GPUs held by others?" if on_gpu else "")
        )
    return answers
