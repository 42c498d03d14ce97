import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fitting import SMALL, run
from scipy.optimize import minimize
from scipy.special import log_softmax

from urgency_ray.config import Config, load_config
from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.examples.splits import val_folds
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model
from urgency_ray.training.history import EpochRow
from urgency_ray.training.members import all_validated, cross_predict, fit_shares, join_members, linear_config, member_jobs
from urgency_ray.training.shared import SharedData
from urgency_ray.training.trainer import Trained, calibrate

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_FOLDS = 3


def make_examples(size: int = 150, noise: float = 1.0) -> tuple[Examples, Splits]:
    rng = np.random.default_rng(0)
    urgency = rng.permutation(np.arange(size) % 3)
    audio, text = (
        (rng.standard_normal((3, 6))[urgency] + noise * rng.standard_normal((size, 6))).astype(np.float32) for _ in "at"
    )
    acoustic = rng.normal(4, 1, (size, 5)).astype(np.float32)
    ids = [f"call-{number:03d}" for number in range(size)]
    keys = pd.DataFrame({"example_id": ids, "call_id": ids, "provider_split": "unknown", "audio_sha256": ids})
    examples = Examples(keys, audio, text, acoustic, urgency, np.full(size, -1), None)
    return examples, Splits(np.arange(70), np.arange(70, 100), np.arange(100, size))


def train_here(config: Config, examples: Examples, folds: list[Splits]) -> list[Trained]:
    """What `train_models` makes of the jobs, in this process."""
    data = [TrainingData.from_examples(examples, fold) for fold in folds]
    trained = []
    for job in member_jobs("fused", config, [(part, SharedData({}, None, "")) for part in data]):
        epochs = run(job.config, job.data)
        model = build_model(job.config, job.data)
        model.load_state_dict(epochs[-1][0].state()["best_model"])
        calibrate(job.data, model)
        trained.append(Trained(model.eval(), [EpochRow.model_validate(epoch.metrics) for epoch, _ in epochs]))
    return trained


@pytest.fixture(scope="module")
def joined() -> Any:
    """(trained members, ensemble, examples, folds) of three fusion models and three linear ones; read only."""
    changes = SMALL | {"train.members": NUM_FOLDS, "train.linear_member": True, "train.linear_c": 0.1}
    config = Config().replace(changes)
    examples, splits = make_examples()
    folds = val_folds(examples, splits, config.split, NUM_FOLDS, "train.members")
    trained = train_here(config, examples, folds)
    return trained, join_members(trained, examples, folds), examples, folds


def test_each_row_of_train_and_val_is_judged_by_the_members_that_have_not_seen_it(joined: Any) -> None:
    trained, ensemble, examples, folds = joined
    weights = [member.weight for member in ensemble.ensemble.members]
    assert sum(weights) == pytest.approx(1)
    told = cross_predict(ensemble, examples, folds)["urgency"]
    temperature = float(ensemble.temperature[0])

    def say(members: Any, rows: Any) -> Any:
        data = TrainingData.from_examples(examples, folds[0])
        batch, _ = data.batch(rows, torch.device("cpu"))
        parts = [
            weights[m] * trained[m].model.probabilities(trained[m].model(batch))["urgency"].detach().numpy() for m in members
        ]
        mean = np.sum(parts, axis=0) / sum(weights[m] for m in members)
        return np.exp(log_softmax(np.log(mean) / temperature, axis=1))

    for number, fold in enumerate(folds):
        np.testing.assert_allclose(told[fold.val], say([number, NUM_FOLDS + number], fold.val), rtol=1e-4)
    np.testing.assert_allclose(told[folds[0].test], say(range(2 * NUM_FOLDS), folds[0].test), rtol=1e-4)


def test_the_temperature_is_that_of_the_least_log_loss_on_unseen_rows(joined: Any) -> None:
    _, ensemble, examples, folds = joined
    rows = np.concatenate([fold.val for fold in folds])
    assert sorted(rows) == list(range(100))
    told = np.log(cross_predict(ensemble, examples, folds)["urgency"][rows])

    def loss(temperature: float) -> float:
        return -float(log_softmax(told / temperature, axis=1)[np.arange(len(rows)), examples.urgency[rows]].mean())

    # What it gives is calibrated already: neither a higher nor a lower temperature helps.
    assert loss(1.0) <= min(loss(0.97), loss(1.03))


def test_kinds_share_the_say_by_the_least_log_loss() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 400)
    probabilities = np.stack([rng.dirichlet(np.ones(3) + skill * np.eye(3)[label]) for skill in (3, 2, 0) for label in truth])
    probabilities = probabilities.reshape(3, 400, 3)
    told = probabilities[:, np.arange(400), truth]
    found = fit_shares(probabilities.astype(np.float32), truth)
    best = minimize(
        lambda shares: -np.log(shares @ told).mean(),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
    )
    assert sum(found) == pytest.approx(1)
    np.testing.assert_allclose(found, best.x, atol=5e-3)
    # One that is wrong about every row keeps a say that changes nothing.
    worse = np.eye(3)[(truth + 1) % 3]
    assert 0 < fit_shares(np.stack([probabilities[0], worse]).astype(np.float32), truth)[1] < 2e-4


def test_members_begin_differently_and_see_their_own_folds() -> None:
    examples, splits = make_examples()
    kinds = {f"train.{name}_member": True for name in ("linear", "discriminant", "stacked")}
    config = Config().replace(SMALL | kinds | {"train.members": NUM_FOLDS, "train.seed": 7})
    folds = val_folds(examples, splits, config.split, NUM_FOLDS, "train.members")
    data = [(TrainingData.from_examples(examples, fold), SharedData({}, None, str(k))) for k, fold in enumerate(folds)]
    jobs = member_jobs("fused", config, data)
    assert [job.name for job in jobs] == [
        f"fused-{kind}-{k}" for kind in ("cross_attention", "linear", "discriminant", "stacked") for k in range(NUM_FOLDS)
    ]
    assert [job.config.train.seed for job in jobs[:3]] == [7, 8, 9]
    assert [job.config.model.name for job in jobs[3:]] == ["linear"] * 3 + ["discriminant"] * 3 + ["stacked"] * 3
    for job, fold in zip(jobs, folds * 4, strict=True):
        assert (job.data.val == fold.val).all()
        # The labels of test are hidden from all of them.
        assert (job.data.urgency[100:] == -1).all() and (job.data.urgency[:100] >= 0).all()
    merged = all_validated(splits)
    assert merged.train.tolist() == merged.val.tolist() == list(range(100))
    assert dataclasses.astuple(merged)[2].tolist() == list(range(100, 150))


RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("changes", [{}, {"model.urgency_head": "corn", "loss.corn_weight": "0.5"}], ids=["as it is", "corn"])
def test_every_recipe_has_a_linear_model_beside_it(path: Path, changes: dict[str, str]) -> None:
    recipe = load_config(path, changes)
    found = linear_config(recipe)
    assert found.model.is_linear and found.model.text_encoder is None
    assert (found.split, found.loss.class_weights) == (recipe.split, recipe.loss.class_weights)
    assert found.model.modalities == recipe.model.modalities
