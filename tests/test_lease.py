"""Two processes on one piece of work: the second is refused while the first lives, and takes over where it was killed."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from urgency_ray import lease, storage
from urgency_ray.errors import RequestError

HOLD = """
import sys, time
from urgency_ray import lease
with lease.hold(sys.argv[1], "extract into runs/a"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and waits of a test; a child process keeps the real ones."""
    monkeypatch.setattr(lease, "BEAT_SEC", 0.05)
    monkeypatch.setattr(lease, "WATCH_SEC", 0.5)
    monkeypatch.setattr(lease, "SETTLE_SEC", 0.1)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a lease for a minute, and where it lies."""
    location = str(tmp_path / "run" / "extract.lease")
    process = subprocess.Popen([sys.executable, "-c", HOLD, location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process, location
    process.kill()
    process.wait()


def take(location: str) -> None:
    with lease.hold(location, "extract into runs/a"):
        assert json.loads(storage.read_text(location))["pid"] == os.getpid()


def test_a_lease_is_there_while_the_work_is_and_gone_after_it(tmp_path: Path) -> None:
    location = str(tmp_path / "run" / "train.lease")

    def fail() -> None:
        with lease.hold(location, "train in runs/a"):
            assert Path(location).exists()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list((tmp_path / "run").iterdir()) == []


def test_the_second_of_two_living_processes_is_refused_and_told_who_is_there(
    holder: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, location = holder
    monkeypatch.setattr(lease, "WATCH_SEC", 30.0)  # the holder beats every 2 s
    started = time.monotonic()
    with pytest.raises(RequestError, match=rf"^extract into runs/a: process {process.pid} on \S+ is at it already"):
        take(location)
    assert time.monotonic() - started < 20
    assert json.loads(Path(location).read_text(encoding="utf-8"))["pid"] == process.pid


def test_the_lease_of_a_killed_process_is_taken_over_at_once_with_a_word(
    holder: tuple[subprocess.Popen[str], str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, location = holder
    process.kill()
    process.wait()
    monkeypatch.setattr(lease, "WATCH_SEC", 30.0)
    started = time.monotonic()
    take(location)
    assert time.monotonic() - started < 5
    assert f"taken over from process {process.pid}" in caplog.text


def test_a_lease_of_another_host_is_refused_while_it_beats_and_taken_over_when_it_does_not(tmp_path: Path) -> None:
    location = str(tmp_path / "tune.lease")
    theirs, ended = lease.Lease("elsewhere pid:[1]", os.getpid(), "theirs", 0), threading.Event()
    Path(location).write_text(lease._to_json(theirs), encoding="utf-8")
    beating = threading.Thread(target=lease._beat, args=(location, theirs, ended))
    beating.start()
    with pytest.raises(RequestError, match=r"process \d+ on elsewhere is at it already"):
        take(location)
    ended.set()
    beating.join()
    take(location)


def test_of_many_that_take_over_in_the_same_moment_one_has_it(tmp_path: Path) -> None:
    location = str(tmp_path / "extract.lease")
    gone = lease.Lease("elsewhere pid:[1]", 1, "gone", 7)
    Path(location).write_text(lease._to_json(gone), encoding="utf-8")
    outcomes: list[str] = []

    def work() -> None:
        try:
            with lease.hold(location, "extract"):
                outcomes.append("held")
                time.sleep(1.0)
        except RequestError:
            outcomes.append("refused")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused", "refused", "refused"]


def test_what_is_left_of_a_lease_that_was_being_written_is_nobody_s(tmp_path: Path) -> None:
    location = tmp_path / "extract.lease"
    location.write_text('{"host": "elsew', encoding="utf-8")
    take(str(location))
    assert not location.exists()
