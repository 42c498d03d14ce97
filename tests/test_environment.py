"""Machines as they are: a container's small /dev/shm, no HOME, a dead proxy, few open files, a disk that is full."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shared_runs import Extracted, KnownCorpus, Trained
from whole_files import read_everything

pytestmark = pytest.mark.slow

ROOM_KIB = 96
"""Of a disk that is all but full: enough for a lease or a config, for no model and no embeddings."""
ROOM_FOR_ROWS_KIB = 4
"""Too little for the predictions of 100 calls."""
OPTIONS = ("--ray.address", "local", "--ray.num_cpus", "2")
SMALL = {
    "--model.name": "concat",
    "--model.hidden_dim": "256",
    "--train.epochs": "1",
    "--train.members": "null",
    "--train.linear_member": "false",
    "--train.discriminant_member": "false",
    "--train.stacked_member": "false",
    "--train.select_by": "urgency_macro_f1",
    "--train.baselines": "false",
    "--tune.num_trials": "2",
}


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Mounts of a test's own need a mount namespace, which containers may forbid."""
    tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip("this machine allows no mount namespaces (unshare --mount)")


def run(prelude: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command after `prelude`, a line of shell in a mount namespace of its own."""
    script = f'set -e; {prelude}; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "urgency_ray.cli", *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("HOME", "RAY_ADDRESS")}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=inherited | environment)


def check_ends_in_one_line(done: subprocess.CompletedProcess[str], named: str) -> None:
    """Exit code 1 or 2, no traceback, and the last line names the place."""
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert named in errors[0]


def small() -> list[str]:
    return [text for option in SMALL.items() for text in option]


def test_a_poor_machine_is_enough(corpus: KnownCorpus, extracted: Extracted, tmp_path: Path) -> None:
    poor = "mount -t tmpfs -o size=64m tmpfs /dev/shm; ulimit -n 512"
    environment = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "RAY_TRAIN_V2_ENABLED": "0",
        "PYTHONIOENCODING": "latin-1",
    }
    run_dir, output = tmp_path / "run", tmp_path / "new.csv"
    config = tmp_path / "config.yaml"
    config.write_text(extracted[2].to_yaml(), encoding="utf-8")
    for command in (
        ("extract", "--config", config, "--run-dir", run_dir),
        ("train", "--run-dir", run_dir, *small()),
        ("tune", "--run-dir", run_dir, *small()),
        ("predict", "--model", run_dir / "model", "--data.root", corpus[0], "--output", output),
    ):
        done = run(poor, *command, *OPTIONS, **environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    accounts = json.loads((run_dir / "extract.json").read_text(encoding="utf-8"))
    assert {**accounts, "wall_sec": 0} == {**extracted[1].model_dump(), "wall_sec": 0}
    assert len(pd.read_csv(output)) == accounts["calls_read"]


@pytest.fixture
def artefacts(tmp_path: Path) -> list[Any]:
    """Options of `import` for files that make embeddings of 3 MB."""
    frame = pd.DataFrame({"file_id": [f"call{row}" for row in range(900)], "text": "불이야", "urgency_y": np.arange(900) % 3})
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    arrays: dict[str, Any] = {
        name: np.random.default_rng(0).standard_normal((900, 400)).astype(np.float32) for name in ("audio", "text")
    }
    np.savez(tmp_path / "embeddings.npz", **arrays)
    return ["--metadata", tmp_path / "metadata.csv", "--embeddings", tmp_path / "embeddings.npz"]


STAGES = ("synthesize", "import", "extract", "train", "tune", "report", "predict")


def arguments_of(stage: str, place: Path, corpus: KnownCorpus, trained: Trained, artefacts: list[Any]) -> list[Any]:
    """A command that writes into the run folder, or makes it, at `place`."""
    if stage == "synthesize":
        return [stage, "--data.root", place / "corpus", "--synthesize.num_calls", "40"]
    if stage == "predict":
        new = ["--model", Path(trained[0], "model"), "--data.root", corpus[0], "--output", place / "new.csv"]
        return [stage, *new, *OPTIONS]
    if stage == "import":
        return [stage, *artefacts, "--run-dir", place / "new"]
    if stage == "extract":
        return [stage, "--data.root", corpus[0], "--run-dir", place / "new", *OPTIONS]
    options = [] if stage == "report" else [*small(), *OPTIONS]
    return [stage, "--run-dir", place / "run", *options]


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_named_and_what_was_whole_stays_whole(
    stage: str, corpus: KnownCorpus, trained: Trained, artefacts: list[Any], tmp_path: Path
) -> None:
    place, after = tmp_path / "disk", tmp_path / "after"
    for folder in (place, after):
        folder.mkdir()
    room = ROOM_FOR_ROWS_KIB if stage == "predict" else ROOM_KIB
    source = f"cp -r '{trained[0]}' '{place}/run'"
    fill = f"free=$(df -k --output=avail '{place}' | tail -1); head -c $(((free - {room}) * 1024)) /dev/zero > '{place}/rest'"
    # The namespace, and with it the disk, is gone with the command: a shell outlives it to keep what is left.
    prelude = (
        f"mount -t tmpfs -o size=16m tmpfs '{place}'; {source}; {fill}; trap 'cp -r {place}/run {after}' EXIT; \"$@\"; exit"
    )
    done = run(prelude, *arguments_of(stage, place, corpus, trained, artefacts))
    check_ends_in_one_line(done, f"{place}")
    assert "no space is left on its disk; free some, and run the command again" in done.stderr
    assert "metrics.json" in read_everything(after / "run")


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_that_cannot_be_written_is_named(
    stage: str, corpus: KnownCorpus, trained: Trained, artefacts: list[Any], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(trained[0], place / "run")
    read_only = f"mount --bind '{place}' '{place}'; mount -o remount,ro,bind '{place}'"
    check_ends_in_one_line(run(read_only, *arguments_of(stage, place, corpus, trained, artefacts)), f"{place}")


def test_a_run_folder_that_cannot_be_written_is_evaluated(trained: Trained, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(trained[0], place)
    done = run(f"mount --bind '{place}' '{place}'; mount -o remount,ro,bind '{place}'", "evaluate", "--run-dir", place)
    assert done.returncode == 0, done.stderr
