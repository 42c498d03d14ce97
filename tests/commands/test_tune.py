import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fitting import run
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from shared_runs import Extracted, Searched, Share, Trained

from urgency_ray.cluster import Node
from urgency_ray.commands.tune import format_verdict, tune
from urgency_ray.config import Config, load_config
from urgency_ray.errors import RequestError, WorkError
from urgency_ray.examples.groups import group_examples
from urgency_ray.examples.splits import val_folds
from urgency_ray.fingerprint import Transform
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.load import load_model
from urgency_ray.report.page import write_report
from urgency_ray.run_folder import RunFolder
from urgency_ray.scoring.blocks import ClassificationBlock, Difference, SearchSummary, UrgencyBlocks
from urgency_ray.scoring.metrics import paired_macro_f1_difference
from urgency_ray.scoring.scores import score_splits
from urgency_ray.search import study
from urgency_ray.search.engine import num_concurrent, run_search
from urgency_ray.search.journal import open_journal
from urgency_ray.search.space import SearchSpace
from urgency_ray.training.data import TrainingData
from urgency_ray.training.epoch_progress import Told
from urgency_ray.training.fit import Epoch, build_model, fit
from urgency_ray.training.history import EpochRow
from urgency_ray.training.run import open_run
from urgency_ray.training.shared import SharedInputs
from urgency_ray.training.trainer import Job, calibrate
from urgency_ray.training.trainer import Trained as TrainedModel


@pytest.fixture(scope="module")
def searched(ray_session: None, extracted: Extracted, share: Share) -> Searched:
    """(run folder, summary, config) of a search on a copy of `extracted`; read only."""
    config = extracted[2].replace({"tune.num_trials": 5, "tune.grace_epochs": 1, "tune.startup_trials": 2})

    def search(run_dir: str) -> SearchSummary:
        return tune(config.replace({"track.mlflow_uri": f"file://{run_dir}-mlruns"}), run_dir)

    run_dir, summary = share("searched", tune, search, copy_of=extracted[0])
    assert not Path(run_dir, "model").exists(), "tune leaves what train made alone"
    return run_dir, summary, config


def train_here(jobs: list[Job], run_dir: str, transform: Transform, told: Told | None = None) -> list[TrainedModel]:
    """`train_models` in this process: to start Ray Train's five takes 10 s. `searched` goes the whole way."""
    trained = []
    for job in jobs:
        epochs = run(job.config, job.data)
        model = build_model(job.config, job.data, transform)
        model.load_state_dict(next(weights for epoch, weights in reversed(epochs) if epoch.improved))
        calibrate(job.data, model)
        trained.append(TrainedModel(model.eval(), [EpochRow.model_validate(epoch.metrics) for epoch, _ in epochs]))
    return trained


@pytest.fixture
def retrains_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urgency_ray.training.finalists.train_models", train_here)


def test_a_search_is_a_run_of_mlflow_with_one_for_each_trial(searched: Searched) -> None:
    run_dir, summary, _ = searched
    client = MlflowClient(f"file://{run_dir}-mlruns")
    (experiment,) = (each for each in client.search_experiments() if each.name == "urgency_ray")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/macro_f1"] == summary.test.macro_f1
    assert parent.data.params["tune.num_trials"] == "5"
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"best.yaml", "config.yaml", "metrics.json", "model", "trials.parquet"}
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet").set_index("number")
    below = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert set(below) == {f"trial {number}" for number in trials.index}
    best = below[f"trial {summary.best_trial}"]
    assert best.data.metrics["score"] == summary.best_score
    assert best.data.params == {field: str(value) for field, value in summary.best.items()}
    assert len(client.get_metric_history(best.info.run_id, "val_macro_f1")) == trials.loc[summary.best_trial, "epochs"]


def test_each_trial_is_accounted_for(searched: Searched) -> None:
    run_dir, summary, _ = searched
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet")
    assert len(trials) == summary.num_trials == 5
    assert summary.completed + summary.stopped + summary.failed == 5
    assert summary.failed == 0
    assert (trials.loc[trials["state"] == "completed", "epochs"] <= 4).all()
    weights = trials[["loss.kl_weight", "loss.focal_weight", "loss.cross_entropy_weight"]]
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_the_first_trial_is_the_config_itself(searched: Searched) -> None:
    run_dir, _, config = searched
    first = pd.read_parquet(f"{run_dir}/tune/trials.parquet").iloc[0]
    assert first["train.learning_rate"] == pytest.approx(config.train.learning_rate)
    assert first["loss.focal_weight"] == pytest.approx(config.loss.focal_weight)


def test_the_winner_has_the_best_validation_score_and_its_config_trains(searched: Searched) -> None:
    run_dir, summary, config = searched
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet").set_index("number")
    assert summary.best_trial == trials["val_macro_f1"].idxmax()
    best = load_config(f"{run_dir}/tune/best.yaml")
    row = trials.loc[summary.best_trial]
    assert best.train.learning_rate == row["train.learning_rate"]
    assert best.model.hidden_dim == row["model.hidden_dim"]
    assert best.data == config.data
    assert load_config(f"{run_dir}/tune/config.yaml").tune == config.tune


def test_a_trial_that_fails_cannot_win(ray_session: None, extracted: Extracted, retrains_here: None, tmp_path: Path) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    # The high rate overflows after an epoch or two, with a score already reported.
    space = {"train.learning_rate": {"type": "categorical", "choices": [1e-9, 1e30]}}
    config = extracted[2].replace(
        {"tune.space": space, "train.learning_rate": 1e-9, "train.clip_norm": None, "tune.num_trials": 4}
    )
    summary = tune(config.replace({"tune.max_concurrent": 1}), run_dir)
    assert summary.failed >= 1
    assert summary.best["train.learning_rate"] == 1e-9


def test_a_search_all_of_whose_trials_failed_has_ended(ray_session: None, extracted: Extracted, tmp_path: Path) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    space = {"train.learning_rate": {"type": "categorical", "choices": [1e30]}}
    config = extracted[2].replace({"tune.space": space, "train.clip_norm": None, "tune.num_trials": 1})
    with pytest.raises(WorkError, match=r"^all 1 trials failed; the first said: epoch \d: the training loss is nan"):
        tune(config, run_dir)
    with open_journal(RunFolder(run_dir).search) as journal:
        assert study.find_resumed(journal, resume=False, run_dir=run_dir) is None


def test_a_trial_that_fits_nowhere_is_refused(ray_session: None, extracted: Extracted) -> None:
    with pytest.raises(RequestError, match=r"tune\.cpus_per_trial: 3 CPUs fit no node of the cluster; set at most 2"):
        tune(extracted[2].replace({"tune.cpus_per_trial": 3.0}), extracted[0])


def test_the_winner_s_model_is_saved_and_scored_on_test(searched: Searched) -> None:
    run_dir, summary, config = searched
    _, examples, splits = open_run(config, run_dir)
    model = load_model(f"{run_dir}/tune/model")
    blocks = score_splits(model, predict_examples(model, examples), examples, splits, num_resamples=100, seed=0)
    assert summary.test.macro_f1 == pytest.approx(blocks["test"]["urgency"].macro_f1)


def load_study(run_dir: Any) -> Any:
    storage = JournalStorage(JournalFileBackend(f"{run_dir}/tune/study.log"))
    return optuna.load_study(study_name=optuna.get_all_study_names(storage)[-1], storage=storage)


def test_the_study_is_an_optuna_storage_that_tells_the_fields(searched: Searched) -> None:
    run_dir, _, _ = searched
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet").set_index("number")
    states = {"COMPLETE": "completed", "PRUNED": "stopped", "FAIL": "failed"}
    found = load_study(run_dir).trials
    assert [trial.number for trial in found] == list(trials.index)
    assert [states[trial.state.name] for trial in found] == trials["state"].tolist()
    assert [trial.value for trial in found] == trials["val_macro_f1"].tolist()
    assert all(math.isclose(sum(v for k, v in t.user_attrs["fields"].items() if "loss." in k), 1) for t in found)


def test_the_history_has_every_epoch_of_every_trial_and_the_best_so_far(searched: Searched) -> None:
    run_dir, _, _ = searched
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet").set_index("number")
    history = pd.read_parquet(f"{run_dir}/tune/history.parquet")
    assert history.columns.tolist() == ["trial", "epoch", "val_macro_f1", "best_val_macro_f1"]
    for number, rows in history.groupby("trial"):
        assert rows["epoch"].tolist() == list(range(1, trials["epochs"][number] + 1))
        np.testing.assert_allclose(rows["best_val_macro_f1"], rows["val_macro_f1"].cummax())
        assert rows["best_val_macro_f1"].iloc[-1] == pytest.approx(trials["val_macro_f1"][number])
    assert set(history["trial"]) == set(trials.index)
    assert (trials["seconds"] > 0).all()
    now = pd.Timestamp.now("UTC")
    assert trials["start"].between(now - pd.Timedelta("30min"), now).all()


def test_the_winner_is_set_against_the_defaults_on_the_same_test_rows(searched: Searched, trained: Trained) -> None:
    run_dir, summary, config = searched
    written = json.loads(Path(run_dir, "tune", "metrics.json").read_text(encoding="utf-8"))
    assert written == summary.model_dump(mode="json", exclude_unset=True)
    assert summary.selection_optimism == pytest.approx(summary.val.macro_f1 - summary.test.macro_f1)
    for part in ("val", "test"):
        assert getattr(summary.defaults, part) == trained[1].splits[part]["urgency"]
    _, examples, splits = open_run(config, run_dir)
    searched_calls, default_calls = (
        predict_examples(load_model(folder), examples)["urgency"].argmax(1)[splits.test]
        for folder in (f"{run_dir}/tune/model", f"{trained[0]}/model")
    )
    truth, calls = examples.urgency[splits.test], group_examples(examples.keys)[splits.test]
    expected = paired_macro_f1_difference(
        truth, searched_calls, default_calls, calls, num_resamples=config.train.bootstrap_samples, seed=0
    )
    difference = summary.difference
    assert difference is not None and summary.defaults is not None
    assert (difference.macro_f1, difference.interval) == expected
    assert difference.macro_f1 == pytest.approx(summary.test.macro_f1 - summary.defaults.test.macro_f1)
    if summary.best_trial == 0:
        assert difference.verdict == "defaults"
    else:
        assert difference.verdict == ("better" if difference.interval[0] > 0 else "not_better")


def test_a_search_that_finds_nothing_better_says_so(
    ray_session: None, extracted: Extracted, retrains_here: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    # The other rate changes no weight.
    space = {"train.learning_rate": {"type": "categorical", "choices": [1e-3, 1e-12]}}
    config = extracted[2].replace({"tune.space": space, "tune.num_trials": 2, "tune.max_concurrent": 1})
    with caplog.at_level(logging.INFO, "urgency_ray"):
        summary = tune(config.replace({"tune.ensemble": 3}), run_dir)
    assert summary.ensemble is None
    assert any("train.members is null: the winner alone is trained" in line for line in caplog.messages)
    assert summary.best == {"train.learning_rate": 1e-3}
    assert summary.difference is not None and summary.defaults is not None
    assert summary.difference.model_dump(mode="json") == {"macro_f1": 0.0, "interval": [0.0, 0.0], "verdict": "defaults"}
    assert summary.defaults.test == summary.test
    assert "the search found nothing better than the config's own values" in caplog.messages


def test_the_models_of_a_search_are_mixed_and_the_best_on_unseen_rows_is_saved(
    ray_session: None, extracted: Extracted, retrains_here: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    members = {"train.members": 3, "train.linear_member": True, "train.linear_c": 0.01, "train.epochs": 2}
    space = {"train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}
    search = {"tune.space": space, "tune.num_trials": 3, "tune.max_concurrent": 1, "tune.grace_epochs": 1, "tune.ensemble": 3}
    with caplog.at_level(logging.INFO, "urgency_ray"):
        summary = tune(extracted[2].replace(members | search), run_dir)
    mixed = summary.ensemble
    assert mixed is not None
    assert mixed.log_loss[mixed.chosen] <= mixed.log_loss["defaults"]
    assert sum(mixed.shares.values()) == pytest.approx(1)
    trials = {f"trial {number}" for number in range(3)} - {f"trial {summary.best_trial}"}
    assert mixed.shares.keys() <= {"winner", "defaults", "linear", *trials}
    assert any(f"the model saved is that of {mixed.chosen}" in line for line in caplog.messages)
    found = {"ensemble": mixed.test.macro_f1, "defaults": summary.defaults and summary.defaults.test.macro_f1}
    assert summary.test.macro_f1 == found.get(mixed.chosen, summary.best_score - summary.selection_optimism)
    saved = load_model(f"{run_dir}/tune/model")
    assert isinstance(saved, UrgencyEnsemble)
    names = len(mixed.shares) if mixed.chosen == "ensemble" else 2
    assert len(saved.members) == 3 * names
    assert Path(write_report(run_dir)).read_text(encoding="utf-8").count("The models of the search as one") == 1


def test_members_of_different_folds_are_not_mixed(tmp_path: Path) -> None:
    space = {"train.members": {"type": "categorical", "choices": [3, 5]}}
    with pytest.raises(RequestError, match=r"tune\.ensemble: mixes members of the same folds: take train\.members out"):
        tune(Config().replace({"tune.ensemble": 3, "train.members": 5, "tune.space": space}), str(tmp_path))


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"macro_f1": 0.04, "interval": [0.01, 0.07], "verdict": "better"}, "better beyond noise, +0.040 on test"),
        ({"macro_f1": 0.04, "interval": [-0.01, 0.09], "verdict": "not_better"}, "not better beyond noise, +0.040 on test"),
    ],
)
def test_the_verdict_is_put_in_words(difference: dict[str, Any], words: str) -> None:
    block = ClassificationBlock.model_construct(macro_f1=0.5)
    summary = SearchSummary.model_construct(
        num_trials=9,
        best_score=0.6,
        test=block,
        defaults=UrgencyBlocks.model_construct(test=block),
        difference=Difference.model_construct(**difference),
    )
    first, second = format_verdict(summary)
    assert first == "best of 9 trials: validation macro-F1 0.600, test 0.500"
    assert words in second


@pytest.fixture(scope="module")
def one_trial(ray_session: None, extracted: Extracted, share: Share) -> Any:
    """(run folder, summary, config) of a search of one trial, of four trainings; read only."""
    trial = {"train.epochs": 2, "tune.folds": 2, "tune.repeats": 2, "train.bootstrap_samples": 100}
    config = extracted[2].replace(trial | {"tune.num_trials": 1, "tune.grace_epochs": 1, "tune.max_concurrent": 1})

    def make(run_dir: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("urgency_ray.training.finalists.train_models", train_here)
            return tune(config, run_dir)

    return *share("one_trial", tune, make, copy_of=extracted[0]), config


def test_a_trial_s_score_is_the_mean_over_folds_and_seeds(one_trial: Searched) -> None:
    run_dir, summary, config = one_trial
    (row,) = pd.read_parquet(f"{run_dir}/tune/trials.parquet").to_dict("records")
    _, examples, splits = open_run(config, run_dir)
    best = []
    for fold in val_folds(examples, splits, config.split, 2, "tune.folds"):
        for seed in (0, 1):
            epochs: list[Epoch] = []
            fit(config.replace({"train.seed": seed}), TrainingData.from_examples(examples, fold), epochs.append)
            best.append(max(epoch.metrics["val_macro_f1"] for epoch in epochs))
    assert row["val_macro_f1"] == pytest.approx(np.mean(best), abs=0.02)
    assert row["val_macro_f1_std"] == pytest.approx(np.std(best, ddof=1), abs=0.02)
    assert summary.best_score == row["val_macro_f1"]


Interrupted = tuple[str, Config, dict[str, Any]]


@pytest.fixture
def interrupted(one_trial: Searched, tmp_path: Path) -> Interrupted:
    """(run folder, config, fields of the second trial) of a search whose driver died while its second trial ran."""
    run_dir, config = str(shutil.copytree(one_trial[0], tmp_path / "run")), one_trial[2]
    study = load_study(run_dir)
    study.set_user_attr("ended", False)
    study.enqueue_trial({"model.dropout": 0.123})
    trial = study.ask()
    SearchSpace(config.tune.space)(trial)
    trial.report(0.9, 1)
    return run_dir, config.replace({"tune.num_trials": 3}), trial.user_attrs["fields"]


def test_an_interrupted_search_goes_on_with_the_trial_that_it_had_begun(
    ray_session: None, interrupted: Interrupted, retrains_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, config, fields = interrupted
    first = load_study(run_dir).trials[0]
    assert Path(run_dir, "tune", "metrics.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr("urgency_ray.commands.tune.train_finalists", Mock(side_effect=RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            tune(config, run_dir, resume=True)
    assert not Path(run_dir, "tune", "metrics.json").exists(), "figures of one trial are none of three"
    summary = tune(config, run_dir, resume=True)
    assert summary.num_trials == 3
    trials = load_study(run_dir).trials
    assert trials[0] == first
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert all(trial.state.is_finished() for trial in trials)
    assert trials[1].user_attrs["fields"] == fields
    assert fields["model.dropout"] == 0.123
    assert len({trial.params["train.learning_rate"] for trial in trials}) == 3, "what was drawn is not drawn again"
    more = tune(config.replace({"tune.num_trials": 4}), run_dir, resume=True)
    assert more.num_trials == 4
    assert load_study(run_dir).trials[:3] == trials


def test_what_a_search_cannot_go_on_with_is_refused(ray_session: None, interrupted: Interrupted, tmp_path: Path) -> None:
    run_dir, config, _ = interrupted
    with pytest.raises(RequestError, match="holds a search that has not ended; go on with it by --resume, or delete"):
        tune(config, run_dir)
    with pytest.raises(RequestError, match=r"--resume: tune\.grace_epochs: 1 there, 2 here; resume with the config"):
        tune(config.replace({"tune.grace_epochs": 2}), run_dir, resume=True)
    with pytest.raises(RequestError, match=r"--resume: split\.seed: 0 there, 5 here"):
        tune(config.replace({"split.seed": 5}), run_dir, resume=True)
    for path in Path(run_dir, "embeddings").rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        if "duration_sec" in table.column_names and table["duration_sec"].null_count < len(table):
            longer = pc.add(table["duration_sec"], 1.0).cast(pa.float32())
            pq.write_table(table.set_column(table.schema.get_field_index("duration_sec"), "duration_sec", longer), path)
    with pytest.raises(
        RequestError, match=r"--resume: the embeddings or labels in .* are not those that the search began with"
    ):
        tune(config, run_dir, resume=True)
    assert len(load_study(run_dir).trials) == 2
    shutil.rmtree(Path(run_dir, "tune"))
    with pytest.raises(RequestError, match=r"--resume: .* holds no search; start one without --resume"):
        tune(config, run_dir, resume=True)


def test_a_time_budget_ends_the_search_and_counts_what_was_spent(
    ray_session: None, extracted: Extracted, tmp_path: Path
) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    config = extracted[2].replace({"train.epochs": 2000, "train.early_stop_epochs": None, "tune.time_budget_sec": 8.0})
    config = config.replace({"tune.num_trials": 4, "tune.grace_epochs": 2000, "train.epochs": 2000})
    folder = RunFolder(run_dir).search
    with open_journal(folder) as journal:
        begun = study.begin_study(journal, config, "data", resume=False, run_dir=run_dir)
        _, examples, splits = open_run(config, run_dir)
        data = TrainingData.from_examples(examples, splits)
        arguments: dict[str, Any] = {"study": begun, "journal": journal, "folder": folder}
        run_search(config, SharedInputs(config.ray).share(data), [(splits.train, splits.val)], **arguments)
        table = study.trials_table(begun, config)
        assert set(table["state"]) == {"stopped"}
        assert (table["epochs"] < 2000).all()
        # Processes that start on a busy machine take their time on top of the budget.
        assert 2 < begun.user_attrs["seconds"] < 60
        run_search(config, SharedInputs(config.ray).share(data), [(splits.train, splits.val)], **arguments)
        assert len(study.trials_table(begun, config)) == len(table), "the budget is spent"


def test_a_time_budget_too_short_for_an_epoch_is_named(ray_session: None, extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    with pytest.raises(
        RequestError, match=r"^tune\.time_budget_sec: 0\.001 s were over before the first epoch of a trial; raise it"
    ):
        tune(extracted[2].replace({"tune.time_budget_sec": 0.001}), str(run_dir))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tune.gpus_per_trial": 0.5}, r"tune\.gpus_per_trial: 0\.5 GPUs, but the cluster has 0"),
        ({"tune.workers_per_trial": 3}, r"tune\.workers_per_trial: 3 workers of 1 CPUs do not fit the cluster, which holds 2"),
    ],
)
def test_what_the_cluster_does_not_hold_is_refused(
    ray_session: None, extracted: Extracted, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        tune(extracted[2].replace(fields), extracted[0])


def test_gpus_and_cpus_of_a_trial_are_of_the_same_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urgency_ray.search.engine.cluster.nodes", lambda: [Node(2, 4), Node(64)])
    config = Config().replace({"tune.gpus_per_trial": 0.5})
    assert num_concurrent(config) == 2
    assert num_concurrent(config.replace({"tune.cpus_per_trial": 0.25})) == 8
    with pytest.raises(RequestError, match=r"tune\.gpus_per_trial: 0\.5 GPUs, but the cluster has 4, and no node that many"):
        num_concurrent(config.replace({"tune.cpus_per_trial": 4}))


@pytest.mark.slow
def test_trials_of_two_workers_fill_the_cluster_and_end(ray_session: None, extracted: Extracted, tmp_path: Path) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    config = extracted[2].replace({"tune.num_trials": 2, "train.epochs": 2, "tune.grace_epochs": 1, "train.num_workers": 2})
    config = config.replace({"train.batch_size": 16, "model.dropout": 0.0, "model.encoder_dropout": 0.0})
    del_dropout = {name: value for name, value in config.model_dump()["tune"]["space"].items() if name != "model.dropout"}
    config = config.replace({"tune.space": del_dropout})
    two = tune(config.replace({"tune.workers_per_trial": 2}), run_dir)
    assert (two.num_trials, two.failed) == (2, 0)
    history = pd.read_parquet(f"{run_dir}/tune/history.parquet")
    assert tune(config, run_dir).failed == 0
    alone = pd.read_parquet(f"{run_dir}/tune/history.parquet")
    # One process that sees the batches of both gives the same score; ASHA may stop the trial in one of the searches.
    scores = [table.query("trial == 0 and epoch == 1")["val_macro_f1"].item() for table in (history, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
