"""Every script of jobs/, alone on a laptop and under `ray job submit` to a local head."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from checkout import ROOT, RUNTIME_ENV, copy_checkout
from prometheus_client.parser import text_string_to_metric_families
from shared_runs import KnownCorpus

from urgency_ray import telemetry
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.config import load_config

BIN = Path(sys.executable).parent
STAGES = ("extract", "train", "tune", "predict", "evaluate", "report")
QUICK = {
    "train.epochs": "1",
    "train.ablation": "false",
    "train.baselines": "false",
    "train.members": "null",
    "train.linear_member": "false",
    "train.discriminant_member": "false",
    "train.stacked_member": "false",
    "train.select_by": "urgency_macro_f1",
    "tune.num_trials": "2",
    "tune.grace_epochs": "1",
    "tune.ensemble": "null",
}


def arguments_of(stage: str, calls: Path, run_dir: Path, config: str = str(ROOT / "configs" / "demo.yaml")) -> list[str]:
    if stage == "predict":
        return ["--model", f"{run_dir}/model", "--data.root", str(calls), "--output", f"{run_dir}/new.parquet"]
    if stage in ("evaluate", "report"):
        return ["--run-dir", str(run_dir)]
    source = ["--data.root", str(calls)] if stage == "extract" else []
    quick = [text for field, value in QUICK.items() for text in (f"--{field}", value)]
    return ["--config", config, "--run-dir", str(run_dir), *source, *quick]


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


@pytest.mark.nightly
def test_each_job_runs_alone(calls: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for stage in STAGES:
        command = [sys.executable, str(ROOT / "jobs" / f"{stage}.py"), *arguments_of(stage, calls, run_dir)]
        done = subprocess.run(command, check=True, cwd=tmp_path, timeout=300, stdout=subprocess.PIPE, text=True)
        check(stage, run_dir, done.stdout)
    assert len(pd.read_parquet(run_dir / "new.parquet")) == 100
    assert load_config(run_dir / "config.yaml").data.root == str(calls)


class Head(NamedTuple):
    """A Ray head: the address of its job server, the environment to reach it in, where its metrics are; a checkout."""

    address: str
    environment: dict[str, str]
    metrics: str
    checkout: Path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One on this machine, started and stopped here, with token authentication."""
    # What is ignored must be so by .rayignore: not everybody's checkout has git's.
    environment = {**os.environ, "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    port, dashboard_port, agent_port, metrics_port = free_ports(4)
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        # A short folder: the paths of Ray's sockets below it may not exceed 107 bytes.
        command = [str(BIN / "ray"), "start", "--head", "--block", "--port", port, "--dashboard-port", dashboard_port]
        # The agent's usual port is taken by the session of the other tests.
        command += [
            "--dashboard-agent-listen-port",
            agent_port,
            "--metrics-export-port",
            metrics_port,
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
        yield Head(address, environment, f"http://127.0.0.1:{metrics_port}/metrics", checkout)
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


def submit(stage: str, arguments: list[str], head: Head) -> Any:
    """A stage as docs/cluster.md says to submit it."""
    command = [str(BIN / "ray"), "job", "submit", "--address", head.address, *RUNTIME_ENV, "--"]
    command += [sys.executable, f"jobs/{stage}.py", *arguments]
    deadline = time.monotonic() + 180
    while True:
        result = subprocess.run(
            command, check=False, timeout=400, capture_output=True, text=True, env=head.environment, cwd=head.checkout
        )
        # The server answers before the agent that runs jobs has started.
        if "No available agent" not in result.stderr or time.monotonic() > deadline:
            return result
        time.sleep(2)


def submit_well(stage: str, calls: Path, run_dir: Path, head: Head) -> None:
    """A stage that ends well, and makes what it is to make."""
    result = submit(stage, arguments_of(stage, calls, run_dir, "configs/demo.yaml"), head)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    check(stage, run_dir, result.stdout)


def expected_of(stage: str, run_dir: Path) -> dict[tuple[str, ...], Any]:
    """What a stage should have told: values by name and labels, in the order of `telemetry`."""
    if stage == "tune":
        history = pd.read_parquet(run_dir / "tune" / "history.parquet")
        best = history.groupby("trial")["best_val_macro_f1"].max()
        return {(telemetry.SCORE.exported, str(trial)): pytest.approx(score) for trial, score in best.items()}
    if stage not in ("extract", "predict"):
        return {}
    counts = ExtractAccounts.read(str(run_dir)).counts()
    read, rejected = counts.calls_read, counts.rejected_by_reason
    if stage == "predict":
        # It asks for no urgency, and so hears a call more.
        reasons = pd.read_parquet(run_dir / "new.parquet")["reason"]
        read, rejected = len(reasons), reasons.value_counts().to_dict()
    return {
        (telemetry.AUDIO.exported, stage): pytest.approx(counts.audio_sec, rel=1e-4 if stage == "extract" else 0.05),
        (telemetry.READ.exported, stage): read,
        (telemetry.EMBEDDED.exported, stage): read - sum(rejected.values()),
    } | {(telemetry.REJECTED.exported, stage, reason): number for reason, number in rejected.items()}


@contextlib.contextmanager
def listening(head: Head) -> Iterator[dict[tuple[str, ...], float]]:
    """What the head has said last by each of this project's meters, asked every second, as Prometheus would."""
    labels = {meter.exported: meter.labels for meter in telemetry.METERS}
    told: dict[tuple[str, ...], float] = {}
    done = threading.Event()

    def listen() -> None:
        while not done.wait(1.0):
            try:
                text = urllib.request.urlopen(head.metrics, timeout=30).read().decode()
            except OSError:
                continue  # the agent starts after the server of jobs
            now: dict[tuple[str, ...], float] = {}
            for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
                if sample.name.startswith("ray_urgency") and "SessionName" in sample.labels:
                    key = (sample.name, *(sample.labels[name] for name in labels[sample.name]))
                    now[key] = now.get(key, 0.0) + sample.value
            told.update(now)

    with ThreadPoolExecutor() as pool:
        listener = pool.submit(listen)
        try:
            yield told
        finally:
            done.set()
        listener.result()


@pytest.mark.slow
def test_each_job_runs_under_ray_job_submit(calls: Path, tmp_path: Path, head: Head) -> None:
    for stage in STAGES:
        submit_well(stage, calls, tmp_path / "run", head)


@pytest.mark.nightly
def test_jobs_tell_prometheus_what_their_accounts_say(calls: Path, tmp_path: Path, head: Head) -> None:
    run_dir = tmp_path / "run"
    expected: dict[tuple[str, ...], Any] = {}
    with listening(head) as told:
        for stage in ("extract", "train", "tune", "predict"):
            submit_well(stage, calls, run_dir, head)
            expected |= expected_of(stage, run_dir)
        # A process tells the agent of its node what it has counted every ten seconds, and at its end.
        deadline = time.monotonic() + 15
        while told != expected and time.monotonic() < deadline:
            time.sleep(0.5)
    assert told == expected


@pytest.mark.slow
def test_a_job_does_not_write_into_ray_s_copy_of_the_code(calls: Path, head: Any) -> None:
    result = submit("extract", ["--run-dir", "runs/x", "--data.root", str(calls)], head)
    assert result.returncode != 0
    assert "error: --run-dir runs/x: in a submitted job, a relative path lies in Ray's copy" in result.stdout + result.stderr


@pytest.mark.slow
def test_a_failed_job_says_why_and_fails(tmp_path: Path, head: Any) -> None:
    result = submit("train", ["--run-dir", str(tmp_path / "nothing")], head)
    assert result.returncode != 0
    assert "holds no embeddings" in result.stdout + result.stderr
