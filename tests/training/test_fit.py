import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import NO_DROPOUT, SMALL, check_two_workers_are_one, rounding_noise, run
from sklearn.metrics import f1_score

from urgency_ray.config import Config, load_config
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import _clip_in_step, build_model
from urgency_ray.training.trainer import calibrate

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = Path(__file__).parents[2] / "configs"


def make_data(size: int = 203, seed: int = 0, noise: float = 0.5) -> TrainingData:
    rng = np.random.default_rng(seed)
    urgency = rng.choice(3, size=size, p=[0.5, 0.3, 0.2])
    audio, text = (
        (rng.standard_normal((3, dim))[urgency] + noise * rng.standard_normal((size, dim))).astype(np.float32) for dim in (6, 5)
    )
    acoustic = rng.normal(40, 9, (size, 5)).astype(np.float32)
    order = rng.permutation(size)
    return TrainingData(audio, text, acoustic, urgency, rng.integers(-1, 4, size), order[40:], order[:40])


def test_it_learns_and_the_reported_macro_f1_is_scikit_learn_s() -> None:
    config, data = Config().replace(SMALL | {"train.epochs": 12}), make_data()
    epochs = run(config, data)
    epoch, weights = epochs[-1]
    model = build_model(config, data)
    model.load_state_dict(weights)
    probs = predict_probabilities(model, data.audio[data.val], data.text[data.val], data.acoustic[data.val])["urgency"]
    expected = f1_score(data.urgency[data.val], probs.argmax(1), average="macro", labels=[0, 1, 2], zero_division=0)
    assert epoch.metrics["val_macro_f1"] == pytest.approx(expected)
    assert epoch.metrics["best_val_macro_f1"] == max(e.metrics["val_macro_f1"] for e, _ in epochs) > 0.8
    likelihood = -np.log(probs[np.arange(40), data.urgency[data.val]]).mean()
    assert epoch.metrics["val_loss"] == pytest.approx(likelihood, rel=1e-4)
    assert [e.last for e, _ in epochs] == [False] * 11 + [True]


@pytest.mark.parametrize("sampler", ["weighted", "none"])
def test_it_trains_without_a_class_where_that_is_allowed(sampler: str) -> None:
    data = make_data()
    two = dataclasses.replace(data, urgency=np.where(data.urgency == 1, 0, data.urgency))
    config = Config().replace(SMALL | {"train.epochs": 12, "sampler.name": sampler, "split.allow_missing_classes": True})
    last = run(config, two)[-1][0]
    # The mean over the two classes that occur: were the absent one counted as 0, it could not exceed 2 / 3.
    assert 0.75 < last.metrics["best_val_macro_f1"] <= 1.0


def test_test_labels_are_hidden_from_the_loop() -> None:
    data = make_data()
    assert not hasattr(data, "test")


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    config, data = Config().replace(SMALL), make_data()
    first, again = (run(config, data)[-1][0].metrics["train_loss"] for _ in range(2))
    other = run(config.replace({"train.seed": 1}), data)[-1][0].metrics["train_loss"]
    assert first == again != other


def test_a_resumed_run_ends_like_an_unbroken_one_with_dropout_on(tmp_path: Path) -> None:
    config, data = Config().replace(SMALL | {"train.epochs": 5}), make_data()
    whole = run(config, data)
    broken = run(config, data, stop_after=2)
    torch.save(broken[-1][0].state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = run(config, data, resume=state)
    assert [epoch.metrics["epoch"] for epoch, _ in resumed] == [3, 4, 5]
    for name, value in whole[-1][1].items():
        torch.testing.assert_close(resumed[-1][1][name], value, rtol=0, atol=1e-7)
    timeless = [{k: v for k, v in e.metrics.items() if k != "seconds"} for e, _ in (whole[-1], resumed[-1])]
    assert timeless[0] == timeless[1]


def test_early_stop_counts_epochs_without_a_better_macro_f1() -> None:
    config = Config().replace(SMALL | {"train.epochs": 50, "train.early_stop_epochs": 4, "train.learning_rate": 1e-2})
    scores = [epoch.metrics["val_macro_f1"] for epoch, _ in run(config, make_data(noise=3.0))]
    best = int(np.argmax(scores))
    assert len(scores) == best + 1 + 4 < 50


def test_the_best_epoch_is_of_the_greatest_likelihood_where_that_is_asked_for() -> None:
    changes = {"train.select_by": "urgency_likelihood", "train.learning_rate": 1e-2, "train.early_stop_epochs": 3}
    epochs = run(Config().replace(SMALL | changes | {"train.epochs": 50}), make_data(noise=2.0))
    losses = [epoch.metrics["val_loss"] for epoch, _ in epochs]
    np.testing.assert_allclose([epoch.metrics["val_score"] for epoch, _ in epochs], np.exp(-np.array(losses)))
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 50
    assert epochs[-1][0].metrics["best_val_macro_f1"] == epochs[best][0].metrics["val_macro_f1"]
    kept = epochs[-1][0].state()["best_model"]
    assert all(torch.equal(kept[name], value) for name, value in epochs[best][1].items())


# What version 0.2.0 gave: training loss, validation loss and validation macro-F1 of each epoch.
RECIPE_FIGURES = [(1.269452, 1.091017, 0.217054), (1.024293, 1.02947, 0.553247), (0.790715, 0.992602, 0.569561)]


def test_the_recipe_s_figures_are_what_they_were() -> None:
    rng = np.random.default_rng(0)
    urgency = rng.choice(3, size=90, p=[0.5, 0.3, 0.2])
    audio, text = ((rng.standard_normal((3, d))[urgency] + rng.standard_normal((90, d))).astype(np.float32) for d in (6, 5))
    acoustic, order = rng.normal(40, 9, (90, 5)).astype(np.float32), rng.permutation(90)
    data = TrainingData(audio, text, acoustic, urgency, np.full(90, -1), order[30:], order[:30])
    config = load_config(CONFIGS / "urgency_sense.yaml").replace(SMALL)
    figures = [[epoch.metrics[n] for n in ("train_loss", "val_loss", "val_macro_f1")] for epoch, _ in run(config, data)]
    np.testing.assert_allclose(figures, RECIPE_FIGURES, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0] * 6),
        ("cosine", [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]),
        # T_0 = 2, T_mult = 2: a period of 2, then one of 4.
        ("cosine_warm_restarts", [1.0, 0.5, 1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2]),
    ],
)
def test_the_learning_rate_follows_its_schedule_each_epoch(schedule: str, expected: Any) -> None:
    changes = {"train.epochs": 6, "train.schedule": schedule, "train.restart_epochs": 2, "train.learning_rate": 1e-3}
    epochs = run(Config().replace(SMALL | changes | {"train.early_stop_epochs": None}), make_data())
    rates = [epoch.metrics["learning_rate"] for epoch, _ in epochs]
    np.testing.assert_allclose(rates, 1e-3 * np.array(expected), atol=1e-9)


def test_a_loss_that_is_not_finite_stops_with_a_clear_line() -> None:
    data = make_data()
    data.audio[data.train[3], 0] = 1e30
    config = Config().replace(SMALL | {"train.learning_rate": 1e30, "train.clip_norm": None})
    with pytest.raises(
        FloatingPointError, match=r"^epoch \d+: the training loss is (nan|inf); try a lower train\.learning_rate$"
    ):
        run(config, data)


def test_standardisation_uses_the_training_rows_alone() -> None:
    data = make_data()
    data.acoustic[data.val] += 1000
    model = build_model(Config().replace(SMALL | {"model.standardize_embeddings": True}), data)
    np.testing.assert_allclose(model.standardize_acoustic.mean, data.acoustic[data.train].mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.standardize_acoustic.std, data.acoustic[data.train].std(0), rtol=1e-3)
    np.testing.assert_allclose(model.standardize_text.mean, data.text[data.train].mean(0), rtol=1e-3, atol=1e-5)


def test_the_sentiment_head_learns_beside_urgency() -> None:
    config = Config().replace(SMALL | {"loss.sentiment_weight": 0.4, "model.name": "cross_modal"})
    _, weights = run(config, make_data())[-1]
    model = UrgencyClassifier(config.model, 6, 5, with_sentiment=True)
    model.load_state_dict(weights)
    fresh = build_model(config, make_data())
    assert model.sentiment is not None and fresh.sentiment is not None
    assert not torch.equal(model.sentiment.weight, fresh.sentiment.weight)


def test_each_head_is_calibrated_on_its_own_validation_rows() -> None:
    data = make_data()
    data.sentiment[data.val[:10]] = -1
    config = Config().replace(SMALL | {"loss.sentiment_weight": 0.4, "train.epochs": 6, "train.learning_rate": 1e-2})
    _, weights = run(config, data)[-1]
    model = build_model(config, data)
    model.load_state_dict(weights)
    calibrate(data, model)
    inputs, targets = data.batch(data.val, torch.device("cpu"))
    with torch.inference_mode():
        logits = model.eval()(inputs)
    probs = predict_probabilities(model, data.audio[data.val], data.text[data.val], data.acoustic[data.val])
    for task, found in zip(("urgency", "sentiment"), model.temperature.tolist(), strict=True):
        known = targets[task] >= 0
        grid = np.geomspace(0.1, 10, 4000)
        losses = [torch.nn.functional.cross_entropy(logits[task][known] / t, targets[task][known]).item() for t in grid]
        assert found == pytest.approx(grid[np.argmin(losses)], rel=0.01) != 1.0
        np.testing.assert_allclose(probs[task], (logits[task] / found).softmax(-1), atol=1e-6)
        assert (probs[task].argmax(1) == logits[task].argmax(1).numpy()).all()


ORDINAL = {"model.urgency_head": "corn", "loss.corn_weight": 0.5, "loss.emd_weight": 0.5}


def test_corn_alone_and_the_earth_mover_s_distance_alone_learn() -> None:
    nothing = {"loss.kl_weight": 0.0, "loss.focal_weight": 0.0, "loss.cross_entropy_weight": 0.0, "train.epochs": 12}
    for changes in ({"model.urgency_head": "corn", "loss.corn_weight": 1.0}, {"loss.emd_weight": 1.0}):
        last = run(Config().replace(SMALL | nothing | changes), make_data())[-1][0]
        assert last.metrics["best_val_macro_f1"] > 0.8


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss.mode": "expected"} | ORDINAL,
        {"model.name": "concat", "sampler.name": "none", "loss.mode": "expected"},
        {"model.name": "cross_modal", "train.select_by": "mean_of_tasks"},
    ],
)
def test_two_workers_give_the_losses_scores_and_weights_of_one(tmp_path: Path, changes: Any) -> None:
    # 163 rows: the last global batch is odd, so the workers' shares differ; 40 rows to validate on.
    config = Config().replace(SMALL | NO_DROPOUT | {"loss.sentiment_weight": 0.3, "train.batch_size": 32} | changes)
    check_two_workers_are_one(config, make_data(), tmp_path, rounding_noise)


def test_two_workers_stop_early_when_one_does(tmp_path: Path) -> None:
    # 41 rows to validate on, which two cannot share evenly.
    changes = {"train.epochs": 30, "train.early_stop_epochs": 2, "train.batch_size": 32, "model.name": "concat"}
    data = make_data(noise=3.0)
    data = dataclasses.replace(data, train=data.train[1:], val=np.append(data.val, data.train[0]))
    rows = check_two_workers_are_one(Config().replace(SMALL | NO_DROPOUT | changes), data, tmp_path, rounding_noise)
    assert [row["last"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert 3 <= len(rows) < 30


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_clipping_within_the_step_is_clipping_before_it(size: float) -> None:
    torch.manual_seed(0)
    models = [torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1, fused=True) for model in models]
    for _ in range(3):
        for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
            ours.grad = size * torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        _clip_in_step(optimizers[0], 1.0)
        torch.nn.utils.clip_grad_norm_(models[1].parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
