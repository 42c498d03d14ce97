"""What becomes of a training whose store, and not a process of it, is at fault."""

import logging
from pathlib import Path
from typing import Any

import pytest
from ray.train import ControllerError, WorkerGroupError

from urgency_ray import patience
from urgency_ray.config import Config
from urgency_ray.errors import UnreachableError
from urgency_ray.training import trainer
from urgency_ray.training.checkpoints import Checkpoints, Identity

AWAY = OSError("When writing 'k': AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7")


class Group:
    """Stands in for a worker group of Ray Train: fails as it is told, then comes to its end."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.num_starts = 0

    def __call__(self, *arguments: Any) -> None:
        self.num_starts += 1
        if self.errors:
            raise self.errors.pop(0)


def run(group: Group, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_run_group", group)
    checkpoints = Checkpoints(str(folder), Identity(configs={}, data=[], code="", weights=[]))
    jobs: Any = [trainer.Job("fused", Config(), None, None)]  # type: ignore[arg-type]
    trainer._run_workers(jobs, checkpoints, False, 1.0, lambda epochs: None)


def test_a_training_goes_on_once_its_store_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    group = Group(ControllerError(AWAY), WorkerGroupError(str(AWAY), {0: AWAY}), AWAY)
    with caplog.at_level(logging.WARNING):
        run(group, tmp_path, monkeypatch)
    assert group.num_starts == 4
    assert caplog.messages == [f"warning: {tmp_path} did not answer for a while: training goes on from its last checkpoint"] * 3


def test_one_that_stays_away_ends_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = f"s3://b/k: {patience.GIVEN_UP} 60 s: {AWAY}"
    group = Group(WorkerGroupError(given_up, {0: UnreachableError(given_up)}))
    with pytest.raises(UnreachableError, match=r"has not answered for a while; what is done is kept: run the command again$"):
        run(group, tmp_path, monkeypatch)
    assert group.num_starts == 1


def test_a_store_that_refuses_is_no_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = OSError("When writing 'k': AWS Error ACCESS_DENIED during PutObject operation")
    group = Group(ControllerError(refused))
    with pytest.raises(ControllerError):
        run(group, tmp_path, monkeypatch)
    assert group.num_starts == 1
