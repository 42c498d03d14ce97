"""Real SIGKILLs in the middle of an extract: of the driver, of encoder actors, of tasks that decode and write."""

import contextlib
import random
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from kills import finish, kill_all, kill_driver, kill_worker, running, wait_for_success, wait_until

from urgency_ray.config import SynthesizeConfig
from urgency_ray.synthesize.corpus import synthesize

pytestmark = pytest.mark.slow

NUM_CALLS = 320
# Files of four calls: a kill finds some of them written, some on their way and some not begun.
SMALL_BLOCKS = ["--extract.rows_per_block", "4", "--extract.batch_size", "4", "--text_encoder.batch_size", "4"]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed") / "calls"
    config = SynthesizeConfig(num_calls=NUM_CALLS, min_call_sec=4.0, max_call_sec=5.0, flaw_fraction=0.02)
    synthesize(str(root), config)
    return root


@pytest.fixture(scope="module")
def unbroken(calls: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows of a run that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    finish(*extract(calls, run_dir))
    return read_rows(run_dir)


def extract(calls: Path, run_dir: Path, *options: Any) -> Any:
    """Log file and arguments of the command."""
    return f"{run_dir}.log", "extract", "--data.root", calls, "--run-dir", run_dir, *SMALL_BLOCKS, *options


def wait_for_files(run_dir: Path, number: int, process: Any) -> None:
    wait_until(lambda: len(list(run_dir.rglob("*.parquet"))) >= number, process, f"{run_dir}.log")


def read_rows(run_dir: Path) -> Any:
    rows = pads.dataset(run_dir / "embeddings", partitioning="hive").to_table().to_pandas()
    return rows.sort_values("example_id", ignore_index=True)


def whole_files(run_dir: Path) -> Any:
    """Time of writing of each file that can be read."""
    times = {}
    for path in run_dir.rglob("*.parquet"):
        with contextlib.suppress(pa.ArrowInvalid):
            pq.read_schema(path)
            times[path] = path.stat().st_mtime_ns
    return times


@pytest.mark.parametrize("seed", [1])
def test_a_killed_run_goes_on_where_it_was_and_ends_like_an_unbroken_one(
    calls: Path, unbroken: Any, tmp_path: Path, seed: int
) -> None:
    run_dir, draw = tmp_path / "run", random.Random(seed)
    for _ in range(2):
        before = whole_files(run_dir)
        with running(*extract(calls, run_dir)) as process:
            wait_for_files(run_dir, len(before) + draw.randint(1, 30), process)
            kill_driver(process)
        assert before.items() <= whole_files(run_dir).items()
        assert not (run_dir / "extract.json").exists()
    before = whole_files(run_dir)
    num_done = sum(pq.read_metadata(path).num_rows for path in before)
    assert 0 < num_done < NUM_CALLS
    log = finish(*extract(calls, run_dir))
    assert f"{num_done} of {NUM_CALLS} calls have their rows already" in log
    # Not done again: so many passed the encoders.
    assert re.findall(r"encoded [\d,]+ of (\d+) calls", log)[-1] == str(NUM_CALLS - num_done)
    pd.testing.assert_frame_equal(read_rows(run_dir), unbroken)


@pytest.mark.parametrize("seed", [3])
def test_a_run_survives_the_loss_of_any_worker(calls: Path, unbroken: Any, tmp_path: Path, seed: int) -> None:
    run_dir, draw = tmp_path / "run", random.Random(seed)
    stages = ["EncodeAudio", "EncodeText", "Write", "_Mailbox"]
    draw.shuffle(stages)
    with running(*extract(calls, run_dir)) as process:
        # Encoders hold none of its CPUs: on a busy machine the last call may be decoded when few files are written.
        kill_worker(process, "decode_calls")
        for index, stage in enumerate(stages):
            wait_for_files(run_dir, 15 * index + draw.randint(1, 15), process)
            kill_worker(process, stage)
        wait_for_success(process, f"{run_dir}.log")
    pd.testing.assert_frame_equal(read_rows(run_dir), unbroken)


@pytest.mark.nightly
def test_what_a_killed_run_left_is_not_mixed_with_another_encoder_s(calls: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with running(*extract(calls, run_dir)) as process:
        wait_for_files(run_dir, 5, process)
        kill_all([process, *process.children(recursive=True)])
    before = whole_files(run_dir)
    with running(*extract(calls, run_dir, "--text_encoder.hashing_dim", "256")) as process:
        assert process.wait(timeout=120) == 2
    (error,) = [line for line in Path(f"{run_dir}.log").read_text(encoding="utf-8").splitlines() if line.startswith("error:")]
    assert "text_encoder.hashing_dim: 512 there, 256 here" in error
    assert whole_files(run_dir) == before
