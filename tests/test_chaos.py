"""Faults at random points of every stage: each ends in a right result or in one line, and the same command makes it right.

All of it is `make nightly`'s: a kill and a store that drops out in each stage, then ten minutes of faults of all kinds, with a
seed of its own, which it prints. What CI kills is in `commands/test_killed_*.py`.
"""

import dataclasses
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from kills import kill_all, running
from object_store import bucket_of, serve
from shared_runs import KnownCorpus
from whole_files import read_everything

from urgency_ray import storage
from urgency_ray.config import load_config
from urgency_ray.scoring.blocks import Metrics, SearchSummary

NIGHTLY_SEC = 600
LONGEST_SEC = 600
"""Of one command, retries of a store that does not answer included."""
STAGES = ("extract", "train", "tune", "predict")
NUM_TRIALS = 4
OPTIONS = {
    "extract.rows_per_block": "8",
    "model.name": "concat",
    "model.hidden_dim": "32",
    "train.epochs": "6",
    "train.members": "null",
    "train.linear_member": "false",
    "train.discriminant_member": "false",
    "train.stacked_member": "false",
    "train.select_by": "urgency_macro_f1",
    "train.checkpoint_epochs": "1",
    "train.baselines": "false",
    "tune.num_trials": str(NUM_TRIALS),
    "tune.ensemble": "null",
}


@dataclasses.dataclass(frozen=True)
class Unbroken:
    """The calls, the config, and what a run that nobody disturbed holds before and after each stage."""

    calls: Path
    config: Path
    folder: Path

    def before(self, stage: str, place: str) -> None:
        """Put at `place` what the stage begins with; nothing for extract."""
        earlier = {"train": "extract", "tune": "train", "predict": "train"}.get(stage)
        if earlier is not None:
            storage.copy_dir(str(self.folder / earlier), f"{place}/run")

    def arguments(self, stage: str, place: str) -> list[Any]:
        if stage == "predict":
            return [stage, "--model", f"{place}/run/model", "--data.root", self.calls, "--output", f"{place}/new.parquet"]
        return [stage, "--config", self.config, "--run-dir", f"{place}/run"]

    def check(self, stage: str, place: str) -> None:
        """The stage's result at `place` is the unbroken one. Searches draw by what has ended before: theirs is as long."""
        if stage == "tune":
            assert SearchSummary.model_validate_json(storage.read_text(f"{place}/run/tune/metrics.json"))
            assert len(read_parquet(f"{place}/run/tune/trials.parquet")) == NUM_TRIALS
        elif stage == "train":
            found, wanted = (
                storage.read_text(f"{run_dir}/metrics.json") for run_dir in (f"{place}/run", f"{self.folder}/train")
            )
            assert Metrics.model_validate_json(found) == Metrics.model_validate_json(wanted)
        elif stage == "extract":
            pd.testing.assert_frame_equal(read_rows(f"{place}/run"), read_rows(f"{self.folder}/extract"))
        else:
            found, wanted = (read_parquet(f"{folder}/new.parquet") for folder in (place, self.folder))
            pd.testing.assert_frame_equal(found, wanted, atol=1e-5)


def read_parquet(location: str) -> pd.DataFrame:
    filesystem, path = storage.open_location(location)
    frame = pq.read_table(path, filesystem=filesystem).to_pandas()
    return frame.sort_values(frame.columns[0], ignore_index=True)


def read_rows(run_dir: str) -> pd.DataFrame:
    filesystem, path = storage.open_location(f"{run_dir}/embeddings")
    rows = pads.dataset(path, filesystem=filesystem, partitioning="hive", format="parquet").to_table()
    return rows.to_pandas().sort_values("example_id", ignore_index=True)


@pytest.fixture(scope="module")
def unbroken(corpus: KnownCorpus, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    folder = tmp_path_factory.mktemp("unbroken")
    config = folder / "config.yaml"
    source = Path(__file__).parent.parent / "configs" / "demo.yaml"
    config.write_text(load_config(source, OPTIONS | {"data.root": str(corpus[0])}).to_yaml(), encoding="utf-8")
    made = Unbroken(corpus[0], config, folder)
    for stage in STAGES:
        place = folder / f"at-{stage}"
        place.mkdir()
        made.before(stage, str(place))
        code, log = end(folder / "log", made.arguments(stage, str(place)))
        assert code == 0, log
        if stage == "predict":
            (place / "new.parquet").rename(folder / "new.parquet")
        else:
            (place / "run").rename(folder / stage)
    return made


def end(log: Path, arguments: list[Any]) -> tuple[int, str]:
    """Exit code and output of a command that runs to its end."""
    log.unlink(missing_ok=True)
    with running(log, *arguments) as process:
        return process.wait(timeout=LONGEST_SEC), log.read_text(encoding="utf-8")


def check_end(code: int, log: str) -> None:
    """A right end, or a wrong one in one line."""
    assert "Traceback" not in log, log
    assert code in (0, 1, 2), log
    assert sum(line.startswith("error:") for line in log.splitlines()) == (code != 0), log


def kill(unbroken: Unbroken, stage: str, folder: Path, rng: random.Random) -> None:
    """SIGKILL to all processes of a command at a random moment."""
    unbroken.before(stage, str(folder))
    with running(folder / "log", *unbroken.arguments(stage, str(folder))) as process:
        deadline = time.monotonic() + rng.uniform(2.0, 16.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        kill_all([*process.children(recursive=True), process] if process.poll() is None else [])
    read_everything(folder / "run")


def fill_the_disk(unbroken: Unbroken, stage: str, folder: Path, rng: random.Random) -> None:
    """A disk that is full after so and so many bytes; what is left on it comes to one with room."""
    disk = folder / "disk"
    disk.mkdir()
    unbroken.before(stage, str(folder / "start"))
    source = f"[ ! -d {folder}/start/run ] || cp -r {folder}/start/run {disk}"
    size = f"size=$(du -sk {folder}/start 2>/dev/null | cut -f1); size=$((${{size:-0}} + {rng.choice([40, 150, 400, 1000])}))"
    keep = f"trap 'cp -r {disk}/. {folder}' EXIT"
    script = f'set -e; {size}; mount -t tmpfs -o size=${{size}}k tmpfs {disk}; {source}; {keep}; "$@"'
    arguments = [*map(str, unbroken.arguments(stage, str(disk))), "--ray.address", "local", "--ray.num_cpus", "2"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "urgency_ray.cli", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LONGEST_SEC)
    check_end(done.returncode, done.stdout + done.stderr)
    if (folder / "run").exists():
        read_everything(folder / "run")


def break_a_file(unbroken: Unbroken, stage: str, folder: Path, rng: random.Random) -> None:
    """A file of the run folder that is cut, empty, or something else; it is put back once the command has ended."""
    unbroken.before("train" if stage == "extract" else stage, str(folder))
    victim = rng.choice(sorted(path for path in (folder / "run").rglob("*") if path.is_file()))
    content = victim.read_bytes()
    victim.write_bytes(rng.choice([b"", content[: len(content) // 2], b"version https://git-lfs.github.com/spec/v1\n"]))
    code, log = end(folder / "log", unbroken.arguments(stage, str(folder)))
    check_end(code, log)
    if code == 0:
        unbroken.check(stage, str(folder))
    else:
        victim.write_bytes(content)


def run_again(unbroken: Unbroken, stage: str, place: str, log: Path) -> None:
    """The same command comes to the unbroken result; a search that has begun is resumed."""
    arguments = unbroken.arguments(stage, place)
    if stage == "tune" and storage.exists(f"{place}/run/tune/study.log"):
        arguments = [stage, "--run-dir", f"{place}/run", "--resume"]
    code, text = end(log, arguments)
    assert code == 0, text
    assert "Traceback" not in text, text
    unbroken.check(stage, place)


FAULTS: list[Callable[[Unbroken, str, Path, random.Random], None]] = [kill, fill_the_disk, break_a_file]


@pytest.mark.nightly
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_a_random_moment_leaves_whole_files_and_a_run_that_goes_on(
    unbroken: Unbroken, stage: str, tmp_path: Path
) -> None:
    kill(unbroken, stage, tmp_path, random.Random())
    run_again(unbroken, stage, str(tmp_path), tmp_path / "log")


@pytest.fixture
def store() -> Iterator[tuple[Any, str]]:
    """A store on loopback, and the URI of a bucket in it."""
    server = serve()
    with bucket_of(server, "chaos") as location:
        yield server, location
    server.stop()


@pytest.mark.nightly
@pytest.mark.parametrize("stage", STAGES)
def test_a_store_that_drops_out_ends_the_command_in_one_line(
    unbroken: Unbroken, store: Any, stage: str, tmp_path: Path
) -> None:
    server, location = store
    place = f"{location}/{stage}"
    unbroken.before(stage, place)
    with running(tmp_path / "log", *unbroken.arguments(stage, place)) as process:
        time.sleep(random.uniform(4.0, 10.0))
        server.stop()
        code = process.wait(timeout=LONGEST_SEC)
    check_end(code, (tmp_path / "log").read_text(encoding="utf-8"))
    again = serve(*server.get_host_and_port())
    run_again(unbroken, stage, place, tmp_path / "log")
    again.stop()


@pytest.mark.nightly
def test_ten_minutes_of_faults_lose_nothing(unbroken: Unbroken, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng, deadline = random.Random(seed), time.monotonic() + NIGHTLY_SEC
    number = 0
    while time.monotonic() < deadline:
        number += 1
        folder, stage, fault = tmp_path / str(number), rng.choice(STAGES), rng.choice(FAULTS)
        folder.mkdir()
        print(f"{number}: {fault.__name__} in {stage}", flush=True)
        fault(unbroken, stage, folder, rng)
        run_again(unbroken, stage, str(folder), folder / "log")
        shutil.rmtree(folder)
    assert number > len(FAULTS)
