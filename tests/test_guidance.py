"""What a command says of what it made, what comes next and how to go on can be typed as it stands."""

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from urgency_ray import cli, guidance
from urgency_ray.config import load_config

ROOT = Path(__file__).parent.parent


def check_typed(line: str) -> Any:
    """The options of a command line that is shown."""
    words = shlex.split(line)
    assert words[0] == "urgency-ray"
    options, unknown = cli.build_parser().parse_known_args(words[1:])
    assert unknown == []
    return options


@pytest.mark.parametrize("arguments", guidance.EXAMPLES)
def test_an_example_can_be_given(arguments: str) -> None:
    options = check_typed(f"urgency-ray {arguments}")
    assert load_config(None if options.config is None else ROOT / options.config)


def test_help_has_the_commands_in_the_order_of_the_work_and_five_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    commands, examples = shown.split("examples:\n")
    assert len(examples.splitlines()) == 5
    places = [commands.index(f"    {name}") for name in ("demo", "extract", "train", "tune", "report", "compare", "predict")]
    assert places == sorted(places)


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_what_comes_next_can_be_given(command: str) -> None:
    for given in (guidance.Given("runs/a b", "/data/calls", "recipe.yaml"), guidance.Given(None, None, None)):
        if (line := guidance.describe_next(command, given)) is not None:
            check_typed(line)
    assert guidance.describe_next("extract", guidance.Given("runs/a b", None, None)) == "urgency-ray train --run-dir 'runs/a b'"
    assert guidance.describe_next("predict", guidance.Given(None, None, None)) is None


def stub(monkeypatch: pytest.MonkeyPatch, command: str, error: BaseException | None = None) -> None:
    def work(*_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setitem(cli.COMMANDS, command, dataclasses.replace(cli.COMMANDS[command], run=work))


def test_a_command_ends_with_what_it_made_and_what_comes_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, "extract")
    assert cli.main(["extract", "--run-dir", "runs/a", "--data.root", "calls"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["made: runs/a/embeddings", "next: urgency-ray train --run-dir runs/a"]
    stub(monkeypatch, "predict")
    assert cli.main(["predict", "--model", "m", "--output", "o.csv", "--data.root", "calls"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--run-dir", "runs/a", "--train.epochs", "5"],
            "interrupted; what is done is kept, and the same command goes on with it: "
            "urgency-ray train --run-dir runs/a --train.epochs 5",
        ),
        (
            ["tune", "--run-dir", "runs/a", "--resume"],
            "interrupted; what is done is kept; to go on: urgency-ray tune --run-dir runs/a --resume auto",
        ),
        (["report", "--run-dir", "runs/a"], "interrupted; to begin again, give the same command"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    stub(monkeypatch, arguments[0], KeyboardInterrupt())
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err == f"error: {said}\n"
    if "urgency-ray" in said:
        check_typed(said[said.index("urgency-ray") :])


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("urgency-ray comp", ["compare "]),
        ("urgency-ray train --train.early", ["--train.early_stop_epochs "]),
    ],
)
def test_a_shell_completes_commands_and_fields(typed: str, offered: list[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not installed (pip install urgency-ray[completion])")
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered"), "_ARGCOMPLETE_SUPPRESS_SPACE": "0"}
    asked |= {"COMP_LINE": typed, "COMP_POINT": str(len(typed)), "COMP_TYPE": "9", "IFS": "\n"}
    code = "from urgency_ray.cli import run; run()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | asked, check=True, cwd=tmp_path, timeout=60)
    assert (tmp_path / "offered").read_text(encoding="utf-8").splitlines() == offered
