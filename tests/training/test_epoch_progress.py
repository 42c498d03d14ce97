"""What is said of how far a training is, on a terminal and in a log."""

import io
import logging
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from urgency_ray.training.epoch_progress import EpochProgress
from urgency_ray.training.worker import LAST


def epoch(number: int, *, last: bool = False) -> dict[str, Any]:
    return {"epoch": number, "train_loss": 0.5, "val_loss": 0.25, "val_macro_f1": 0.75, "seconds": 2.0, LAST: last}


def test_each_epoch_is_a_line_and_told_without_what_is_for_the_bar(caplog: pytest.LogCaptureFixture) -> None:
    told = Mock()
    with caplog.at_level(logging.INFO), EpochProgress({"fused": 9}, told) as progress:
        progress([("fused", epoch(1))])
    assert caplog.messages == ["fused epoch 1: train loss 0.5000, val loss 0.2500, val macro-F1 0.7500, 2.00 s"]
    ((name, row),) = told.call_args.args[0]
    assert name == "fused" and row == {key: value for key, value in epoch(1).items() if key != LAST}


def test_the_bar_is_of_the_epochs_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpochProgress, "elapsed", Mock(side_effect=[10.0, 20.0, 35.0]))
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=120)
    # One goes on after its fifth epoch of ten; the other stops early, after its second of 20.
    with EpochProgress({"a": 10, "b": 20}, None, console) as progress:
        progress([("a", epoch(6)), ("a", epoch(7)), ("b", epoch(1))])
        assert progress.total == 25
        progress([("b", epoch(2, last=True))])
        assert progress.total == 7
        progress([("a", epoch(10, last=True))])
    text = drawn.getvalue()
    # Seven epochs in 35 s.
    assert "7/7" in text and "0.2 epochs/s, 0 s left" in text
