"""Every script of jobs/, alone on a laptop and under `ray job submit` to a local head."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shared_runs import KnownCorpus

from urgency_ray.config import load_config

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
STAGES = ("extract", "train", "tune", "predict", "evaluate", "report")
QUICK = ["--train.epochs", "1", "--train.ablation", "false", "--tune.num_trials", "2", "--tune.grace_epochs", "1"]


def arguments_of(stage: str, calls: Path, run_dir: Path) -> list[str]:
    if stage == "predict":
        return ["--model", f"{run_dir}/model", "--data.root", str(calls), "--output", f"{run_dir}/new.parquet"]
    if stage in ("evaluate", "report"):
        return ["--run-dir", str(run_dir)]
    source = ["--data.root", str(calls)] if stage == "extract" else []
    return ["--config", str(ROOT / "configs" / "demo.yaml"), "--run-dir", str(run_dir), *source, *QUICK]


def check(stage: str, run_dir: Path, said: str) -> None:
    made = {
        "extract": "extract.json",
        "train": "model/model.safetensors",
        "tune": "tune/best.yaml",
        "predict": "new.parquet",
        "report": "report.html",
    }
    if stage == "evaluate":
        assert "urgency on test" in said
    else:
        assert Path(run_dir, made[stage]).exists()


@pytest.fixture(scope="module")
def calls(corpus: KnownCorpus) -> Path:
    return corpus[0]


def test_there_is_a_job_for_each_stage() -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(STAGES)


@pytest.mark.slow
def test_each_job_runs_alone(calls: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for stage in STAGES:
        command = [sys.executable, str(ROOT / "jobs" / f"{stage}.py"), *arguments_of(stage, calls, run_dir)]
        done = subprocess.run(command, check=True, cwd=tmp_path, timeout=300, stdout=subprocess.PIPE, text=True)
        check(stage, run_dir, done.stdout)
    assert len(pd.read_parquet(run_dir / "new.parquet")) == 100
    assert load_config(run_dir / "config.yaml").data.root == str(calls)


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """(address, environment) of the job server of a Ray head on this machine, started and stopped here."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    port, dashboard_port, agent_port = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        # A short folder: the paths of Ray's sockets below it may not exceed 107 bytes.
        command = [str(BIN / "ray"), "start", "--head", "--block", "--port", port, "--dashboard-port", dashboard_port]
        # The agent's usual port is taken by the session of the other tests.
        command += [
            "--dashboard-agent-listen-port",
            agent_port,
            "--temp-dir",
            folder,
            "--num-cpus",
            "2",
            "--disable-usage-stats",
            "--include-dashboard",
            "true",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        address = f"http://127.0.0.1:{dashboard_port}"
        wait_for(address, process)
        yield address, environment
        process.terminate()
        process.wait(timeout=60)


def free_ports(number: int) -> Any:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [str(free.getsockname()[1]) for free in sockets]


def wait_for(address: Any, process: Any) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "ray start ended"
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
        except urllib.error.HTTPError:
            return  # it answers, if only to ask for a token
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(address)


def submit(stage: str, arguments: Any, head: Any) -> Any:
    address, environment = head
    command = [str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", str(ROOT), "--"]
    command += [sys.executable, f"jobs/{stage}.py", *arguments]
    deadline = time.monotonic() + 180
    while True:
        result = subprocess.run(command, check=False, timeout=400, capture_output=True, text=True, env=environment)
        # The server answers before the agent that runs jobs has started.
        if "No available agent" not in result.stderr or time.monotonic() > deadline:
            return result
        time.sleep(2)


@pytest.mark.slow
def test_each_job_runs_under_ray_job_submit(calls: Path, tmp_path: Path, head: Any) -> None:
    run_dir = tmp_path / "run"
    for stage in STAGES:
        result = submit(stage, arguments_of(stage, calls, run_dir), head)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        check(stage, run_dir, result.stdout)


@pytest.mark.slow
def test_a_failed_job_says_why_and_fails(tmp_path: Path, head: Any) -> None:
    result = submit("train", ["--run-dir", str(tmp_path / "nothing")], head)
    assert result.returncode != 0
    assert "holds no embeddings" in result.stdout + result.stderr
