"""A training whose node is lost goes on with the workers that it began with, on what is left, to the same result."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kills import wait_until
from raylets import Raylets, raylets

from urgency_ray.commands.interchange import import_artefacts
from urgency_ray.config import Config

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


def make_run(run_dir: Path) -> Path:
    rng, folder = np.random.default_rng(0), run_dir.parent
    urgency = rng.integers(0, 3, 4000)
    frame = pd.DataFrame({"file_id": [f"call{row}" for row in range(len(urgency))], "text": "불이야", "urgency_y": urgency})
    frame.to_csv(folder / "metadata.csv", index=False)
    arrays: dict[str, Any] = {
        name: (rng.standard_normal((3, 8))[urgency] + 4 * rng.standard_normal((len(urgency), 8))).astype(np.float32)
        for name in ("audio", "text")
    }
    np.savez(folder / "embeddings.npz", **arrays)
    import_artefacts(Config(), str(folder / "metadata.csv"), str(folder / "embeddings.npz"), str(run_dir))
    return run_dir


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
            assert process.wait(timeout=280) == 0, read_log(run_dir)
    log = read_log(folders[1])
    assert "Traceback" not in log
    assert "training goes on with 2 workers of 0.5 CPUs each" in log
    found, wanted = (json.loads((run_dir / "metrics.json").read_text(encoding="utf-8")) for run_dir in folders)
    assert found == wanted
