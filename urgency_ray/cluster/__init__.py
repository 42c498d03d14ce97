"""The Ray cluster that work runs on: joining it, news from it, waiting for it, and its nodes.

Ray is imported where it is used: `set_environment` must come before the first import of Ray Train.
"""

from urgency_ray.cluster.connection import NEEDED, WISHED, connect, in_job, is_private, set_environment
from urgency_ray.cluster.head import find_lost_head
from urgency_ray.cluster.node import Node, ask_nodes, count_places, nodes, nodes_by_id, num_gpus
from urgency_ray.cluster.reach import check_reach
from urgency_ray.cluster.relay import Relay, Send
from urgency_ray.cluster.waiting import Waiting

__all__ = [
    "NEEDED",
    "WISHED",
    "Node",
    "Relay",
    "Send",
    "Waiting",
    "ask_nodes",
    "check_reach",
    "connect",
    "count_places",
    "find_lost_head",
    "in_job",
    "is_private",
    "nodes",
    "nodes_by_id",
    "num_gpus",
    "set_environment",
]
