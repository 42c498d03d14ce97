"""What trackers are told of a run, read back with their own libraries; and that one which fails costs no training."""

import contextlib
import importlib.metadata
import logging
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kills import kill_all
from mlflow import MlflowClient
from test_tensorboard import make_history, read_events

from urgency_ray import cli, storage
from urgency_ray.commands.train import train
from urgency_ray.config import Config, load_config
from urgency_ray.errors import RequestError, UnreachableError
from urgency_ray.scoring.blocks import AgainstBaseline, Difference
from urgency_ray.tracking import Ended, Tracking, TrialNote, check_trackers, figures_of, track
from urgency_ray.tracking.tensorboard import LiveCurves, write_events
from urgency_ray.training.history import EpochRow

HISTORY = make_history("fused", 3)
EPOCHS = [("fused", row.model_dump(exclude={"modalities", "member"}, exclude_none=True)) for row in HISTORY]
TRIALS = [
    TrialNote(0, "completed", {"train.learning_rate": 1e-3}, [0.3, 0.5], 0.5),
    TrialNote(1, "failed", {"train.learning_rate": 1.0}, [], None),
]


def tell(config: Config, run_dir: Path, kind: Any) -> None:
    """Track a run of three epochs and two trials."""
    with track(config, str(run_dir), kind) as tracking:
        tracking.epochs(EPOCHS[:1])
        tracking.trials(TRIALS[:1])
        tracking.epochs(EPOCHS[1:])
        tracking.trials(TRIALS)
        tracking.end(Ended({"test/macro_f1": 0.75}, [str(run_dir / "metrics.json"), str(run_dir / "model")]))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder with figures and a model, of a kind."""
    folder = tmp_path / "신고" / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    (folder / "model" / "config.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> str:
    """Where MLflow keeps runs."""
    return f"file://{tmp_path}/mlruns"


def runs_at(server: str, experiment: str = "urgency_ray") -> Any:
    client = MlflowClient(server)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return client, {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def test_mlflow_has_a_run_with_config_curves_figures_files_and_trials(run_dir: Path, server: str) -> None:
    config = Config().replace({"track.mlflow_uri": server, "track.mlflow_experiment": "119", "train.epochs": 7})
    tell(config, run_dir, "tune")
    client, runs = runs_at(server, "119")
    assert set(runs) == {"tune run", "trial 0", "trial 1"}
    run = runs["tune run"]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "7" and run.data.params["data.unit"] == "call"
    assert run.data.metrics["test/macro_f1"] == 0.75
    points = client.get_metric_history(run.info.run_id, "fused/val_macro_f1")
    assert [(point.step, point.value) for point in points] == [(row.epoch, row.val_macro_f1) for row in HISTORY]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"metrics.json", "model"}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "model")] == ["model/config.json"]
    first, second = runs["trial 0"], runs["trial 1"]
    assert {trial.data.tags["mlflow.parentRunId"] for trial in (first, second)} == {run.info.run_id}
    assert (first.info.status, second.info.status) == ("FINISHED", "FAILED")
    assert first.data.params == {"train.learning_rate": "0.001"} and first.data.metrics["score"] == 0.5
    assert [point.value for point in client.get_metric_history(first.info.run_id, "val_macro_f1")] == [0.3, 0.5]
    assert [point.value for point in client.get_metric_history(run.info.run_id, "trial/score")] == [0.5]


@pytest.mark.nightly
def test_a_server_takes_it_and_its_death_costs_no_training(
    run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow's own server, in an environment of its own: it wants other versions of what is pinned here."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python, version = tmp_path / "venv/bin/python", importlib.metadata.version("mlflow-skinny")
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"mlflow=={version}"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", server.rpartition(":")[2]]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/runs.db", "--artifacts-destination", str(tmp_path / "files")]
    config = Config().replace({"track.mlflow_uri": server})
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(RequestError):
                check_trackers(config)
                break
        tell(config, run_dir, "tune")
        client, runs = runs_at(server)
        assert {name: run.info.status for name, run in runs.items()} == {
            "tune run": "FINISHED",
            "trial 0": "FINISHED",
            "trial 1": "FAILED",
        }
        run = runs["tune run"]
        points = client.get_metric_history(run.info.run_id, "fused/val_macro_f1")
        assert [(point.step, point.value) for point in points] == [(row.epoch, row.val_macro_f1) for row in HISTORY]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"metrics.json", "model"}
        with caplog.at_level(logging.WARNING), track(config, str(run_dir), "train") as tracking:
            kill_all([process, *process.children(recursive=True)])
            tracking.epochs(EPOCHS)
            tracking.end(Ended({}, []))
        assert [message for message in caplog.messages if message.startswith(f"warning: MLflow at {server} does not take")]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill_all([process, *process.children(recursive=True)])


def test_a_run_without_a_result_counts_as_failed(run_dir: Path, server: str) -> None:
    config = Config().replace({"track.mlflow_uri": server})
    with track(config, str(run_dir), "train") as tracking:
        tracking.epochs(EPOCHS)
    _, runs = runs_at(server)
    assert runs["train run"].info.status == "FAILED"
    assert runs["train run"].data.metrics["fused/val_macro_f1"] == HISTORY[-1].val_macro_f1


def test_train_tells_all_of_its_models(ray_session: None, extracted: Any, tmp_path: Path, server: str) -> None:
    run_dir = Path(shutil.copytree(extracted[0], tmp_path / "run"))
    metrics = train(
        extracted[2].replace({"track.mlflow_uri": server, "train.epochs": 2, "train.members": 2, "train.baselines": True}),
        str(run_dir),
    )
    client, runs = runs_at(server)
    (run,) = runs.values()
    test = metrics.splits["test"]["urgency"]
    assert run.data.metrics["splits/test/urgency/macro_f1"] == test.macro_f1
    assert run.data.metrics["splits/test/urgency/per_class/high/recall"] == test.per_class["상"].recall
    assert run.data.metrics["baselines/linear_fused/macro_f1"] == (metrics.baselines or {})["linear_fused"].macro_f1
    for member in ("fused-cross_attention-0", "fused-cross_attention-1"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, f"{member}/val_loss")]
        assert steps == [1, 2]
        assert [step for step, _, _ in read_events(run_dir / "tensorboard" / member)["loss/val"]] == [1, 2]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "config.yaml",
        "history.json",
        "metrics.json",
        "model",
    }


def records(path: Path) -> Iterator[Any]:
    """What W&B has written, by the format's own description (LevelDB's log, after seven bytes; https://github.com/wandb/wandb)."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield messages.Record.FromString(parts)
            parts = b""


def test_wandb_has_the_same_offline(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("DATA_DIR", str(tmp_path)), ("CACHE_DIR", str(tmp_path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    tell(Config().replace({"track.wandb_project": "calls"}), run_dir, "tune")
    by_run = [list(records(path)) for path in sorted(tmp_path.rglob("*.wandb"))]
    began = {}
    for found in by_run:
        (run,) = [record.run for record in found if record.HasField("run")][:1]
        began[run.display_name] = (run, found)
    assert set(began) == {"tune run", "trial 0", "trial 1"}
    run, found = began["tune run"]
    assert run.project == "calls" and run.job_type == "tune"
    assert len({each.run_group for each, _ in began.values()}) == 1
    told = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    scores = [float(row["fused/val_macro_f1"]) for row in told if "fused/val_macro_f1" in row]
    assert scores == pytest.approx([row.val_macro_f1 for row in HISTORY])
    summary = {item.key: item.value_json for record in found for item in record.summary.update}
    assert float(summary["test/macro_f1"]) == 0.75
    assert any(record.request.HasField("log_artifact") or record.HasField("artifact") for record in found)
    failed = began["trial 1"][1]
    assert [record.exit.exit_code for record in failed if record.HasField("exit")] == [1]


class Deaf:
    """A tracker whose server dies after the first message."""

    name = "the server"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if len(self.heard) > 1:
            raise ConnectionError("http://user:secret@host: gone\nmore")

    def epochs(self, epochs: Any) -> None:
        self._hear("epochs")

    def trial(self, trial: TrialNote) -> None:
        self._hear("trial")

    def end(self, ended: Ended) -> None:
        self._hear("end")

    def fail(self) -> None:
        self._hear("fail")


def test_a_tracker_that_fails_is_told_no_more_and_the_others_all(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    deaf, curves = Deaf(), LiveCurves(str(tmp_path / "tensorboard"))
    tracking = Tracking([deaf, curves])
    with caplog.at_level(logging.WARNING):
        tracking.epochs(EPOCHS)
        tracking.trials(TRIALS)
        tracking.end(Ended({}, []))
        tracking.fail()
    assert deaf.heard == ["epochs", "trial"]
    (line,) = caplog.messages
    assert line.startswith("warning: the server does not take what it is told (ConnectionError: http://***@host: gone)")
    assert [step for step, _, _ in read_events(tmp_path / "tensorboard/fused")["macro_f1/val"]] == [1, 2, 3]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_curves_grow_while_a_training_runs(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urgency_ray.tracking.tensorboard.UPLOAD_SEC", 0.0)
    folder = tmp_path / "tensorboard"
    write_events(make_history("audio", 2), str(folder))
    curves = LiveCurves(f"{scheme}{folder}")
    assert [path.name for path in folder.iterdir()] == ["audio"], "a training that does not begin leaves the former curves"
    for number, epoch in enumerate(EPOCHS, start=1):
        curves.epochs([epoch])
        assert [path.name for path in folder.iterdir()] == ["fused"]
        seen = {step: value for step, value, _ in read_events(folder / "fused")["loss/val"]}
        assert seen == pytest.approx({step: 1.1 / step for step in range(1, number + 1)})
    curves.end(Ended({}, []))
    write_events(make_history("fused", 5), f"{scheme}{folder}")
    assert len(read_events(folder / "fused")["loss/val"]) == 5


def test_curves_of_a_run_without_a_result_stay_and_need_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    curves = LiveCurves(f"file://{tmp_path}/tensorboard")
    curves.epochs([(f"model-{number}", EPOCHS[0][1]) for number in range(45)])
    assert threading.active_count() == before
    curves.fail()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 45


def test_a_store_that_is_away_costs_an_upload_and_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise UnreachableError("gone")

    monkeypatch.setattr("urgency_ray.tracking.tensorboard.UPLOAD_SEC", 0.0)
    curves = LiveCurves(f"file://{tmp_path}/tensorboard")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "copy_dir", fail)
        curves.epochs(EPOCHS[:2])
    curves.epochs(EPOCHS[2:])
    assert len(read_events(tmp_path / "tensorboard/fused")["loss/val"]) == 3


class Slow(Deaf):
    """A tracker that takes nothing until it may."""

    name = "the slow one"

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.has_ended = threading.Event()

    def _hear(self, what: str) -> None:
        self.may.wait(60)
        self.heard.append(what)
        if what == "end":
            self.has_ended.set()


class Patient(Deaf):
    """A tracker that takes all."""

    def _hear(self, what: str) -> None:
        self.heard.append(what)


def test_a_slow_tracker_holds_up_nobody_for_long_and_the_others_not_at_all(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urgency_ray.tracking.run.PATIENCE_SEC", 0.5)
    monkeypatch.setattr("urgency_ray.tracking.run.GATHER_SEC", 0.0)
    slow, other = Slow(), Patient()
    tracking, started = Tracking([slow, other]), time.monotonic()
    with caplog.at_level(logging.WARNING):
        tracking.trials(TRIALS)
        tracking.end(Ended({}, []))
    assert time.monotonic() - started < 0.9
    assert other.heard == ["trial", "trial", "end"]
    assert caplog.messages == ["warning: the slow one has not taken all within 0.5 s: what is missing stays so"]
    assert slow.heard == []
    slow.may.set()
    assert slow.has_ended.wait(60)
    assert slow.heard == ["trial", "trial", "end"], "one message at a time, in their order"


def test_an_experiment_that_was_deleted_is_one_line(run_dir: Path, server: str) -> None:
    config = Config().replace({"track.mlflow_uri": server})
    client = MlflowClient(server)
    client.delete_experiment(client.create_experiment("urgency_ray"))
    with pytest.raises(RequestError, match=r"^track.mlflow_experiment urgency_ray: "), track(config, str(run_dir), "train"):
        pass


def test_a_run_whose_files_go_nowhere_has_ended_all_the_same(
    run_dir: Path, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ConnectionError("no such store")

    monkeypatch.setattr(MlflowClient, "log_artifacts", fail)
    with caplog.at_level(logging.WARNING):
        tell(Config().replace({"track.mlflow_uri": server}), run_dir, "train")
    assert runs_at(server)[1]["train run"].info.status == "FINISHED"
    assert "no such store" in caplog.messages[-1]


def test_of_two_trackers_the_first_is_told_when_the_second_cannot_begin(
    run_dir: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = Config().replace({"track.mlflow_uri": server, "track.wandb_project": "calls"})
    with pytest.raises(RequestError, match="needs Weights & Biases"), track(config, str(run_dir), "train"):
        pass
    assert runs_at(server)[1]["train run"].info.status == "FAILED"


@pytest.mark.parametrize("uri", ["http://token@host:5000", "https://host:5000/?token=abc", "http://user:12/ab@host"])
def test_a_key_in_the_address_of_a_server_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(RequestError, match=r"MLFLOW_TRACKING_TOKEN|MLFLOW_TRACKING_PASSWORD") as caught:
        load_config(None, {"track.mlflow_uri": uri})
    assert not {"token@", "abc", "12/ab"} & set(re.findall(r"token@|abc|12/ab", str(caught.value)))


def test_no_server_is_one_line_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert cli.main(["train", "--run-dir", str(tmp_path), "--track.mlflow_uri", "http://127.0.0.1:9"]) == 2
    assert time.monotonic() - started < 20
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: track.mlflow_uri http://127.0.0.1:9: no MLflow tracking server answers")


@pytest.mark.parametrize(
    ("library", "field", "value"), [("mlflow", "mlflow_uri", "http://127.0.0.1:9"), ("wandb", "wandb_project", "calls")]
)
def test_a_library_that_is_not_there_is_named(library: str, field: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RequestError, match=rf"^track.{field}: needs .*: pip install 'urgency-ray\[{library}\]'$"):
        check_trackers(Config().replace({f"track.{field}": value}))


def test_nobody_is_asked_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(RequestError, match=r"^track.wandb_project: nobody is logged in: run wandb login, or set WANDB_API_KEY"):
        check_trackers(Config().replace({"track.wandb_project": "calls"}))


def test_figures_are_named_by_their_path_in_ascii() -> None:
    against = AgainstBaseline(baseline="linear", macro_f1=0.25, interval=(0.125, 0.5), verdict="better")
    assert figures_of(against) == {"macro_f1": 0.25}
    assert figures_of(Difference(macro_f1=float("nan"), interval=(0.0, 1.0), verdict="better")) == {}


def test_an_epoch_is_told_with_all_that_history_has() -> None:
    """What trackers read of an epoch is there in what a worker sends."""
    assert {"epoch", "val_loss", "learning_rate"} <= set(EPOCHS[0][1]) <= set(EpochRow.model_fields)
