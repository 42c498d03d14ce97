"""The nodes of a cluster: how much they hold, and asking each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from urgency_ray.errors import RequestError, UnreachableError

Answer = TypeVar("Answer")

ASK_SEC = 120.0
"""Time for all nodes to answer a question: a process has to start on each, and one that wants a GPU must find it free."""


class Node(NamedTuple):
    """Logical CPUs and GPUs of a node."""

    cpus: float
    gpus: float = 0.0


def count_places(nodes: Iterable[Node], cpus: float, gpus: float = 0.0) -> int:
    """How many workers of `cpus` logical CPUs and `gpus` GPUs the nodes hold; no worker spans two nodes, no share two GPUs."""
    return sum(min(int(node.cpus // cpus), _gpu_places(node, gpus)) if gpus else int(node.cpus // cpus) for node in nodes)


def _gpu_places(node: Node, share: float) -> int:
    return int(node.gpus) * int(1 / share) if share <= 1 else int(node.gpus // share)


def living_nodes() -> dict[str, Node]:
    """The living nodes that have CPUs, by Ray's id; there may be none."""
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    having = {node["NodeID"]: node["Resources"] for node in found if node["Alive"] and node["Resources"].get("CPU")}
    return {name: Node(float(each["CPU"]), float(each.get("GPU", 0.0))) for name, each in having.items()}


def nodes_by_id() -> dict[str, Node]:
    """The living nodes that have CPUs, by Ray's id.

    Raises:
        RequestError: there are none.
    """
    found = living_nodes()
    if not found:
        raise RequestError("ray.address: no node of the cluster has CPUs; start its workers first")
    return found


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
        RayError: a node that lives cannot answer, for lack of memory, say.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    found = [node for node, size in nodes_by_id().items() if size.gpus or not on_gpu]
    if found == [ray.get_runtime_context().get_node_id()] and not on_gpu:
        return [question()]
    ask: Any = ray.remote(num_cpus=0, num_gpus=0.001 if on_gpu else 0)(_answer)
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in found]
    asked = [ask.options(scheduling_strategy=place).remote(question) for place in places]
    ready, waiting = ray.wait(asked, num_returns=len(asked), timeout=ASK_SEC)
    answers = []
    for node, each in zip(found, asked, strict=True):
        if each not in ready:
            continue
        try:
            answers.append(ray.get(each))
        except ray.exceptions.RayError:
            if node in living_nodes():
                raise
    if waiting or not answers:
        raise UnreachableError(
            f"{len(asked) - len(answers)} of {len(asked)} nodes gave no answer within {ASK_SEC:g} s"
            + ("; are all of their GPUs held by others?" if on_gpu else "")
        )
    return answers


def _answer(question: Callable[[], Answer]) -> Answer:
    # Ray takes functions as such only, no partial ones.
    return question()
