"""Real SIGKILLs in the middle of a search: of the driver, of a trial's process, of a node. And a process that stands still."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psutil
import pytest
from kills import find_workers, finish, kill_all, kill_worker, running, wait_for_success, wait_until
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from shared_runs import Extracted

NUM_TRIALS = 8
# Twenty times a demo's epochs: a trial lasts for seconds, so that a kill finds it running.
OPTIONS = {
    "tune.num_trials": NUM_TRIALS,
    "train.epochs": 60,
    "train.early_stop_epochs": "null",
    "tune.grace_epochs": 20,
    "train.members": "null",
    "train.linear_member": "false",
    "train.discriminant_member": "false",
    "train.stacked_member": "false",
    "train.bootstrap_samples": 100,
}
CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"


def tune_command(run_dir: Path, *options: Any, **overrides: Any) -> Any:
    """Arguments of the command line; `run_dir`.log is to take its output."""
    fields = [part for name, value in {**OPTIONS, **overrides}.items() for part in (f"--{name}", value)]
    return [f"{run_dir}.log", "tune", "--config", CONFIG, "--run-dir", run_dir, *options, *fields]


def read_trials(run_dir: Path) -> Any:
    """Trials of the run folder's one study; none where it is not there yet."""
    if not Path(run_dir, "tune", "study.log").exists():
        return []
    storage = JournalStorage(JournalFileBackend(str(Path(run_dir, "tune", "study.log"))))
    names = optuna.get_all_study_names(storage)
    assert len(names) <= 1
    return optuna.load_study(study_name=names[0], storage=storage).trials if names else []


def ended(run_dir: Path) -> Any:
    return [trial for trial in read_trials(run_dir) if trial.state.is_finished()]


def wait_for(run_dir: Path, process: Any, condition: Any) -> None:
    wait_until(lambda: condition(read_trials(run_dir)), process, f"{run_dir}.log")


def begun_after(number: int) -> Any:
    """Whether so many trials have ended and another one has got somewhere."""
    return lambda trials: (
        sum(trial.state.is_finished() for trial in trials) >= number
        and any(not trial.state.is_finished() and trial.intermediate_values for trial in trials)
    )


@pytest.fixture
def run_dir(extracted: Extracted, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted[0], tmp_path / "run"))


@pytest.mark.slow
def test_a_search_whose_driver_is_killed_twice_ends_with_its_budget(run_dir: Path) -> None:
    kept: list[Any] = []
    for number in (1, 3):
        with running(*tune_command(run_dir, "--resume", "auto")) as process:
            wait_for(run_dir, process, begun_after(number))
            kill_all([process, *process.children(recursive=True)])
        now = ended(run_dir)
        assert all(trial in now for trial in kept)
        kept = now
    assert len(kept) < NUM_TRIALS
    begun = {trial.number: trial.params for trial in read_trials(run_dir)}
    with running(*tune_command(run_dir)) as process:
        assert process.wait(timeout=120) == 2
    assert "go on with it by --resume" in Path(f"{run_dir}.log").read_text(encoding="utf-8")
    finish(*tune_command(run_dir, "--resume"))
    trials = read_trials(run_dir)
    assert [trial.number for trial in trials] == list(range(NUM_TRIALS))
    assert all(trial.state.is_finished() for trial in trials)
    # Not run again: what had ended is as it was, what had begun went on with its own parameters.
    assert {trial.number: trial for trial in kept}.items() <= {trial.number: trial for trial in trials}.items()
    assert all(trials[number].params.items() >= params.items() for number, params in begun.items())
    table = pd.read_parquet(run_dir / "tune" / "trials.parquet")
    assert table["number"].tolist() == list(range(NUM_TRIALS))
    assert (table["state"] != "failed").all()
    assert (run_dir / "tune" / "metrics.json").exists()


@pytest.mark.nightly
def test_a_search_outlives_the_processes_of_its_trials(run_dir: Path) -> None:
    with running(*tune_command(run_dir)) as process:
        for number in (0, 2):
            wait_for(run_dir, process, begun_after(number))
            # The title of an actor is its class when it waits, and that of Ray's wrapper when it works.
            trials = find_workers(process, "ray::Trial") | find_workers(process, "ray::ResourceTrainable")
            trials.pop().kill()
        wait_for_success(process, f"{run_dir}.log")
    check_trials(run_dir, NUM_TRIALS)


@pytest.mark.nightly
@pytest.mark.parametrize("lost", ["ray::ResourceTrainable", "RayTrainWorker"])
def test_a_search_outlives_a_process_of_a_trial_of_two_workers(run_dir: Path, lost: str) -> None:
    with running(*tune_command(run_dir, **{"tune.num_trials": 2, "tune.workers_per_trial": 2})) as process:
        wait_for(run_dir, process, begun_after(0))
        kill_worker(process, lost)
        assert "the trial begins anew" in wait_for_success(process, f"{run_dir}.log")
    check_trials(run_dir, 2)


@pytest.mark.nightly
def test_the_winner_is_trained_where_the_time_budget_ends_in_an_epoch_that_does_not(run_dir: Path) -> None:
    options = {"tune.num_trials": 2, "tune.workers_per_trial": 2, "tune.time_budget_sec": 60}
    with running(*tune_command(run_dir, **options)) as process:
        wait_for(run_dir, process, begun_after(0))
        find_workers(process, "RayTrainWorker").pop().suspend()
        wait_for_success(process, f"{run_dir}.log")
    check_trials(run_dir, 1)


def check_trials(run_dir: Path, number: int) -> None:
    """All trials are there, none failed, and no epoch is there twice."""
    table = pd.read_parquet(run_dir / "tune" / "trials.parquet")
    assert table["number"].tolist() == list(range(number))
    assert (table["state"] != "failed").all()
    history = pd.read_parquet(run_dir / "tune" / "history.parquet")
    assert not history.duplicated(["trial", "epoch"]).any()
    assert history.groupby("trial")["epoch"].max().tolist() == table["epochs"].tolist()


# What a process of its own runs: a node is lost while both of its neighbours go on.
LOSE_A_NODE = """
import sys, threading, time
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.cluster_utils import Cluster
from urgency_ray.cli import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)

def lose():
    while True:
        time.sleep(0.1)
        try:
            storage = JournalStorage(JournalFileBackend(sys.argv[1]))
            (name,) = optuna.get_all_study_names(storage)
        except (OSError, ValueError):
            continue
        trials = optuna.load_study(study_name=name, storage=storage).trials
        running = [t for t in trials if not t.state.is_finished() and t.intermediate_values]
        if len(running) == 2:
            cluster.remove_node(node, allow_graceful=False)
            print("lost a node", flush=True)
            return

threading.Thread(target=lose, daemon=True).start()
code = main([*sys.argv[2:], "--ray.address", cluster.address])
print("exit code of the search:", code, flush=True)
cluster.shutdown()
"""


@pytest.mark.nightly
def test_a_search_outlives_a_node(run_dir: Path) -> None:
    command = [sys.executable, "-c", LOSE_A_NODE, str(run_dir / "tune" / "study.log"), "tune", "--config", str(CONFIG)]
    for name, value in OPTIONS.items():
        command += [f"--{name}", str(value)]
    # Of its own: a test cluster that loses a node leaves a note behind of where it runs, which others would follow.
    ray_tmpdir = tempfile.mkdtemp(prefix="ray")
    with Path(f"{run_dir}.log").open("a") as log:
        process = psutil.Popen(
            [*command, "--run-dir", str(run_dir)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "RAY_TMPDIR": ray_tmpdir},
        )
    try:
        process.wait(timeout=400)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill_all([process, *process.children(recursive=True)])
        shutil.rmtree(ray_tmpdir, ignore_errors=True)
    logged = Path(f"{run_dir}.log").read_text(encoding="utf-8")
    # Not that of the process, whose last act is Ray's own taking down of a test cluster that lacks a node.
    assert "exit code of the search: 0" in logged, logged
    assert "lost a node" in logged
    check_trials(run_dir, NUM_TRIALS)
