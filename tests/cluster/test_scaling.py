"""A cluster that has fewer nodes than the work is to begin with is asked for more, and waited for."""

import logging
from typing import Any

import pytest
import ray.autoscaler.sdk

from urgency_ray.cluster import Node, scaling
from urgency_ray.config import RayConfig
from urgency_ray.errors import WorkError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the autoscaler is asked for."""
    bundles: list[Any] = []
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", lambda **options: bundles.append(options["bundles"]))
    monkeypatch.setattr(scaling, "LOOK_SEC", 0.01)
    return bundles


def test_a_cluster_that_has_all_is_asked_for_nothing(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "living_nodes", lambda: {"a": Node(4, 1), "b": Node(4)})
    scaling.await_nodes(RayConfig(min_cpus=8, min_gpus=1))
    assert asked == []


@pytest.mark.usefixtures("ray_session")
def test_nodes_are_asked_for_until_they_are_there(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[dict[str, Node]] = [{}, {}, {"a": Node(2)}, {"a": Node(2), "b": Node(2, 1)}]
    monkeypatch.setattr(scaling, "living_nodes", lambda: found.pop(0))
    with caplog.at_level(logging.INFO):
        scaling.await_nodes(RayConfig(min_cpus=2, min_gpus=1))
    assert asked == [[{"CPU": 1}, {"CPU": 1}, {"CPU": 1, "GPU": 1}], []]
    assert found == []
    (line,) = caplog.messages
    assert line.startswith("waiting for nodes with 2 CPUs and 1 GPUs to join the cluster; ")


@pytest.mark.usefixtures("ray_session")
def test_the_wait_has_an_end_and_the_request_is_withdrawn(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "living_nodes", dict)
    with pytest.raises(WorkError, match=r"ray\.wait_sec: waited \d+ s for nodes with 3 CPUs to join the cluster"):
        scaling.await_nodes(RayConfig(min_cpus=3, wait_sec=0.1))
    assert asked == [[{"CPU": 1}] * 3, []]
