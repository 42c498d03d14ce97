"""What a command says beside its results: examples, what it made, what naturally comes next, how to go on after Ctrl-C."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from urgency_ray.run_folder import RunFolder

EXAMPLES = (
    "demo --run-dir runs/demo",
    "extract --config configs/urgency_sense.yaml --data.root CALLS --run-dir runs/sense",
    "train --run-dir runs/sense",
    "predict --model runs/sense/model --data.root NEW_CALLS --output predictions.csv",
    "report --run-dir runs/sense",
)
"""In the order of the work."""

GOES_ON = ("extract", "predict", "train")
"""What goes on where it was when it is given again."""


class Given(NamedTuple):
    """What a command was given, None where there is none: its run folder, the calls' folder of its config, and --config."""

    run_dir: str | None
    data_root: str | None
    config: str | None


def format_examples() -> str:
    """The examples in lines for `--help`."""
    return "\n".join(["examples:", *(f"  urgency-ray {arguments}" for arguments in EXAMPLES)])


def describe_made(command: str, given: Given) -> str | None:
    """Where what the command made is; None where it says so itself, or made nothing to keep."""
    if command in ("extract", "import"):
        return RunFolder(given.run_dir or "").embeddings
    if command == "tune":
        return RunFolder(given.run_dir or "").search.model
    return given.data_root if command == "synthesize" else None


def describe_next(command: str, given: Given) -> str | None:
    """What naturally comes next, as it is typed; None where nothing does."""
    run_dir, calls = given.run_dir or "RUN", given.data_root or "CALLS"
    config = ["--config", given.config] if given.config is not None else []
    following: dict[str, list[str]] = {
        "synthesize": ["extract", "--data.root", calls, "--run-dir", "RUN"],
        "doctor": ["extract", *config, "--data.root", calls, "--run-dir", "RUN"],
        "extract": ["train", *config, "--run-dir", run_dir],
        "import": ["train", "--run-dir", run_dir],
        "train": ["report", "--run-dir", run_dir],
        "tune": ["report", "--run-dir", run_dir],
        "evaluate": _predict(RunFolder(run_dir).model),
        "report": ["compare", run_dir, "OTHER_RUN"],
    }
    return _type(following[command]) if command in following else None


def describe_interrupted(command: str, arguments: Sequence[str]) -> str:
    """How to go on with a command that was interrupted."""
    if command in GOES_ON:
        return f"interrupted; what is done is kept, and the same command goes on with it: {_type([command, *arguments])}"
    if command == "tune":
        again = [argument for argument in arguments if argument not in ("--resume", "auto")]
        return f"interrupted; what is done is kept; to go on: {_type([command, *again, '--resume', 'auto'])}"
    return "interrupted; to begin again, give the same command"


def _predict(model: str) -> list[str]:
    return ["predict", "--model", model, "--data.root", "NEW_CALLS", "--output", "predictions.parquet"]


def _type(arguments: Sequence[str]) -> str:
    return shlex.join(["urgency-ray", *arguments])
