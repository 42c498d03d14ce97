"""A cluster that has fewer nodes than the work is to begin with is asked for more, and waited for."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler.sdk
from kills import kill_all
from raylets import autoscaled, start
from whole_runs import make_run

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
    with pytest.raises(WorkError, match=r"ray\.wait_sec: waited 0 s for nodes with 3 CPUs to join the cluster"):
        scaling.await_nodes(RayConfig(min_cpus=3, wait_sec=0.1))
    assert asked == [[{"CPU": 1}] * 3, []]


@pytest.mark.slow
def test_a_head_without_cpus_has_its_autoscaler_start_a_node(tmp_path: Path) -> None:
    run_dir, log = make_run(tmp_path / "run", num_calls=300), tmp_path / "log"
    options = ["--model.name", "concat", "--train.epochs", 2, "--train.baselines", "false", "--ray.wait_sec", 120]
    with autoscaled(2) as (address, environment):
        deadline = time.monotonic() + 120
        code = 2
        while code == 2 and time.monotonic() < deadline:  # until the head answers
            process = start(address, environment, log, "train", "--run-dir", run_dir, *options)
            try:
                code = process.wait(timeout=240)
            finally:
                kill_all([process])
    said = log.read_text(encoding="utf-8")
    assert code == 0, said
    assert "waiting for nodes with 1 CPUs to join the cluster; 0 of the cluster's 0 CPUs are free" in said
    assert "epoch 2:" in said
