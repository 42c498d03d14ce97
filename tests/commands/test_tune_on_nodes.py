"""A search whose CPUs others hold says so, and ends where it is told not to wait for ever."""

from pathlib import Path

import pytest
from raylets import raylets
from whole_runs import make_run

SPACE = "{train.learning_rate: {type: float, low: 0.0001, high: 0.01, log: true}}"
QUICK = ["--model.name", "concat", "--train.epochs", 2, "--tune.num_trials", 1, "--tune.space", SPACE]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.nightly)])
def test_a_search_says_what_it_waits_for(workers: int, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", num_calls=300)
    log = tmp_path / "log"
    with raylets([2]) as cluster:
        cluster.hold(1.999)
        waits = ["--ray.wait_sec", 5, "--tune.workers_per_trial", workers]
        process = cluster.start(log, "tune", "--run-dir", run_dir, *QUICK, *waits)
        assert process.wait(timeout=240) == 1
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    wanted = "waiting for 1 CPUs to run a trial on" if workers == 1 else "waiting for 2 workers of 1 CPUs to run a trial on"
    assert f"{wanted}; 0.001 of the cluster's 2 CPUs are free" in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: ray.wait_sec: waited ")
