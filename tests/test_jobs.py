"""Every script of jobs/, alone on a laptop and under `ray job submit` to a local head."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from urgency_ray.config import load_config

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
DASHBOARD = "http://127.0.0.1:18265"
QUICK = ["--train.epochs", "1", "--train.ablation", "false", "--tune.num_trials", "2", "--tune.grace_epochs", "1"]


def arguments_of(stage, calls, run_dir):
    if stage == "predict":
        return ["--model", f"{run_dir}/model", "--data.root", str(calls), "--output", f"{run_dir}/new.parquet"]
    source = ["--data.root", str(calls)] if stage == "extract" else []
    return ["--config", str(ROOT / "configs" / "demo.yaml"), "--run-dir", str(run_dir), *source, *QUICK]


def check(stage, run_dir):
    made = {"extract": "extract.json", "train": "model/model.safetensors", "tune": "tune/best.yaml", "predict": "new.parquet"}
    assert Path(run_dir, made[stage]).exists()


@pytest.fixture(scope="module")
def calls(corpus):
    return corpus[0]


@pytest.fixture(scope="module")
def run_dir(extracted, tmp_path_factory):
    """Something for each stage to start from, so that the tests can run in any order, or alone."""
    return shutil.copytree(extracted[0], tmp_path_factory.mktemp("jobs") / "run")


def test_there_is_a_job_for_each_stage():
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == {"extract", "train", "tune", "predict"}


@pytest.mark.slow
def test_each_job_runs_alone(calls, tmp_path):
    run_dir = tmp_path / "run"
    for stage in ("extract", "train", "tune", "predict"):
        command = [sys.executable, str(ROOT / "jobs" / f"{stage}.py"), *arguments_of(stage, calls, run_dir)]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
        check(stage, run_dir)
    assert len(pd.read_parquet(run_dir / "new.parquet")) == 100
    assert load_config(run_dir / "config.yaml").data.root == str(calls)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A Ray head with a job server on this machine; its processes are ended by stopping the one we started."""
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path_factory.mktemp("ray"))}
    options = ["--head", "--port", "16379", "--dashboard-port", "18265", "--num-cpus", "2", "--disable-usage-stats"]
    process = subprocess.Popen([str(BIN / "ray"), "start", "--block", *options, "--include-dashboard", "true"], env=environment)
    yield {**os.environ, "RAY_API_SERVER_ADDRESS": DASHBOARD}
    process.terminate()
    process.wait(timeout=60)


def submit(stage, calls, run_dir, environment):
    command = [str(BIN / "ray"), "job", "submit", "--address", DASHBOARD, "--working-dir", str(ROOT / "jobs"), "--"]
    command += [sys.executable, f"{stage}.py", *arguments_of(stage, calls, run_dir)]
    return subprocess.run(command, check=False, env=environment, timeout=400, capture_output=True, text=True)


@pytest.mark.slow
def test_each_job_runs_under_ray_job_submit(calls, tmp_path, head):
    run_dir = tmp_path / "run"
    for stage in ("extract", "train", "tune", "predict"):
        result = submit(stage, calls, run_dir, head)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        check(stage, run_dir)


@pytest.mark.slow
def test_a_failed_job_says_why_and_fails(tmp_path, head):
    result = submit("train", tmp_path, tmp_path / "nothing", head)
    assert result.returncode != 0
    assert "holds no embeddings" in result.stdout + result.stderr
