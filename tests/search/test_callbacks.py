"""What a user is told of trials while a search works."""

import io
import logging
import pickle
from types import SimpleNamespace

import pytest
from rich.console import Console

from urgency_ray.progress import Bar
from urgency_ray.search.callbacks import TrialLog
from urgency_ray.search.trial import METRIC


def test_trials_that_fail_alike_are_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    drawn = io.StringIO()
    bar = Bar("trials", 6, Console(file=drawn, force_terminal=True, width=120))
    told = TrialLog(1, 7, bar)
    nan, scored = {"failed": "the loss is nan"}, {METRIC: 0.5, "epoch": 3, "finished": True}
    with caplog.at_level(logging.INFO), bar:
        for result in (nan, nan, scored, {"failed": "no memory"}, nan):
            told.on_trial_complete(0, [], SimpleNamespace(last_result=result))
        told.on_trial_error(0, [], SimpleNamespace())
    assert [record.getMessage() for record in caplog.records] == [
        "trial 2 of 7: failed: the loss is nan",
        "trial 4 of 7: validation macro-F1 0.500 after 3 epochs, finished",
        "trial 5 of 7: failed: no memory",
        "trial 7 of 7: failed: its process was lost or ended in an error",
    ]
    assert "6/6" in drawn.getvalue() and "trials/min" in drawn.getvalue() and "0 s left" in drawn.getvalue()


def test_a_copy_on_disk_draws_nothing() -> None:
    with Bar("trials", 2, Console(file=io.StringIO(), force_terminal=True)) as bar:
        copy = pickle.loads(pickle.dumps(TrialLog(0, 2, bar)))
    copy.on_trial_error(0, [], SimpleNamespace())
    assert not copy._bar.is_drawn
