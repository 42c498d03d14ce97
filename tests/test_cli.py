import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest
from shared_runs import Extracted, Trained

from urgency_ray import cli
from urgency_ray.commands.evaluate import evaluate_run
from urgency_ray.config import iter_fields
from urgency_ray.fingerprint import Transform
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.training.run import open_run


def run(*arguments: Any) -> Any:
    return cli.main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> Any:
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: ")
    return error[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "--run-dir", "r", "--data.root", "no/such/folder"], "--data.root no/such/folder: no such folder"),
        (["extract", "--run-dir", "r"], "--data.root"),
        (["extract"], "--run-dir"),
        (["extract", "--run-dir", "r", "--data.rot", "x"], "--data.rot: no such option; did you mean --data.root?"),
        (
            ["train", "--run-dir", "r", "--train.epochs", "five"],
            "train.epochs: must be an integer >= 1 and <= 100000 but got 'five'",
        ),
        (["train", "--run-dir", "r", "--train.epochs"], "expected one argument"),
        (["train", "--run-dir", "r", "--config", "nowhere.yaml"], "--config nowhere.yaml: No such file"),
        (["train", "--run-dir", "no/such/run"], "--run-dir no/such/run: holds no embeddings"),
        (["tune", "--run-dir", "r"], "tune.space: is empty"),
        (["tune", "--run-dir", "r", "--resume", "yes"], "--resume: invalid choice: 'yes' (choose from"),
        (["train", "--run-dir", "r", "--resume"], "--resume: no such option"),
        (["predict", "--model", "m", "--output", "o.parquet", "--data.root", "."], "--model m: holds no model.safetensors"),
        (["report", "--run-dir", "no/such/run"], "no/such/run"),
        (["synthesize"], "--data.root"),
        (["tarin"], "error: urgency-ray: no such command tarin; did you mean train?"),
        (["trian", "--run-dir", "r"], "error: urgency-ray: no such command trian; did you mean train?"),
        (["extarct"], "error: urgency-ray: no such command extarct; did you mean extract?"),
        (["Predict"], "error: urgency-ray: no such command Predict; did you mean predict?"),
        (["evalute"], "error: urgency-ray: no such command evalute; did you mean evaluate?"),
        (["xyz"], "error: urgency-ray: no such command xyz; --help lists them"),
        (
            ["extract", "--run-dir", "r", "--data.root", ".", "--audio_encoder.name", "hashing"],
            "audio_encoder.name: hashing is the built-in text encoder; the built-in audio encoder is spectral",
        ),
        (
            ["predict", "--model", "m", "--output", "o.csv", "--text_encoder.name", "spectral"],
            "text_encoder.name: spectral is the built-in audio encoder; the built-in text encoder is hashing",
        ),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    arguments: list[Any], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert message in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> int:
    """Exit code of a command that ends in an error."""

    def work(*_: object) -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "report", dataclasses.replace(cli.COMMANDS["report"], run=work))
    return int(run("report", "--run-dir", "runs/a"))


def test_what_the_cluster_lost_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError

    killed: Any = OutOfMemoryError
    assert fail_with(monkeypatch, killed("Task was killed due to the node running low on memory.\nMore.")) == 1
    line = one_line(capsys)
    assert "OutOfMemoryError: Task was killed due to the node running low on memory." in line
    assert "Run the command again: what is done is kept" in line
    assert fail_with(monkeypatch, WorkerCrashedError()) == 1
    assert "WorkerCrashedError" in one_line(capsys)


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Mock(free=4096))
    assert fail_with(monkeypatch, full) == 1
    assert "error: runs/a: no space is left on its disk; free some" in one_line(capsys)
    # Where each disk has room by now, what the system said stands.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Mock(free=1 << 30))
    assert fail_with(monkeypatch, full) == 1
    assert "No space left on device" in one_line(capsys)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match="a bug"):
        fail_with(monkeypatch, KeyError("a bug"))


def test_a_folder_without_calls_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls" / "notes.txt").write_text("nothing here", encoding="utf-8")
    assert run("extract", "--data.root", tmp_path / "calls", "--run-dir", tmp_path / "run") == 2
    assert "holds no calls" in one_line(capsys)


def test_help_lists_every_field_with_doc_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("train", "--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in iter_fields():
        assert f"--{name} VALUE" in shown
        assert field.description is not None
        assert " ".join(field.description.split()[:4]) in shown
    assert "Most epochs to train. Takes an integer >= 1 and <= 100000. Default: 50" in shown


def test_help_needs_neither_ray_nor_torch() -> None:
    code = "import sys, urgency_ray.cli as c; c.build_parser(); print(*({'ray', 'torch', 'librosa'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == ""


def test_evaluate_prints_the_report_of_each_split(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, metrics, _ = trained
    assert run("evaluate", "--run-dir", run_dir) == 0
    shown = capsys.readouterr().out
    assert "urgency on val" in shown
    assert f"{metrics.splits['test']['urgency'].per_class['상'].f1:.3f}" in shown


def test_evaluate_finds_an_operating_point_of_high(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, _, config = trained
    assert run("evaluate", "--run-dir", run_dir, "--recall-of-high", "0.4", "--confidence", "0.6") == 0
    shown = capsys.readouterr().out
    point = evaluate_run(config, run_dir, 0.4, 0.6).operating_point
    assert point is not None
    assert f"P(상) >= {point.threshold:.6g}, chosen on val for a recall of 상 of at least 0.4" in shown
    val, test_figures = point.splits["val"], point.splits["test"]
    assert f"recall {val.recall:.3f} ({val.num_found} of {val.num_high})" in shown
    assert val.recall is not None and val.recall >= 0.4
    table = pq.read_table(f"{run_dir}/predictions.parquet").to_pandas()
    test = table[table["split"] == "test"]
    flagged = test[test["prob_high"] >= point.threshold]
    assert test_figures.num_flagged == len(flagged)
    assert test_figures.num_found == (flagged["urgency"] == 2).sum()


@pytest.mark.parametrize("flag", ["--recall-of-high", "--confidence"])
@pytest.mark.parametrize("share", ["0", "1", "1.5", "high", "nan"])
def test_a_promise_that_cannot_be_asked_for_is_refused(flag: str, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--run-dir", "r", flag, share) == 2
    assert one_line(capsys) == f"error: {flag}: must be a number > 0 and < 1 but got '{share}'"


def test_a_confidence_needs_a_recall(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--run-dir", "r", "--confidence", "0.8") == 2
    assert one_line(capsys) == "error: --confidence: says how sure to be of a recall: give --recall-of-high, too"


def test_evaluate_prints_both_tasks(extracted: Extracted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    config, examples, _ = open_run(extracted[2], str(run_dir))
    model = UrgencyClassifier(
        config.model,
        examples.audio.shape[1],
        examples.text.shape[1],
        True,
        Transform.of(config, examples.fingerprint).model_dump(),
    )
    model.save_pretrained(run_dir / "model")
    assert run("evaluate", "--run-dir", run_dir) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if " on " in line] == [
        "urgency on val",
        "sentiment on val",
        "urgency on test",
        "sentiment on test",
    ]
    assert "불안/걱정" in shown


def test_a_run_folder_s_own_config_is_the_default_and_gives_the_calls_to_a_recipe(trained: Trained, tmp_path: Path) -> None:
    run_dir, _, config = trained
    parser = cli.build_parser()
    own = cli.resolve_config(parser.parse_args(["train", "--run-dir", run_dir, "--train.seed", "5"]))
    assert own == config.replace({"train.seed": 5})
    recipe = Path(tmp_path, "recipe.yaml")
    recipe.write_text("train: {epochs: 3}\n", encoding="utf-8")
    given = cli.resolve_config(parser.parse_args(["train", "--run-dir", run_dir, "--config", str(recipe)]))
    assert (given.train.epochs, given.model.hidden_dim, given.data.root) == (3, 768, config.data.root)


@pytest.mark.parametrize("resume", [["--resume"], ["--resume", "auto"]])
def test_a_resumed_search_takes_the_config_that_it_began_with(trained: Trained, tmp_path: Path, resume: list[str]) -> None:
    recipe = Path(tmp_path, "recipe.yaml")
    recipe.write_text("train: {epochs: 3}\n", encoding="utf-8")
    arguments = ["tune", "--run-dir", str(tmp_path), *resume, "--tune.num_trials", "9"]
    searched = trained[2].replace({"train.epochs": 7})
    for folder, config in ((tmp_path, trained[2]), (tmp_path / "tune", searched)):
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    resolved = cli.resolve_config(cli.build_parser().parse_args(arguments))
    assert resolved == searched.replace({"tune.num_trials": 9})
    given = cli.resolve_config(cli.build_parser().parse_args([*arguments, "--config", str(recipe)]))
    assert (given.train.epochs, given.tune.num_trials) == (3, 9)


def test_a_search_that_is_to_go_on_if_it_is_there_begins_with_the_run_s_config(trained: Trained) -> None:
    options = cli.build_parser().parse_args(["tune", "--run-dir", trained[0], "--resume", "auto"])
    assert cli.resolve_config(options) == trained[2]
    assert options.resume == "auto"


def test_report_writes_the_page(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, _, _ = trained
    assert run("report", "--run-dir", run_dir) == 0
    assert Path(run_dir, "report.html").stat().st_size > 10_000


def test_synthesize_writes_a_corpus_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "calls"
    arguments = ["synthesize", "--data.root", root, "--synthesize.num_calls", 30, "--synthesize.min_call_sec", 4]
    assert run(*arguments, "--synthesize.max_call_sec", 4) == 0
    assert len(list(root.rglob("*.zip"))) >= 4
    assert f"made: {root}" in capsys.readouterr().err
    assert run(*arguments, "--synthesize.max_call_sec", 5) == 2
    assert "another config" in one_line(capsys)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_without_korean_gets_the_text_with_question_marks(encoding: str) -> None:
    command = [sys.executable, "-m", "urgency_ray.cli", "evaluate", "--help"]
    shown = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=True).stdout
    assert b"P(?)" in shown
    assert (
        "P(상)"
        in subprocess.run(
            command, env=os.environ | {"PYTHONIOENCODING": "utf-8"}, capture_output=True, check=True
        ).stdout.decode()
    )
