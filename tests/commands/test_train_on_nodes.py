"""A training whose node is lost goes on with the workers that it began with, on what is left, to the same result."""

import json
from pathlib import Path
from typing import Any

import pytest
from kills import wait_until
from raylets import Raylets, raylets
from whole_runs import make_run

pytestmark = pytest.mark.slow

OPTIONS = {
    "model.name": "concat",
    "model.hidden_dim": 16,
    "model.head_dim": 8,
    "train.epochs": 40,
    "train.early_stop_epochs": "null",
    "train.checkpoint_epochs": 2,
    "train.baselines": "false",
    "train.num_workers": 2,
    "train.cpus_per_worker": 1,
}


LONG = [text for name, value in (OPTIONS | {"train.epochs": 100_000}).items() for text in (f"--{name}", value)]


def begin(cluster: Raylets, run_dir: Path) -> Any:
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", value)]
    return cluster.start(Path(f"{run_dir}.log"), "train", "--run-dir", run_dir, *options)


def read_log(run_dir: Path) -> str:
    return Path(f"{run_dir}.log").read_text(encoding="utf-8")


def test_the_node_that_is_left_trains_to_the_same_result(tmp_path: Path) -> None:
    folders = [tmp_path / name / "run" for name in ("whole", "lost")]
    for run_dir in folders:
        run_dir.parent.mkdir()
        make_run(run_dir)
        with raylets([1, 1]) as cluster:
            process = begin(cluster, run_dir)
            if run_dir == folders[1]:
                wait_until(lambda log=run_dir: "epoch 4:" in read_log(log), process, f"{run_dir}.log")
                cluster.kill(1)
            assert process.wait(timeout=600) == 0, read_log(run_dir)
    log = read_log(folders[1])
    assert "Traceback" not in log
    assert "training goes on with 2 workers of 0.5 CPUs each" in log
    found, wanted = (json.loads((run_dir / "metrics.json").read_text(encoding="utf-8")) for run_dir in folders)
    assert found == wanted


def test_a_lost_head_is_the_last_line(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    with raylets([0, 2]) as cluster:
        process = cluster.start(Path(f"{run_dir}.log"), "train", "--run-dir", run_dir, *LONG)
        wait_until(lambda: "epoch 4:" in read_log(run_dir), process, f"{run_dir}.log")
        cluster.kill(0)
        assert process.wait(timeout=300) == 1
    log = read_log(run_dir)
    assert "Traceback" not in log
    assert log.splitlines()[-1].startswith(
        f"error: the cluster's head, {cluster.address}, is lost; once there is a cluster again"
    )
