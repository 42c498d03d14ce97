import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shared_runs import Extracted, Share, Trained
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from urgency_ray.cli import main
from urgency_ray.cluster import Node
from urgency_ray.commands.evaluate import evaluate_run
from urgency_ray.commands.train import format_scores, train
from urgency_ray.config import Config
from urgency_ray.errors import RequestError, WorkError
from urgency_ray.examples.dataset import load_examples
from urgency_ray.examples.splits import fold_splits, split_examples, val_folds
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.load import load_model
from urgency_ray.report.page import write_report
from urgency_ray.schema import METADATA_KEY, PREDICTION_SCHEMA
from urgency_ray.scoring.blocks import ClassificationBlock, CrossValidation, Metrics
from urgency_ray.training import trainer, worker
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model, fit
from urgency_ray.training.run import open_run
from urgency_ray.training.trainer import plan_workers


def test_metrics_are_those_of_the_predictions_by_scikit_learn(trained: Trained) -> None:
    run_dir, metrics, _ = trained
    predictions = pq.read_table(f"{run_dir}/predictions.parquet").to_pandas()
    assert set(metrics.splits) == {"val", "test"}
    for name, tasks in metrics.splits.items():
        rows = predictions[predictions["split"] == name]
        block = tasks["urgency"]
        assert block.num_rows == len(rows)
        truth, called = rows["urgency"], rows["urgency_pred"]
        assert block.accuracy == pytest.approx(accuracy_score(truth, called))
        assert block.macro_f1 == pytest.approx(f1_score(truth, called, average="macro", labels=[0, 1, 2], zero_division=0))
        assert block.confusion == confusion_matrix(truth, called, labels=[0, 1, 2]).tolist()
        assert block.macro_f1_interval[0] <= block.macro_f1 <= block.macro_f1_interval[1]
    written = json.loads(Path(run_dir, "metrics.json").read_text(encoding="utf-8"))
    assert written == metrics.model_dump(mode="json", exclude_unset=True)
    assert metrics.warnings == []


def test_the_scores_are_printed_a_line_for_each_split_and_task_and_one_for_the_folds() -> None:
    block = ClassificationBlock.model_construct(macro_f1=0.61, macro_f1_interval=(0.5, 0.7), accuracy=0.6543, num_rows=1200)
    splits = {"val": {"urgency": block}, "test": {"urgency": block, "sentiment": block}}
    figures = "macro-F1 0.610 (95 % 0.500 to 0.700), accuracy 0.654, n 1,200"
    lines = [f"val  urgency   {figures}", f"test urgency   {figures}", f"test sentiment {figures}"]
    assert format_scores(Metrics.model_construct(splits=splits)).splitlines() == lines
    folds = CrossValidation.model_construct(each=[None] * 5, macro_f1_mean=0.6, macro_f1_std=0.02, pooled=block)
    last = "folds urgency   macro-F1 0.600 ± 0.020 (standard deviation) over 5 folds, n 1,200"
    assert format_scores(Metrics.model_construct(splits=splits, folds=folds)).splitlines() == [*lines, last]


def test_predictions_follow_the_contract(trained: Trained) -> None:
    run_dir, _, _ = trained
    table = pq.read_table(f"{run_dir}/predictions.parquet")
    assert table.schema.equals(PREDICTION_SCHEMA)
    frame = table.to_pandas()
    probs = frame[["prob_low", "prob_mid", "prob_high"]].to_numpy()
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs.argmax(1) == frame["urgency_pred"]).all()
    assert set(frame["split"]) == {"train", "val", "test"}


def test_the_provider_s_validation_part_is_what_is_tested(trained: Trained) -> None:
    run_dir, _, config = trained
    examples = load_examples(run_dir)
    splits = split_examples(examples, config.split)
    provider = examples.keys["provider_split"].to_numpy()
    assert set(provider[splits.test]) == {"validation"}
    assert set(provider[splits.train]) == {"training"}


def test_the_saved_model_is_that_of_the_best_epoch(trained: Trained) -> None:
    run_dir, metrics, _ = trained
    history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    assert [(row["modalities"], row["epoch"]) for row in history] == [
        (m, e) for m in ("fused", "audio", "text") for e in (1, 2, 3, 4)
    ]
    assert metrics.splits["val"]["urgency"].macro_f1 == pytest.approx(max(row["val_macro_f1"] for row in history[:4]))
    model = load_model(f"{run_dir}/model")
    table = pq.read_table(f"{run_dir}/predictions.parquet").to_pandas()
    probs = predict_examples(model, load_examples(run_dir))["urgency"]
    np.testing.assert_allclose(probs[:, 2], table["prob_high"], atol=1e-6)
    assert "macro-F1" in Path(run_dir, "model", "README.md").read_text(encoding="utf-8")


def test_the_model_folder_alone_gives_the_probabilities_of_the_run_in_a_fresh_process(trained: Trained, tmp_path: Path) -> None:
    run_dir, _, _ = trained
    shutil.copytree(Path(run_dir, "model"), tmp_path / "model")
    examples = load_examples(run_dir)
    np.savez(tmp_path / "rows.npz", audio=examples.audio, text=examples.text, acoustic=examples.acoustic)
    code = """
import numpy as np, torch
from urgency_ray.model import Batch, UrgencyClassifier
model, rows = UrgencyClassifier.from_pretrained("model"), np.load("rows.npz")
with torch.inference_mode():
    logits = model(Batch(*(torch.from_numpy(rows[name]) for name in ("audio", "text", "acoustic"))))
    np.save("probs.npy", model.probabilities(logits)["urgency"])
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120, capture_output=True)
    table = pq.read_table(f"{run_dir}/predictions.parquet").to_pandas()
    expected = table[["prob_low", "prob_mid", "prob_high"]].to_numpy()
    np.testing.assert_allclose(np.load(tmp_path / "probs.npy"), expected, atol=1e-5)


def test_training_leaves_tensorboard_curves_of_each_model(trained: Trained) -> None:
    folder = Path(trained[0], "tensorboard")
    assert {path.parent.name for path in folder.rglob("*tfevents*")} == {"fused", "audio", "text"}


def test_evaluate_gives_the_same_figures(trained: Trained) -> None:
    run_dir, metrics, config = trained
    assert evaluate_run(config, run_dir) == (metrics.splits, None)


def test_evaluate_refuses_another_split(trained: Trained) -> None:
    run_dir, _, config = trained
    with pytest.raises(RequestError, match="trained on another split"):
        evaluate_run(config.replace({"split.seed": 5}), run_dir)


@pytest.fixture(scope="module")
def unmoved(ray_session: None, extracted: Extracted, share: Share) -> Any:
    """(run folder, metrics, log) of a training that leaves the weights alone, on calls of one transcript; read only.

    By a recipe that says nothing of the data, as a user would give it to train.
    """
    # With so small a learning rate every epoch predicts the same.
    changes = {"train.learning_rate": 1e-12, "train.weight_decay": 0.0, "train.epochs": 3, "train.num_workers": 1}
    config = extracted[2].replace(changes | {"data.root": None, "data.max_call_sec": 100.0})

    def make(run_dir: Any) -> Any:
        for path in Path(run_dir, "embeddings").rglob("*.parquet"):
            table = pq.read_table(path, partitioning=None)
            same = pa.array(["여기 삼 층 건물에서 검은 연기가 올라오고 있고 사람이 안에 있어요 빨리 와 주세요"] * len(table))
            pq.write_table(table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), same), path)
        handler, logger = logging.FileHandler(Path(run_dir).parent / "log", encoding="utf-8"), logging.getLogger("urgency_ray")
        logger.addHandler(handler)
        try:
            return train(config, run_dir)
        finally:
            logger.removeHandler(handler)
            handler.close()

    run_dir, metrics = share("unmoved", train, make, copy_of=extracted[0])
    return run_dir, metrics, (Path(run_dir).parent / "log").read_text(encoding="utf-8")


def test_of_equal_scores_the_first_epoch_counts(unmoved: Any) -> None:
    run_dir, _, _ = unmoved
    history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    assert len({row["val_macro_f1"] for row in history}) == 1
    (path,) = Path(run_dir, "checkpoints").rglob("state.pt")
    state = torch.load(path, weights_only=True)
    assert (len(state["history"]), state["best_epoch"]) == (3, 1)
    saved = load_model(f"{run_dir}/model").state_dict()
    assert saved.pop("temperature")[0] != 1  # fitted when the training was over
    assert all(torch.equal(value, state["best_model"][name]) for name, value in saved.items())
    # Biases that began at 0 have moved since.
    assert not all(torch.equal(value, state["model"][name]) for name, value in saved.items())


def test_the_model_s_transform_is_what_made_the_embeddings(extracted: Extracted, unmoved: Any) -> None:
    assert load_model(f"{unmoved[0]}/model").transform["data"]["max_call_sec"] == extracted[2].data.max_call_sec


def test_the_latest_checkpoints_are_kept_and_hold_the_best_epoch(
    ray_session: None, extracted: Extracted, tmp_path: Path
) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    changes = {"train.epochs": 8, "train.learning_rate": 3e-4, "train.keep_checkpoints": 2, "train.checkpoint_epochs": 3}
    train(extracted[2].replace(changes | {"train.num_workers": 1}), run_dir)
    history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    scores = [0.0, *(row["val_score"] for row in history)]
    improved = [epoch for epoch in range(1, 9) if scores[epoch] > max(scores[:epoch])]
    states = [torch.load(path, weights_only=True) for path in Path(run_dir, "checkpoints").rglob("state.pt")]
    # Epochs of milliseconds improve sooner than a checkpoint is due for that.
    assert sorted(len(state["history"]) for state in states) == [6, 8]
    last = max(states, key=lambda state: len(state["history"]))
    assert last["best_epoch"] == improved[-1]
    weights = load_model(f"{run_dir}/model").state_dict()
    assert all(torch.equal(weights[name], value) for name, value in last["best_model"].items() if name != "temperature")


def test_a_loss_that_is_not_finite_ends_the_command_with_one_line(
    ray_session: None, extracted: Extracted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    options = ["--train.learning_rate", "1e30", "--train.clip_norm", "null", "--train.epochs", "3"]
    assert main(["train", "--run-dir", run_dir, *options]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"error: epoch \d: the (training|validation) loss is (nan|inf); try a lower train.learning_rate", last)
    assert not Path(run_dir, "metrics.json").exists()


def test_ablation_trains_each_modality_and_keeps_the_fused_model(trained: Trained) -> None:
    run_dir, metrics, _ = trained
    assert metrics.ablation is not None
    assert list(metrics.ablation) == ["fused", "audio", "text"]
    assert metrics.ablation["fused"] == metrics.splits["test"]["urgency"]
    assert metrics.ablation["audio"] != metrics.ablation["text"]
    assert load_model(f"{run_dir}/model").config.modalities == "fused"


@pytest.mark.slow
def test_folds_score_each_row_by_a_model_that_has_not_seen_it(ray_session: None, extracted: Extracted, tmp_path: Path) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    config = extracted[2].replace({"train.epochs": 2, "train.folds": 2})
    metrics = train(config, run_dir)
    examples = load_examples(run_dir)
    folds = fold_splits(examples, config.split, 2)
    found = metrics.folds
    assert found is not None
    assert [fold.num_rows for fold in found.each] == [len(splits.test) for splits in folds]
    scores = [fold.macro_f1 for fold in found.each]
    assert (found.macro_f1_mean, found.macro_f1_std) == pytest.approx((np.mean(scores), np.std(scores, ddof=1)))
    assert found.pooled.num_rows == sum(examples.keys["provider_split"] == "training")
    # Each fold's own model, on its held-out rows, gives that fold's figure and its part of the pooled ones.
    confusion = np.zeros((3, 3), int)
    results = {path.stem: path for path in Path(run_dir, "checkpoints").glob("*/results/*.pt")}
    assert sorted(results) == ["fold-1", "fold-2", "fused"]
    for number, (splits, score) in enumerate(zip(folds, scores, strict=True), start=1):
        model = build_model(config, TrainingData.from_examples(examples, splits))
        model.load_state_dict(torch.load(results[f"fold-{number}"], weights_only=True)["best_model"])
        called = predict_examples(model, examples)["urgency"].argmax(1)[splits.test]
        truth = examples.urgency[splits.test]
        assert score == pytest.approx(f1_score(truth, called, average="macro", labels=[0, 1, 2], zero_division=0))
        confusion += confusion_matrix(truth, called, labels=[0, 1, 2])
    assert found.pooled.confusion == confusion.tolist()
    assert set(metrics.splits) == {"val", "test"}


def test_a_leak_is_logged_and_kept_with_the_figures(unmoved: Any) -> None:
    _, metrics, log = unmoved
    size = metrics.splits["test"]["urgency"].num_rows
    expected = (
        f"possible leak: {size} of {size} test rows have the same transcript as a row of train or val; their scores flatter"
    )
    assert metrics.warnings[-1] == expected
    assert f"warning: {expected}" in log.splitlines()
    assert "연기" not in log


@pytest.fixture(scope="module")
def ensemble(ray_session: None, extracted: Extracted, share: Share) -> Trained:
    """(run folder, metrics, config) of an ensemble of two folds, of a fusion model and a linear one each; read only.

    The fusion models learn both tasks and are picked by both, as UrgencyDetect's are; linear ones learn urgency alone.
    """
    members = {"train.members": 2, "train.linear_member": True, "train.baselines": True}
    both_tasks = {"loss.sentiment_weight": 0.4, "train.select_by": "mean_of_tasks", "train.epochs": 2}
    config = extracted[2].replace(both_tasks | members)
    return *share("ensemble", train, lambda run_dir: train(config, run_dir), copy_of=extracted[0]), config


def test_an_ensemble_judges_each_row_of_train_and_val_by_members_that_have_not_seen_it(ensemble: Trained) -> None:
    run_dir, metrics, config = ensemble
    predictions = pq.read_table(f"{run_dir}/predictions.parquet").to_pandas()
    examples = load_examples(run_dir)
    splits = split_examples(examples, config.split)
    assert (predictions["split"] == "val").sum() == len(splits.train) + len(splits.val)
    model = load_model(f"{run_dir}/model")
    assert isinstance(model, UrgencyEnsemble)
    assert [(m.model.name, m.fold) for m in model.ensemble.members] == [
        (name, fold) for name in ("cross_attention", "linear") for fold in (0, 1)
    ]
    probs = predictions[["prob_low", "prob_mid", "prob_high"]].to_numpy()
    for number, fold in enumerate(val_folds(examples, splits, config.split, 2, "")):
        others = predict_examples(model.held_out(number), examples, fold.val)["urgency"]
        np.testing.assert_allclose(probs[fold.val], others, atol=1e-6)
    np.testing.assert_allclose(probs[splits.test], predict_examples(model, examples, splits.test)["urgency"], atol=1e-6)
    rows = predictions[predictions["split"] == "val"]
    expected = f1_score(rows["urgency"], rows["urgency_pred"], average="macro", labels=[0, 1, 2], zero_division=0)
    assert metrics.splits["val"]["urgency"].macro_f1 == pytest.approx(expected)


def test_an_ensemble_is_evaluated_to_the_same_figures(ensemble: Trained) -> None:
    run_dir, metrics, config = ensemble
    assert evaluate_run(config, run_dir) == (metrics.splits, None)


def test_an_ensemble_s_curves_card_and_report_tell_its_members(ensemble: Trained, tmp_path: Path) -> None:
    run_dir, metrics, _ = ensemble
    history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    assert [(row["member"], row["epoch"]) for row in history] == [
        *((f"cross_attention-{fold}", epoch) for fold in (0, 1) for epoch in (1, 2)),
        *((f"linear-{fold}", 1) for fold in (0, 1)),
    ]
    names = {f"fused-{kind}-{fold}" for kind in ("cross_attention", "linear") for fold in (0, 1)}
    assert {path.parent.name for path in Path(run_dir, "tensorboard").rglob("*tfevents*")} == names
    card = Path(run_dir, "model", "README.md").read_text(encoding="utf-8")
    assert "UrgencyEnsemble.from_pretrained" in card
    assert "2 members cross_attention" in card and "2 members linear" in card
    assert metrics.against_baseline is not None
    assert metrics.against_baseline.baseline in card
    page = Path(write_report(str(shutil.copytree(run_dir, tmp_path / "run")))).read_text(encoding="utf-8")
    assert "An ensemble of models for 2 folds" in page
    assert "than the best baseline, linear" in page and "the best by cross-validation" in page


@pytest.mark.slow
def test_two_ray_train_workers_share_the_work(ray_session: None, extracted: Extracted, tmp_path: Path) -> None:
    run_dir = str(shutil.copytree(extracted[0], tmp_path / "run"))
    config = extracted[2].replace(
        {"train.epochs": 2, "train.batch_size": 16, "model.dropout": 0.0, "model.encoder_dropout": 0.0}
    )
    two = train(config.replace({"train.num_workers": 2}), run_dir)
    history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    one = train(config.replace({"train.batch_size": 32}), run_dir)
    alone = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose([row[name] for row in history], [row[name] for row in alone], atol=1e-5)
    assert two.splits["test"]["urgency"].confusion == one.splits["test"]["urgency"].confusion


@pytest.mark.slow
def test_members_are_dealt_out_to_the_workers_and_become_what_one_worker_makes_of_them(
    ray_session: None, extracted: Extracted, tmp_path: Path
) -> None:
    runs = []
    for workers in (None, 2):
        run_dir = str(shutil.copytree(extracted[0], tmp_path / f"run-{workers}"))
        changes = {"train.epochs": 3, "train.members": 3, "train.num_workers": workers, "train.cpus_per_worker": 1}
        train(extracted[2].replace(changes), run_dir)
        history = json.loads(Path(run_dir, "history.json").read_text(encoding="utf-8"))
        runs.append((load_model(f"{run_dir}/model").state_dict(), [row | {"seconds": 0} for row in history]))
    (one, alone), (two, dealt) = runs
    assert alone == dealt
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_on_a_machine_of_one_s_own_the_command_itself_trains(
    ray_session: None, extracted: Extracted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []

    def watch(*arguments: Any, **options: Any) -> None:
        fit(*arguments, **options)
        epochs.append(torch.get_num_threads())

    # A worker's process would not know of this.
    monkeypatch.setattr(worker, "fit", watch)
    threads = torch.get_num_threads()
    changes = {"train.epochs": 1, "train.cpus_per_worker": 1}
    train(extracted[2].replace(changes), str(shutil.copytree(extracted[0], tmp_path / "run")))
    assert epochs == [1]
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("workers", "address"), [(1, ""), (None, "127.0.0.1:6379")])
def test_where_workers_are_asked_for_and_on_clusters_others_train(
    extracted: Extracted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, address: str
) -> None:
    def start(*_: Any) -> None:
        raise WorkError("a group of workers is started")

    monkeypatch.setattr(trainer, "_run_workers", start)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(WorkError, match="a group of workers"):
        train(extracted[2].replace({"train.num_workers": workers}), str(shutil.copytree(extracted[0], tmp_path / "run")))


def test_embeddings_of_another_encoder_are_refused(extracted: Extracted) -> None:
    run_dir, _, config = extracted
    with pytest.raises(RequestError, match=r"made with audio_encoder\.name spectral, not facebook/data2vec-audio-base"):
        train(config.replace({"audio_encoder.name": "facebook/data2vec-audio-base"}), run_dir)


def test_a_run_folder_without_embeddings_is_refused(tmp_path: Path, demo_config: Config) -> None:
    with pytest.raises(RequestError, match="holds no embeddings; run extract"):
        train(demo_config, str(tmp_path))


def test_a_recipe_takes_over_which_commit_made_the_embeddings(extracted: Extracted, tmp_path: Path) -> None:
    run_dir = shutil.copytree(extracted[0], tmp_path / "run")
    for path in Path(run_dir, "embeddings").rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        fingerprint = json.loads(table.schema.metadata[METADATA_KEY])
        fingerprint["audio_encoder"]["revision"] = "v1"
        metadata = {METADATA_KEY: json.dumps(fingerprint, sort_keys=True)}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    config, examples, _ = open_run(extracted[2], str(run_dir))
    assert examples.fingerprint is not None
    assert config.audio_encoder.revision == examples.fingerprint.audio_encoder["revision"] == "v1"


@pytest.mark.parametrize(
    ("wanted", "nodes", "planned"),
    [
        # A large node without a GPU does not say what a worker on the small one may ask for.
        ({}, [Node(16, 1), Node(64)], (True, 16)),
        ({"train.num_workers": 2}, [Node(16, 1), Node(64)], (False, 32)),  # both on the large node
        ({"train.num_workers": 4}, [Node(8, 4)], (True, 2)),
        ({"train.use_gpu": False}, [Node(16, 1)], (False, 16)),
        ({"train.cpus_per_worker": 32}, [Node(16, 1), Node(64)], (False, 32)),
    ],
)
def test_workers_ask_for_what_a_node_holds(wanted: dict[str, Any], nodes: Any, planned: tuple[Any, ...]) -> None:
    assert plan_workers(Config().replace(wanted).train, nodes) == planned


def test_gpus_beside_too_few_cpus_are_refused() -> None:
    config = Config().replace({"train.use_gpu": True, "train.cpus_per_worker": 32})
    with pytest.raises(RequestError, match=r"1 workers of 32 CPUs and a GPU do not fit .* \(1 GPUs \+ 16, 0 GPUs \+ 64 CPUs\)"):
        plan_workers(config.train, [Node(16, 1), Node(64)])


def test_workers_that_do_not_fit_are_refused_before_anything_waits(ray_session: None, extracted: Extracted) -> None:
    run_dir, _, config = extracted
    with pytest.raises(
        RequestError, match=r"train\.num_workers: 64 workers of 1 CPUs do not fit the cluster's nodes \(2 CPUs\)"
    ):
        train(config.replace({"train.num_workers": 64}), run_dir)
    with pytest.raises(RequestError, match=r"train\.use_gpu: true with 1 workers, but the cluster has 0 GPUs"):
        train(config.replace({"train.use_gpu": True}), run_dir)


def test_a_model_that_was_trained_before_its_run_grew_is_not_evaluated(trained: Trained, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    predictions = pq.read_table(run_dir / "predictions.parquet")
    pq.write_table(predictions.slice(1), run_dir / "predictions.parquet")
    with pytest.raises(RequestError, match="its embeddings have changed since its model was trained; train it again"):
        evaluate_run(trained[2], str(run_dir))
