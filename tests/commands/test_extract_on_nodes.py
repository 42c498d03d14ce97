"""Extracts on a cluster of several raylets that others use, too, and whose nodes come and go: the rows are always the same."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as pads
import pytest
from kills import find_workers, wait_until
from raylets import Raylets, raylets

from urgency_ray.config import SynthesizeConfig
from urgency_ray.synthesize.corpus import synthesize

pytestmark = pytest.mark.slow

SMALL_BLOCKS = ["--extract.rows_per_block", "4", "--extract.batch_size", "4", "--text_encoder.batch_size", "4"]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nodes") / "calls"
    synthesize(str(root), SynthesizeConfig(num_calls=160, min_call_sec=4.0, max_call_sec=5.0))
    return root


@pytest.fixture(scope="module")
def one_node(calls: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows that an idle node of two CPUs makes."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    with raylets([2]) as cluster:
        finish(begin(cluster, calls, run_dir), run_dir)
    return read_rows(run_dir)


def begin(cluster: Raylets, calls: Path, run_dir: Path) -> Any:
    return cluster.start(Path(f"{run_dir}.log"), "extract", "--data.root", calls, "--run-dir", run_dir, *SMALL_BLOCKS)


def finish(process: Any, run_dir: Path) -> str:
    code = process.wait(timeout=480)
    log = Path(f"{run_dir}.log").read_text(encoding="utf-8")
    assert code == 0 and "Traceback" not in log, log
    return log


def read_rows(run_dir: Path) -> Any:
    rows = pads.dataset(run_dir / "embeddings", partitioning="hive").to_table().to_pandas()
    return rows.sort_values("example_id", ignore_index=True)


def wait_for_files(run_dir: Path, number: int, process: Any) -> None:
    wait_until(lambda: len(list(run_dir.rglob("*.parquet"))) >= number, process, f"{run_dir}.log")


def test_one_free_cpu_of_three_is_enough(calls: Path, one_node: Any, tmp_path: Path) -> None:
    with raylets([3]) as cluster:
        cluster.hold(2)
        finish(begin(cluster, calls, tmp_path / "run"), tmp_path / "run")
    pd.testing.assert_frame_equal(read_rows(tmp_path / "run"), one_node)


def test_two_side_by_side_both_end(calls: Path, one_node: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    with raylets([2, 2]) as cluster:
        for process, run_dir in [(begin(cluster, calls, run_dir), run_dir) for run_dir in folders]:
            finish(process, run_dir)
    for run_dir in folders:
        pd.testing.assert_frame_equal(read_rows(run_dir), one_node)


def test_the_node_that_is_left_makes_the_rest(calls: Path, one_node: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with raylets([2, 2]) as cluster:
        process = begin(cluster, calls, run_dir)
        wait_for_files(run_dir, 8, process)
        cluster.kill(1)
        finish(process, run_dir)
    pd.testing.assert_frame_equal(read_rows(run_dir), one_node)


def test_a_node_that_joins_late_gets_encoders(calls: Path, one_node: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with raylets([1]) as cluster:
        process = begin(cluster, calls, run_dir)
        wait_until(lambda: encoders(cluster), process, f"{run_dir}.log")
        assert len(encoders(cluster)) == 1
        cluster.add(4)
        wait_until(lambda: len(encoders(cluster)) > 1, process, f"{run_dir}.log")
        finish(process, run_dir)
    pd.testing.assert_frame_equal(read_rows(run_dir), one_node)


def test_a_wait_for_others_is_said_and_has_an_end(calls: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with raylets([1]) as cluster:
        cluster.hold(0.999)
        log = Path(f"{run_dir}.log")
        waits = ["--ray.wait_sec", "10"]
        process = cluster.start(log, "extract", "--data.root", calls, "--run-dir", run_dir, *SMALL_BLOCKS, *waits)
        assert process.wait(timeout=480) == 1
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "waiting for 0.25 CPUs to decode calls on" in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "ray.wait_sec: waited" in error


CAN_MOUNT = (
    shutil.which("unshare") is not None
    and not subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode
)


@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount")
def test_a_folder_that_one_node_does_not_see_is_named_before_the_work(calls: Path, tmp_path: Path) -> None:
    run_dir, log = tmp_path / "here" / "run", tmp_path / "log"
    run_dir.parent.mkdir()
    with raylets([1]) as cluster:
        cluster.add_blind(run_dir.parent)
        process = cluster.start(log, "extract", "--data.root", calls, "--run-dir", run_dir, *SMALL_BLOCKS)
        code = process.wait(timeout=480)
    said = log.read_text(encoding="utf-8")
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: --run-dir {run_dir}: node ")
    assert "does not see what lies there" in error
    assert code == 2 and "Traceback" not in said
    assert not list(run_dir.rglob("*.parquet"))


def encoders(cluster: Raylets) -> Any:
    """The processes of audio encoders on all nodes."""
    return find_workers(cluster.process, "EncodeAudio")
