"""Which node each encoder is put on."""

import copy
from collections import Counter
from collections.abc import Sequence

from urgency_ray.cluster import Node
from urgency_ray.embedding.placement import Placement


def one_for_two_cpus(nodes: Sequence[Node]) -> int:
    return sum(max(1, int(node.cpus // 2)) for node in nodes)


def targets(placement: Placement, number: int) -> Counter[str]:
    return Counter(placement()["scheduling_strategy"].node_id for _ in range(number))


def test_actors_are_spread_by_cpus_and_follow_nodes_that_join() -> None:
    small, large, late = "a" * 56, "b" * 56, "c" * 56
    placement = Placement(one_for_two_cpus, 0.0, {small: Node(2), large: Node(8)})
    assert targets(placement, 5) == {small: 1, large: 4}
    assert placement() == {}, "one that is made again goes where Ray likes"
    # One node is lost, another joins.
    assert placement.grow({large: Node(8), late: Node(6)}) == 3
    assert placement.grow({large: Node(8), late: Node(6)}) == 0
    assert targets(placement, 3) == {late: 3}


def test_on_gpus_ray_finds_the_node() -> None:
    placement = Placement(lambda nodes: int(sum(node.gpus for node in nodes)), 1.0, {"a" * 56: Node(8, 4)})
    assert placement.num_actors == 4
    assert placement() == {}


def test_the_copies_of_ray_data_s_context_share_it() -> None:
    placement = Placement(one_for_two_cpus, 0.0, {})
    assert copy.deepcopy(placement) is placement
