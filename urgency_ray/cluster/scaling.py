"""Nodes that are not there yet: the autoscaler is asked for them, and they are waited for before anything is planned."""

from __future__ import annotations

import time

from urgency_ray.cluster.node import Node, living_nodes
from urgency_ray.cluster.waiting import Waiting
from urgency_ray.config import RayConfig

LOOK_SEC = 1.0


def await_nodes(config: RayConfig) -> None:
    """Wait until the cluster has `ray.min_cpus` and `ray.min_gpus`; a node's GPUs count where it has CPUs, too.

    Where there is an autoscaler (KubeRay, `ray up`), it is asked for them; else they are those of nodes that still start. The
    request is withdrawn in the end: what is planned then keeps the nodes by its work.

    Raises:
        WorkError: they are not there after `ray.wait_sec`.
    """
    if _has_all(config):
        return
    from ray.autoscaler.sdk import request_resources

    waiting = Waiting(config.wait_sec)
    gpus = f" and {config.min_gpus} GPUs" if config.min_gpus else ""
    request_resources(bundles=[{"CPU": 1}] * config.min_cpus + [{"CPU": 1, "GPU": 1}] * config.min_gpus)
    try:
        while not _has_all(config):
            waiting.say(f"nodes with {config.min_cpus} CPUs{gpus} to join the cluster")
            time.sleep(LOOK_SEC)
    finally:
        request_resources(bundles=[])


def _has_all(config: RayConfig) -> bool:
    nodes: list[Node] = list(living_nodes().values())
    return sum(node.cpus for node in nodes) >= config.min_cpus and sum(node.gpus for node in nodes) >= config.min_gpus
