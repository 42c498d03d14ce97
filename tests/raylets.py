"""A cluster of several real raylets on this machine: nodes join, are killed, or have their CPUs held by somebody else."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from kills import kill_all

KEEPER = """
import os
import subprocess
import sys
import time
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

class Holder:
    def ready(self):
        pass

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": float(sys.argv[1]), "include_dashboard": False})
BLIND = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
START = "start --num-cpus 1 --block --disable-usage-stats --min-worker-port 0 --max-worker-port 0".split()

def join():
    ray.is_initialized() or ray.init(cluster.address, log_to_driver=False)

def find():
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}

def works(node):
    try:
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        return ray.get(ray.remote(num_cpus=0)(lambda: True).options(scheduling_strategy=place).remote(), timeout=60)
    except ray.exceptions.RayError:
        return False

nodes = [cluster.head_node, *(cluster.add_node(num_cpus=float(cpus)) for cpus in sys.argv[2:])]
holders = []
print(cluster.address, flush=True)
for line in sys.stdin:
    order, value = line.split()
    if order == "add":
        nodes.append(cluster.add_node(num_cpus=float(value)))
    elif order == "kill":
        cluster.remove_node(nodes[int(value)], allow_graceful=False)
    elif order == "add_blind":
        join()
        before = find()
        ray_command = [sys.executable, "-m", "ray.scripts.scripts", *START, "--address", cluster.address]
        ray_command += ["--dashboard-agent-listen-port", "0"]
        # As the cluster: a session of the tests' own process has left its mode in the environment, else there is none.
        environment = {"RAY_AUTH_MODE": "disabled"} | os.environ
        command = ["unshare", "--mount", "sh", "-c", BLIND, value, *ray_command]
        # Ray gives a node half a minute to start, which on a busy machine may be too little; some start and end at once.
        for _ in range(6):
            blind = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
            while not find() - before and blind.poll() is None:
                time.sleep(0.2)
            if any(works(node) for node in find() - before):
                break
        else:
            sys.exit("no blind node joined")
    elif order == "hold":
        join()
        holders.append(ray.remote(num_cpus=float(value))(Holder).remote())
        ray.get(holders[-1].ready.remote())
    elif order == "free":
        ray.kill(holders.pop())
    print("done", flush=True)
"""


class Raylets:
    """The cluster; node 0 is its head."""

    def __init__(self, process: Any, environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self.address = self._answer()
        self.started: list[Any] = []

    def add(self, cpus: float) -> None:
        """A node joins."""
        self._order("add", cpus)

    def add_blind(self, folder: Path) -> None:
        """A node of one CPU joins to which the folder is another one, empty: it has its own mounts."""
        self._order("add_blind", folder)

    def kill(self, index: int) -> None:
        """SIGKILL to all processes of a node's raylet."""
        self._order("kill", index)

    def hold(self, cpus: float) -> None:
        """Somebody else takes CPUs of one node, and keeps them."""
        self._order("hold", cpus)

    def free(self) -> None:
        """What was held last is free again."""
        self._order("free", 0)

    def start(self, log: Path, *arguments: Any) -> Any:
        """A command on the cluster, its output in `log`, as a psutil.Process; it ends with the cluster at the latest."""
        command = [sys.executable, "-m", "urgency_ray.cli", *map(str, arguments), "--ray.address", self.address]
        with log.open("w") as output:
            process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=self.environment)
        self.started.append(process)
        return process

    def _order(self, order: str, value: float | Path) -> None:
        self.process.stdin.write(f"{order} {value}\n")
        self.process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        return str(self.process.stdout.readline()).strip()


@contextlib.contextmanager
def raylets(cpus: Sequence[float]) -> Iterator[Raylets]:
    """A cluster with a node for each number of CPUs."""
    # Of its own: a cluster that lost a node leaves a note behind of where it runs, which others would follow.
    folder = tempfile.mkdtemp(prefix="ray")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
    command = [sys.executable, "-c", KEEPER, *map(str, cpus)]
    process = psutil.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    cluster = Raylets(process, environment)
    try:
        yield cluster
    finally:
        below = [process, *cluster.started]
        for parent in (process, *cluster.started):
            with contextlib.suppress(psutil.NoSuchProcess):
                below += parent.children(recursive=True)
        kill_all(below)
        shutil.rmtree(folder, ignore_errors=True)
