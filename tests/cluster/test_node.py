"""Asking each node."""

import os

import pytest

from urgency_ray.cluster import node


@pytest.fixture
def lost_node(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster seems to have another node, which is gone when it is asked."""
    living = node.nodes_by_id()
    monkeypatch.setattr(node, "nodes_by_id", lambda: living | {"a" * 56: node.Node(1.0)})


def test_a_lost_node_has_no_say(lost_node: None) -> None:
    (answerer,) = node.ask_nodes(os.getpid)
    # Asked beside another, this node answers in a process of its own.
    assert answerer != os.getpid()


def test_a_node_that_lives_and_cannot_answer_is_not_passed_over(lost_node: None) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        node.ask_nodes(fail)
