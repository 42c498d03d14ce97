"""Where encoders run: so many on each node, also on one that joins later, and none that a decode task would have to wait for.

An actor holds what it asks Ray for as long as the pipeline runs. Pools that together hold all that is free (a node was lost,
another job is at work) would leave the decode tasks that they wait for no slot, and their own restarts no place: an actor asks
for next to nothing instead, and what it may use is a matter of its threads. Which node it is put on is decided here, since to
Ray any node has room for all of them.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy
from ray.data._internal.actor_autoscaler import ActorPoolScalingRequest
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from urgency_ray import cluster
from urgency_ray.cluster import Node, Waiting
from urgency_ray.errors import RequestError

ACTOR_CPUS = 0.001
"""Logical CPUs of an encoder, and of whatever else stays as long as the pipeline runs."""
LOOK_SEC = 5.0
QUIET_SEC = 24.0


class Placement:
    """The place of each actor of a pool: the node with the fewest for its CPUs, and for one on a GPU, where Ray finds a GPU.

    An actor that is made again, its node lost, goes wherever Ray likes.

    Args:
        count: how many actors some nodes are to have.
        num_gpus: the share of a GPU of each.
        nodes: by id.
    """

    def __init__(self, count: Callable[[Sequence[Node]], int], num_gpus: float, nodes: Mapping[str, Node]) -> None:
        self.count = count
        self.num_gpus = num_gpus
        self.nodes: dict[str, Node] = {}
        self.num_actors = 0
        self.targets: list[str] = []
        self.grow(nodes)

    def grow(self, nodes: Mapping[str, Node]) -> int:
        """Take in what nodes have joined; how many actors there are to be on them, besides those that there were."""
        new = {node: size for node, size in nodes.items() if node not in self.nodes}
        if not new:
            return 0
        self.nodes |= new
        more = max(0, self.count(list(self.nodes.values())) - self.num_actors)
        self.num_actors += more
        if not self.num_gpus:
            placed = dict.fromkeys(new, 0)
            for _ in range(more):
                target = min(new, key=lambda node: (placed[node] + 1) / new[node].cpus)
                placed[target] += 1
                self.targets.append(target)
        return more

    def __deepcopy__(self, memo: dict[int, Any]) -> Placement:
        # Ray Data copies its context, and with it what `FollowNodes` tells of new nodes: there is one placement of a pool.
        return self

    def __call__(self) -> dict[str, Any]:
        """Remote arguments of the next actor."""
        if not self.targets:
            return {}
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(self.targets.pop(0), soft=True)}

    def map_batches(self, rows: ray.data.Dataset, stage: type, **arguments: Any) -> ray.data.Dataset:
        """`rows.map_batches` through a pool of actors, placed as said above."""
        # No largest size: Ray Data's own autoscaler, which `connect` keeps still, would end what `FollowNodes` adds.
        pool = ActorPoolStrategy(min_size=self.num_actors, initial_size=self.num_actors)
        with warnings.catch_warnings():
            # It is gone in Ray 2.64, and nothing else says where each actor goes.
            warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
            return rows.map_batches(
                stage,
                batch_format="pyarrow",
                compute=pool,
                num_cpus=ACTOR_CPUS,
                num_gpus=self.num_gpus,
                ray_remote_args_fn=self,
                **arguments,
            )


class FollowNodes(ExecutionCallback):
    """Ray Data callback: the pools of a `Placement` get actors on nodes that join while the pipeline runs.

    A pipeline through which nothing comes for `QUIET_SEC` says so, and what it lacks.

    Args:
        placements: by the name of Ray Data's operator.
        decode_cpus: what a decode task asks for.
        wait_sec: as `ray.wait_sec`.
    """

    def __init__(self, placements: Mapping[str, Placement], decode_cpus: float, wait_sec: float | None) -> None:
        self.looked = self.moved = time.monotonic()
        self.seen: list[int] = []
        self.placements = placements
        self.decode_cpus = decode_cpus
        self.waiting = Waiting(wait_sec)

    def on_execution_step(self, executor: Any) -> None:
        """Look for new nodes, and for what has come through, every `LOOK_SEC`."""
        if time.monotonic() < self.looked + LOOK_SEC:
            return
        self.looked = time.monotonic()
        self._watch([operator.metrics.num_outputs_taken for operator in executor._topology])
        try:
            nodes = cluster.nodes_by_id()
        except RequestError:
            return  # all are lost, and others may come
        for operator in executor._topology:
            placement = self.placements.get(operator.name)
            if placement is not None and (more := placement.grow(nodes)):
                for pool in operator.get_autoscaling_actor_pools():
                    pool.scale(ActorPoolScalingRequest.upscale(delta=more, reason="nodes have joined"))

    def _watch(self, seen: list[int]) -> None:
        if seen != self.seen:
            self.seen, self.moved = seen, self.looked
            self.waiting.end()
        elif self.looked - self.moved >= QUIET_SEC:
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            if free.get("CPU", 0.0) < self.decode_cpus:
                self.waiting.say(f"{self.decode_cpus:g} CPUs to decode calls on")
            else:
                self.waiting.end()
                self.waiting.note("processes that start, or for files that are read slowly")


def follow_nodes(placements: Mapping[type, Placement], decode_cpus: float, wait_sec: float | None) -> None:
    """Let the pools of all pipelines to come be as large as their placements say, no more and no less; see `FollowNodes`."""
    context = ray.data.DataContext.get_current()
    context.autoscaling_config.actor_pool_util_upscaling_threshold = float("inf")
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    named = {f"MapBatches({stage.__name__})": placement for stage, placement in placements.items()}
    callback: Any = functools.partial(FollowNodes, named, decode_cpus, wait_sec)
    context.custom_execution_callback_classes = [callback]
    # A wait for others is no fault of the pipeline, which Ray Data would end after half an hour.
    context.execution_no_progress_timeout_s = -1
