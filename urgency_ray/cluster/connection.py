"""Joining a Ray cluster, or starting a private one.

Ray is imported where it is used: `set_environment` must come before the first import of Ray Train.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from urgency_ray.cluster.address import check_address
from urgency_ray.cluster.head import watch_head
from urgency_ray.cluster.scaling import await_nodes
from urgency_ray.config import RayConfig
from urgency_ray.errors import RequestError, WorkError

STDERR = 2
NOTICE = b"Set ray log level from environment variable"
LATE = "timed out during startup"

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


JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set in what `ray job submit` starts, and nowhere else."""


def in_job() -> bool:
    """Whether this process is the driver of a submitted job: it works in Ray's copy of the folder that came with it."""
    return JOB in os.environ


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

    Where Ray is connected already, the environment is all that it sets. A cluster that lacks the CPUs or GPUs which the work
    is to begin with is waited for.

    Raises:
        ConnectionError: there is no cluster at the address.
        RequestError: the address is of another kind, the cluster wants a token, or the environment has turned off, too late to
            mend it, what is needed of Ray.
        WorkError: too few nodes have joined it within `ray.wait_sec`, or a private one does not start.
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
    check_address(address, "ray.address" if config.address else "RAY_ADDRESS")
    if local:
        # Nobody takes this machine back with notice; the actor of Ray Train that watches for it starts with every training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        with _without_notices():
            ray.init(
                address=address,
                num_cpus=config.num_cpus if local else None,
                include_dashboard=False if local else None,
                logging_level=logging.ERROR,
                # Workers' logs stay in Ray's log folder: what a user should see comes through a Relay.
                log_to_driver=False,
            )
    except ray.exceptions.AuthenticationError as error:
        raise RequestError(f"RAY_AUTH_MODE: {error}") from None
    except Exception as error:
        if LATE not in str(error):
            raise
        raise WorkError(
            "Ray did not start within half a minute: this machine is too busy; run the command again later"
        ) from None
    head = ray.get_runtime_context().gcs_address
    watch_head(head, lambda: ray.is_initialized() and ray.get_runtime_context().gcs_address == head)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Wrapped, as is its default, what a user can mend loses its type on the way to the driver, and with it the one line.
    context.raise_original_map_exception = True
    if not local:
        await_nodes(config)


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
