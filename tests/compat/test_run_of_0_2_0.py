"""A run folder and models that version 0.2.0 left (README.md beside this says how): today's commands take them as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from urgency_ray import __version__, cli
from urgency_ray.config import Config, SynthesizeConfig, load_config
from urgency_ray.errors import RequestError
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.load import load_model
from urgency_ray.run_folder import RunFolder
from urgency_ray.search.journal import open_journal
from urgency_ray.search.study import begin_study
from urgency_ray.synthesize.corpus import synthesize
from urgency_ray.training.run import open_run

HERE = Path(__file__).parent
LEFT = HERE / "run_0_2_0"
PROBABILITIES = ["prob_low", "prob_mid", "prob_high"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Any:
    return str(shutil.copytree(LEFT, tmp_path / "run"))


def command(*arguments: Any) -> Any:
    """Run a command as the terminal does; its config is the run folder's own."""
    return cli.main([str(argument) for argument in arguments])


def read_json(*parts: Any) -> Any:
    return json.loads(Path(*parts).read_text(encoding="utf-8"))


def leaves(tree: Any, path: Any = ()) -> Any:
    """The values of a tree of mappings and lists, by their path."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if pairs is None:
        return {path: tree}
    return {key: value for name, part in pairs for key, value in leaves(part, (*path, name)).items()}


@pytest.fixture
def left_config() -> Config:
    return load_config(LEFT / "config.yaml")


def test_its_config_says_what_it_said_and_nothing_of_the_machine(left_config: Config) -> None:
    assert left_config.data.root == "corpus"
    assert (left_config.train.epochs, left_config.model.hidden_dim, left_config.text_encoder.hashing_dim) == (2, 16, 32)
    searched = load_config(LEFT / "tune" / "config.yaml")
    assert list(searched.tune.space) == ["train.learning_rate", "model.hidden_dim", "loss_mixture"]
    assert load_config(LEFT / "tune" / "best.yaml").model == searched.model


@pytest.mark.parametrize("model", ["model", "tune/model"])
def test_its_model_gives_the_probabilities_that_it_gave(run_dir: Any, left_config: Config, model: str) -> None:
    # The search had found nothing better than the config's own values: its model is the same.
    _, examples, splits = open_run(left_config, run_dir)
    probabilities = predict_examples(load_model(f"{run_dir}/{model}"), examples)["urgency"]
    known = pd.read_parquet(LEFT / "predictions.parquet").set_index("example_id").loc[list(examples.keys["example_id"])]
    np.testing.assert_allclose(probabilities, known[PROBABILITIES], atol=1e-5)
    for split in ("train", "val", "test"):
        assert set(np.flatnonzero(known["split"] == split)) == set(getattr(splits, split))


def test_evaluate_prints_the_figures_that_its_metrics_have(run_dir: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("evaluate", "--run-dir", run_dir) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    expected = []
    for split, tasks in read_json(LEFT, "metrics.json")["splits"].items():
        for task, block in tasks.items():
            expected += [[task, "on", split], ["class", "precision", "recall", "F1", "support"]]
            for label, row in block["per_class"].items():
                expected.append([label, *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")), str(row["support"])])
            low, high = block["macro_f1_interval"]
            expected.append(["accuracy", f"{block['accuracy']:.3f}", str(block["num_rows"])])
            expected.append(f"macro-F1 {block['macro_f1']:.3f} 95 % interval {low:.3f} to {high:.3f}".split())
    assert lines == expected


def test_report_shows_its_figures_and_its_search(run_dir: Any) -> None:
    assert command("report", "--run-dir", run_dir) == 0
    page = Path(run_dir, "report.html").read_text(encoding="utf-8")
    assert f"{read_json(LEFT, 'metrics.json')['splits']['test']['urgency']['macro_f1']:.3f}" in page
    assert f"{read_json(LEFT, 'tune', 'metrics.json')['best_score']:.3f}" in page


def test_its_model_says_the_same_of_new_calls(ray_session: None, run_dir: Any, tmp_path: Path) -> None:
    calls = tmp_path / "new-calls"
    synthesize(str(calls), SynthesizeConfig(num_calls=30, min_call_sec=4.0, max_call_sec=5.0, flaw_fraction=0.1, seed=1))
    output = tmp_path / "new.parquet"
    assert command("predict", "--model", f"{run_dir}/model", "--data.root", calls, "--output", output) == 0
    found, known = (
        pd.read_parquet(path).set_index("example_id").sort_index() for path in (output, HERE / "new_calls_0_2_0.parquet")
    )
    assert list(found.index) == list(known.index)
    np.testing.assert_allclose(found[PROBABILITIES], known[PROBABILITIES], atol=1e-5)
    assert known[PROBABILITIES].notna().all(axis=1).sum() == 28
    # Recordings are not WAVs alone any more, and the words say so.
    known["detail"] = known["detail"].str.replace("no WAV", "no recording")
    for column in ("call_id", "urgency_pred", "reason", "detail"):
        pd.testing.assert_series_equal(found[column], known[column], check_dtype=False)


def resumed(run_dir: Any, overrides: Any) -> Any:
    """The study that `tune --resume` would go on with."""
    config = load_config(Path(run_dir, "tune", "config.yaml")).replace(overrides)
    with open_journal(RunFolder(run_dir).search) as journal:
        digest = read_digest(run_dir)
        return begin_study(journal, config, digest, resume=True, run_dir=run_dir)


def read_digest(run_dir: Any) -> Any:
    lines = [json.loads(line) for line in Path(run_dir, "tune", "study.log").read_text(encoding="utf-8").splitlines()]
    return next(line["user_attr"]["data"] for line in lines if "data" in line.get("user_attr", {}))


def test_its_search_goes_on_where_only_the_extent_or_the_speed_changes(run_dir: Any) -> None:
    study = resumed(run_dir, {"tune.num_trials": 5, "tune.max_concurrent": 1})
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    with pytest.raises(RequestError, match=r"^--resume: loss\.focal_gamma: 2\.0 there, 1\.0 here; resume with the config"):
        resumed(run_dir, {"loss.focal_gamma": 1.0})


@pytest.mark.slow
def test_tune_resumes_its_search(ray_session: None, run_dir: Any) -> None:
    assert command("tune", "--run-dir", run_dir, "--resume", "--tune.num_trials", 4) == 0
    trials = pd.read_parquet(Path(run_dir, "tune", "trials.parquet"))
    pd.testing.assert_frame_equal(trials.iloc[:3], pd.read_parquet(LEFT / "tune" / "trials.parquet"), check_dtype=False)
    assert len(trials) == read_json(run_dir, "tune", "metrics.json")["num_trials"] == 4


@pytest.mark.slow
def test_train_gives_the_figures_that_it_gave(ray_session: None, run_dir: Any) -> None:
    assert command("train", "--run-dir", run_dir) == 0
    epochs, known = (pd.DataFrame(read_json(folder, "history.json")) for folder in (run_dir, LEFT))
    pd.testing.assert_frame_equal(epochs[list(known)].drop(columns="seconds"), known.drop(columns="seconds"), rtol=1e-4)
    made, left = (pd.read_parquet(Path(folder, "predictions.parquet")) for folder in (run_dir, LEFT))
    pd.testing.assert_frame_equal(made, left, atol=1e-4)
    found, known = (list(leaves(read_json(folder, "metrics.json"))) for folder in (run_dir, LEFT))
    assert [path for path in found if path in known] == known


@pytest.mark.slow
def test_it_grows_with_its_rules_and_trains(ray_session: None, run_dir: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for seed, num_calls in ((0, 40), (1, 30)):
        how = SynthesizeConfig(num_calls=num_calls, min_call_sec=4.0, max_call_sec=5.0, flaw_fraction=0.1, seed=seed)
        synthesize(str(corpus / str(seed)), how)
    left = set(pd.read_parquet(LEFT / "embeddings", columns=["call_id"])["call_id"])
    assert command("extract", "--run-dir", run_dir, "--data.root", corpus, "--data.text_rules", 1) == 0
    assert left < set(pd.read_parquet(Path(run_dir, "embeddings"), columns=["call_id"])["call_id"])
    assert command("train", "--run-dir", run_dir) == 0
    assert read_json(run_dir, "model", "config.json")["urgency_ray_version"] == __version__


def test_a_config_of_today_is_told_what_the_embeddings_were_made_with(run_dir: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path(run_dir, "recipe.yaml")
    recipe.write_text(Config().to_yaml(), encoding="utf-8")
    assert command("train", "--run-dir", run_dir, "--config", recipe) == 2
    assert "its embeddings were made with audio_encoder.l2_normalize False, not True" in capsys.readouterr().err
