"""A fine-tuned model through the commands: train, evaluate, predict, tune, on run folders made by extract."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from shared_runs import Extracted, KnownCorpus, Share, Trained
from sklearn.metrics import f1_score
from tiny_checkpoints import save_audio_checkpoint, save_text_checkpoint

from urgency_ray.cli import main
from urgency_ray.commands.evaluate import evaluate_run
from urgency_ray.commands.predict import predict
from urgency_ray.commands.train import train
from urgency_ray.commands.tune import tune
from urgency_ray.config import Config, load_config
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import load_examples, load_transcripts
from urgency_ray.model.load import load_model
from urgency_ray.model.text_trunk import KoElectraCrossModal
from urgency_ray.scoring.blocks import Metrics
from urgency_ray.search.space import check_space

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def finetuned(ray_session: None, extracted: Extracted, share: Share) -> Trained:
    """(run folder, metrics, config) of a model whose checkpoint is gone by now; read only."""

    def config_of(run_dir: str) -> Config:
        changes = {"model.name": "cross_modal", "model.max_tokens": 24, "train.epochs": 2}
        return extracted[2].replace(changes | {"model.text_encoder": str(Path(run_dir).parent / "electra")})

    def make(run_dir: str) -> Metrics:
        config = config_of(run_dir)
        assert save_text_checkpoint(Path(run_dir).parent, "electra") == config.model.text_encoder
        metrics = train(config, run_dir)
        shutil.rmtree(config.model.text_encoder)
        return metrics

    run_dir, metrics = share("finetuned", train, make, copy_of=extracted[0])
    return run_dir, metrics, config_of(run_dir)


def test_transcripts_come_in_the_order_of_the_examples(extracted: Extracted) -> None:
    run_dir, _, _ = extracted
    rows = pd.concat(pq.read_table(path).to_pandas() for path in Path(run_dir, "embeddings/status=embedded").glob("*.parquet"))
    texts = rows.set_index("example_id")["text"]
    assert load_transcripts(run_dir).to_pylist() == texts[load_examples(run_dir).keys["example_id"]].tolist()


def test_evaluate_gives_the_figures_of_training_without_the_checkpoint(finetuned: Trained) -> None:
    run_dir, metrics, config = finetuned
    assert evaluate_run(config, run_dir).splits == metrics.splits
    assert evaluate_run(config.replace({"model.text_encoder": None, "model.name": "concat"}), run_dir).splits == metrics.splits


def test_the_best_epoch_s_score_is_that_of_the_saved_predictions(finetuned: Trained) -> None:
    run_dir, _, _ = finetuned
    history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    rows = pq.read_table(f"{run_dir}/predictions.parquet").to_pandas().query("split == 'val'")
    score = f1_score(rows["urgency"], rows["urgency_pred"], average="macro", labels=[0, 1, 2], zero_division=0)
    assert score == pytest.approx(max(row["val_score"] for row in history))
    assert "trained as a part of it" in Path(run_dir, "model", "README.md").read_text(encoding="utf-8")


def test_predict_gives_the_run_s_own_probabilities_and_says_what_was_cut(
    finetuned: Trained, corpus: KnownCorpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, _, _ = finetuned
    output = tmp_path / "new.parquet"
    with caplog.at_level("INFO", logger="urgency_ray"):
        predict(Config().replace({"data.root": str(corpus[0])}), f"{run_dir}/model", str(output))
    frame = pd.read_parquet(output).dropna(subset="prob_high").set_index("example_id")
    known = pd.read_parquet(f"{run_dir}/predictions.parquet").set_index("example_id")
    assert len(known) > 80
    for name in ("prob_low", "prob_mid", "prob_high"):
        np.testing.assert_allclose(frame.loc[known.index, name], known[name], atol=1e-5)
    texts = load_transcripts(run_dir).to_pylist()
    lengths = [len(ids) for ids in load_model(f"{run_dir}/model").tokenizer(texts, verbose=False)["input_ids"]]
    # Calls without an urgency are no rows of the run, but are predicted.
    cut = next(line for line in caplog.messages if "model.max_tokens" in line)
    at_least = sum(length > 24 for length in lengths)
    assert at_least > 0
    assert int(cut.split()[0]) >= at_least
    assert not any(text[:10] in line for text in texts for line in caplog.messages), "no transcript in the log"


def test_the_encoder_and_its_tokens_cannot_be_searched(finetuned: Trained) -> None:
    _, _, config = finetuned
    space = {"model.max_tokens": {"type": "int", "low": 8, "high": 64}}
    with pytest.raises(RequestError, match=r"model\.max_tokens cannot be searched"):
        check_space(config.replace({"tune.space": space}))


@pytest.mark.nightly
def test_tune_searches_over_a_fine_tuned_model(ray_session: None, extracted: Extracted, tmp_path: Path) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    checkpoint = save_text_checkpoint(tmp_path, "electra")
    space = {
        "train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "model.trainable_layers": {"type": "categorical", "choices": [0, 1, 2]},
    }
    fields = {"model.name": "cross_modal", "model.text_encoder": checkpoint, "model.trainable_layers": 1, "tune.space": space}
    summary = tune(extracted[2].replace(fields | {"tune.num_trials": 3, "train.epochs": 2}), run_dir)
    assert (summary.num_trials, summary.failed) == (3, 0)
    assert load_model(f"{run_dir}/tune/model").config.trainable_layers == summary.best["model.trainable_layers"]


@pytest.mark.nightly
def test_ablation_trains_audio_without_the_encoder_and_text_without_audio(
    ray_session: None, finetuned: Trained, tmp_path: Path
) -> None:
    run_dir = str(shutil.copytree(finetuned[0], tmp_path / "run"))
    checkpoint = save_text_checkpoint(tmp_path, "electra")
    fields = {
        "model.text_encoder": checkpoint,
        "model.trainable_layers": 1,
        "model.modalities": "audio",
        "train.ablation": True,
    }
    config = finetuned[2].replace(fields)
    metrics = train(config, run_dir)
    assert metrics.ablation is not None
    assert list(metrics.ablation) == ["audio", "fused", "text"]
    model = load_model(f"{run_dir}/model")
    assert (model.config.modalities, model.tokenizer) == ("audio", None)
    shutil.rmtree(checkpoint)
    assert evaluate_run(config, run_dir).splits == metrics.splits


@pytest.mark.slow
def test_the_shipped_recipe_trains_from_extract_on(
    ray_session: None, corpus: KnownCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = str(tmp_path / "run")
    names = {
        "audio_encoder.name": save_audio_checkpoint(tmp_path, "wav2vec2_layer"),
        "model.text_encoder": save_text_checkpoint(tmp_path, "electra"),
        "data.root": str(corpus[0]),
        "train.epochs": "1",
    }
    options = ["--config", str(CONFIGS / "urgency_detect.yaml"), "--run-dir", run_dir]
    options += [part for name, value in names.items() for part in (f"--{name}", value)]
    assert main(["extract", *options]) == 0
    assert main(["train", *options]) == 0
    metrics = json.loads(Path(run_dir, "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["splits"]["test"]) == {"urgency", "sentiment"}
    model = load_model(f"{run_dir}/model")
    recipe = load_config(CONFIGS / "urgency_detect.yaml", {"model.text_encoder": names["model.text_encoder"]})
    assert model.config == recipe.model
    assert isinstance(model.trunk, KoElectraCrossModal)
    assert model.trunk.text_encoder.config.model_type == "electra"
