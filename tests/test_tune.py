import math
import shutil
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from urgency_ray.config import ConfigError, load_config
from urgency_ray.evaluate import predict_examples, score_splits
from urgency_ray.model import load_model
from urgency_ray.train import prepare
from urgency_ray.tune import tune


@pytest.fixture(scope="module")
def searched(ray_session, extracted, tmp_path_factory):
    run_dir = str(shutil.copytree(extracted[0], tmp_path_factory.mktemp("searched") / "run"))
    config = extracted[2].replace({"tune.num_trials": 5, "tune.grace_epochs": 1, "tune.startup_trials": 2})
    return run_dir, tune(config, run_dir), config


def test_each_trial_is_accounted_for(searched):
    run_dir, summary, _ = searched
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet")
    assert len(trials) == summary["num_trials"] == 5
    assert summary["completed"] + summary["stopped"] + summary["failed"] == 5
    assert summary["failed"] == 0
    assert (trials.loc[trials["state"] == "completed", "epochs"] <= 4).all()
    weights = trials[["loss.kl_weight", "loss.focal_weight", "loss.cross_entropy_weight"]]
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_the_first_trial_is_the_config_itself(searched):
    run_dir, _, config = searched
    first = pd.read_parquet(f"{run_dir}/tune/trials.parquet").iloc[0]
    assert first["train.learning_rate"] == pytest.approx(config.train.learning_rate)
    assert first["loss.focal_weight"] == pytest.approx(config.loss.focal_weight)


def test_the_winner_has_the_best_validation_score_and_its_config_trains(searched):
    run_dir, summary, config = searched
    trials = pd.read_parquet(f"{run_dir}/tune/trials.parquet").set_index("number")
    assert summary["best_trial"] == trials["val_macro_f1"].idxmax()
    best = load_config(f"{run_dir}/tune/best.yaml")
    row = trials.loc[summary["best_trial"]]
    assert best.train.learning_rate == row["train.learning_rate"]
    assert best.model.hidden_dim == row["model.hidden_dim"]
    assert best.data == config.data


def test_a_trial_that_fails_cannot_win(ray_session, extracted, tmp_path):
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    # The high rate overflows after an epoch or two, with a score already reported.
    space = {"train.learning_rate": {"type": "categorical", "choices": [1e-9, 1e30]}}
    config = extracted[2].replace(
        {"tune.space": space, "train.learning_rate": 1e-9, "train.clip_norm": None, "tune.num_trials": 4}
    )
    summary = tune(config.replace({"tune.max_concurrent": 1}), run_dir)
    assert summary["failed"] >= 1
    assert summary["best"]["train.learning_rate"] == 1e-9


def test_a_trial_that_fits_nowhere_is_refused(ray_session, extracted):
    with pytest.raises(ConfigError, match=r"tune\.cpus_per_trial: 3 CPUs fit no node of the cluster; set at most 2"):
        tune(extracted[2].replace({"tune.cpus_per_trial": 3.0}), extracted[0])


def test_the_winner_s_model_is_saved_and_scored_on_test(searched):
    run_dir, summary, config = searched
    _, examples, splits = prepare(config, run_dir)
    model = load_model(f"{run_dir}/tune/model")
    blocks = score_splits(model, predict_examples(model, examples), examples, splits, num_resamples=100, seed=0)
    assert summary["test"]["macro_f1"] == pytest.approx(blocks["test"]["urgency"]["macro_f1"])
    assert not Path(run_dir, "model").exists(), "tune leaves what train made alone"


def test_the_study_is_an_optuna_storage_that_tells_the_fields(searched):
    run_dir, _, _ = searched
    storage = JournalStorage(JournalFileBackend(f"{run_dir}/tune/study.log"))
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    finished = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(finished) == 5
    assert max(trial.value for trial in finished) == pytest.approx(
        pd.read_parquet(f"{run_dir}/tune/trials.parquet")["val_macro_f1"].max()
    )
    assert all(math.isclose(sum(v for k, v in t.user_attrs["fields"].items() if "loss." in k), 1) for t in finished)
