"""A store that is away for some seconds does not end a stage."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kills import running, wait_for_success, wait_until
from object_store import bucket_of, serve
from whole_runs import make_run

from urgency_ray import storage

AWAY_SEC = 8.0
MOST_AWAY_SEC = 40.0
SMALL = ["--model.name", "concat", "--model.hidden_dim", 16, "--model.head_dim", 8, "--train.early_stop_epochs", "null"]
SMALL += ["--train.checkpoint_epochs", 2, "--train.baselines", "false"]
SPACE = "{train.learning_rate: {type: float, low: 0.0001, high: 0.01, log: true}}"


@pytest.fixture
def store() -> Iterator[tuple[Any, str]]:
    """A store on loopback, and the URI of a bucket in it."""
    server = serve()
    with bucket_of(server, "outages") as location:
        yield server, location


def go_away(server: Any, log: Path) -> Any:
    """Nobody answers for some seconds, and until that is noticed; then the server that is returned, with all that was there."""
    server.stop()
    away = time.monotonic()
    time.sleep(AWAY_SEC)
    while "does not answer" not in log.read_text(encoding="utf-8") and time.monotonic() < away + MOST_AWAY_SEC:
        time.sleep(0.1)
    return serve(*server.get_host_and_port())


@pytest.mark.parametrize(
    ("command", "options", "is_under_way"),
    [
        pytest.param("train", ["--train.epochs", 200], lambda log: "epoch 10:" in log, marks=pytest.mark.slow),
        pytest.param(
            "train",
            ["--train.epochs", 200, "--train.num_workers", 2],
            lambda log: "epoch 10:" in log,
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            "tune",
            ["--train.epochs", 3, "--tune.space", SPACE, "--tune.num_trials", 40, "--tune.grace_epochs", 3],
            lambda log: "trial 2 of" in log,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stage_rides_out_a_store_that_is_away(
    store: Any, tmp_path: Path, command: str, options: list[Any], is_under_way: Callable[[str], bool]
) -> None:
    server, location = store
    # What was in the store of the test before is there still.
    run_dir, log = make_run(f"{location}/{tmp_path.name}", num_calls=1000), tmp_path / "log"
    with running(log, command, "--run-dir", run_dir, *SMALL, *options) as process:
        wait_until(lambda: is_under_way(log.read_text(encoding="utf-8")), process, log)
        again = go_away(server, log)
        wait_for_success(process, log)
    said = log.read_text(encoding="utf-8")
    # Ours at once, of Ray Train's own files once they can be written again.
    assert "does not answer: trying again" in said or "did not answer for a while: training goes on" in said
    assert json.loads(storage.read_text(f"{run_dir}/{'tune/' if command == 'tune' else ''}metrics.json"))
    again.stop()
