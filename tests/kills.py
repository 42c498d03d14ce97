"""The command line as a child process, and real SIGKILLs to it and to what it started."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

# Until a run is where a test wants it: its start alone takes a minute where several tests share a core.
PATIENCE_SEC = 240.0


@contextlib.contextmanager
def running(log: Any, *arguments: Any) -> Iterator[Any]:
    """A command with a private cluster of 2 CPUs, its output appended to `log`, as a psutil.Process; nothing of it is left."""
    command = [sys.executable, "-m", "urgency_ray.cli", *map(str, arguments), "--ray.address", "local", "--ray.num_cpus", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with Path(log).open("a") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    started = [process]
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            started += process.children(recursive=True)
        kill_all(started)


def finish(log: Any, *arguments: Any) -> Any:
    """Run a command to its end, which must be a good one; returns the whole log."""
    with running(log, *arguments) as process:
        return wait_for_success(process, log)


def wait_for_success(process: Any, log: Any) -> Any:
    """Wait for exit code 0; returns the whole log."""
    code = process.wait(timeout=300)
    text = Path(log).read_text(encoding="utf-8")
    assert code == 0, text
    assert "Traceback" not in text
    return text


def kill_all(processes: Any) -> None:
    """SIGKILL to all of them at once, and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def kill_driver(process: Any) -> None:
    """SIGKILL to the driver alone: its workers must end by themselves, lest they write what a rerun writes too."""
    cluster = process.children(recursive=True)
    # Ray's agents of the node, which know nothing of the work, outlive it for a while.
    agents = [child for child in cluster if child.name().endswith("Agent")]
    process.kill()
    process.wait(timeout=60)
    _, alive = psutil.wait_procs([child for child in cluster if child not in agents], timeout=60)
    kill_all([*agents, *alive])
    assert not alive


def find_workers(process: Any, stage: Any) -> Any:
    """The workers below a driver that are busy with the stage, as Ray's titles of its processes say."""
    found = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(child.cmdline())
            if title.startswith("ray::") and stage in title:
                found.add(child)
    return found


def kill_worker(process: Any, stage: Any) -> Any:
    """SIGKILL a worker that is busy with the stage; returns it."""
    deadline = time.monotonic() + PATIENCE_SEC
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before"
        for worker in find_workers(process, stage):
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
                return worker
    raise TimeoutError(stage)


def wait_until(done: Any, process: Any, log: Any) -> None:
    """Wait until `done()`; the run must not end before."""
    deadline = time.monotonic() + PATIENCE_SEC
    while not done():
        assert process.poll() is None and time.monotonic() < deadline, Path(log).read_text(encoding="utf-8")
        time.sleep(0.02)
