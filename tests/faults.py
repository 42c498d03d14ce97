"""What a command that cannot do its work owes its user: an exit code, words that name what is wrong, and no long wait."""

import os

import pytest

from urgency_ray import cli

MOST_LINES = 3
MOST_CPU_SEC = 20.0
"""Of this process and those that it has waited for: the time that a command takes where nothing else runs, on any machine."""


def spent_cpu_sec() -> float:
    return sum(os.times()[:4])


def check_fault(capsys: pytest.CaptureFixture[str], named: str, *arguments: object, code: int = 2) -> str:
    """The command ends with this exit code and a line that holds `named`, after two others at most; returns the line."""
    before = spent_cpu_sec()
    # A traceback would be an exception here.
    assert cli.main([str(argument) for argument in arguments]) == code
    assert spent_cpu_sec() - before < MOST_CPU_SEC
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert 1 <= len(lines) <= MOST_LINES
    assert lines[-1].startswith("error: ")
    assert named in lines[-1]
    return lines[-1]
