"""What is said of how far extraction is, on a terminal and in a log."""

import io
import logging
import sys
from unittest.mock import Mock

import pytest
from rich.console import Console

from urgency_ray.embedding import progress
from urgency_ray.embedding.progress import BAR_SEC, LINES_SEC, Progress
from urgency_ray.embedding.rows import Passed


@pytest.fixture(autouse=True)
def no_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray for what Prometheus is told."""
    monkeypatch.setattr(progress, "CallCounters", Mock())


def passed(calls: float, audio_sec: float) -> Passed:
    return Passed(calls=calls, audio_sec=audio_sec, rejected={})


def test_a_log_has_a_line_with_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Mock(side_effect=[0.0, 10.0, 20.0])
    monkeypatch.setattr("urgency_ray.progress.time.monotonic", clock)
    with caplog.at_level(logging.INFO), Progress(1200, "extract") as said:
        assert said.every_sec == LINES_SEC
        said([passed(60, 300), passed(40, 200)])
        said([passed(1200, 500)])
    # 100 calls in 10 s, 500 s of audio; 1,100 are left. Then what came twice ends at all of them.
    assert caplog.messages == [
        "encoded 100 of 1,200 calls, 10.0 calls/s, 50x real time, 1 min 50 s left",
        "encoded 1,200 of 1,200 calls, 60.0 calls/s, 50x real time, 0 s left",
    ]


def test_a_terminal_has_a_bar_and_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=120)
    stderr = sys.stderr
    with caplog.at_level(logging.INFO), Progress(200, "predict", console) as said:
        assert said.every_sec == BAR_SEC
        said([passed(50, 100)])
        print("a warning stands above the bar", file=sys.stderr)
    assert sys.stderr is stderr
    assert caplog.messages == []
    text = drawn.getvalue()
    assert "50/200" in text and "calls/s" in text and "left" in text
    assert "a warning stands above the bar" in text
