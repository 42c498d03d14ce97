"""A head that is lost is said, before Ray's core ends the process without a word."""

import logging
import socket
import threading
from typing import Any

import pytest

from urgency_ray.cluster import head


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOOK_SEC", 0.05)
    monkeypatch.setattr(head, "SAY_SEC", 0.3)
    monkeypatch.setenv(head.RECONNECT, str(head.SOONER_SEC + 1.0))


def test_a_head_that_is_lost_ends_the_process_with_a_line(
    quick: None, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server, caplog.at_level(logging.WARNING):
        address = f"127.0.0.1:{server.getsockname()[1]}"
        watch = threading.Thread(target=head._watch, args=(address, lambda: True, ended.append))
        watch.start()
        watch.join(0.5)
        assert watch.is_alive() and not caplog.messages
        server.close()
        watch.join(60)
    assert ended == [1]
    assert caplog.messages == [f"warning: the cluster's head, {address}, does not answer: without it, this ends within 1 s"]
    advice = "once there is a cluster again, run the same command: what is done is kept"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: the cluster's head, {address}, is lost; {advice}"


def test_a_head_that_comes_back_or_is_not_wanted_any_more_ends_nothing(quick: None, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[Any] = []
    answers = iter([True] * 3 + [False] * 8 + [True] * 3)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(head, "_answers", lambda _: next(answers, None))
        left = iter([True] * 14)
        head._watch("head:6379", lambda: next(left, False), ended.append)
    assert ended == []
    assert len(caplog.messages) == 1
