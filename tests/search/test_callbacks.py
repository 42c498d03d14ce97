"""What a user is told of trials while a search works."""

import logging
from types import SimpleNamespace

import pytest

from urgency_ray.search.callbacks import TrialLog
from urgency_ray.search.trial import METRIC


def test_trials_that_fail_alike_are_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    told = TrialLog(num_done=1, num_trials=7)
    nan, scored = {"failed": "the loss is nan"}, {METRIC: 0.5, "epoch": 3, "finished": True}
    with caplog.at_level(logging.INFO):
        for result in (nan, nan, scored, {"failed": "no memory"}, nan):
            told.on_trial_complete(0, [], SimpleNamespace(last_result=result))
        told.on_trial_error(0, [], SimpleNamespace())
    assert [record.getMessage() for record in caplog.records] == [
        "trial 2 of 7: failed: the loss is nan",
        "trial 4 of 7: validation macro-F1 0.500 after 3 epochs, finished",
        "trial 5 of 7: failed: no memory",
        "trial 7 of 7: failed: its process was lost or ended in an error",
    ]
