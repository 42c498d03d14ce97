import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fitting import run
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model
from urgency_ray.training.linear import PENALTIES, choose_penalty
from urgency_ray.training.run import check_examples

pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(size: int = 240, classes: Any = (0, 1, 2)) -> TrainingData:
    rng = np.random.default_rng(0)
    urgency = rng.choice(classes, size)
    audio, text = (
        (rng.standard_normal((3, dim))[urgency] + 2 * rng.standard_normal((size, dim))).astype(np.float32) for dim in (8, 6)
    )
    acoustic = rng.normal(40, 9, (size, 5)).astype(np.float32)
    acoustic[3, 1] = np.nan
    order = rng.permutation(size)
    return TrainingData(audio, text, acoustic, urgency, np.full(size, -1), order[60:], order[:60], groups=np.arange(size) // 2)


def fit_here(changes: dict[str, Any], data: TrainingData) -> Any:
    config = Config().replace({"model.name": "linear"} | changes)
    ((epoch, weights),) = run(config, data)
    model = build_model(config, data)
    model.load_state_dict(weights)
    return epoch, predict_probabilities(model.eval(), data.audio, data.text, data.acoustic)["urgency"]


@pytest.mark.parametrize(("modalities", "class_weights"), [("fused", "balanced"), ("audio", "none"), ("text", "balanced")])
def test_its_probabilities_are_scikit_learn_s(modalities: str, class_weights: str) -> None:
    data = make_data()
    settings = {"model.modalities": modalities, "loss.class_weights": class_weights, "train.linear_c": 0.05}
    epoch, probs = fit_here(settings, data)
    parts = {"audio": [data.audio, data.acoustic], "text": [data.text], "fused": [data.audio, data.acoustic, data.text]}
    inputs = np.hstack(parts[modalities]).astype(np.float64)
    # The scaler passes over what is missing, which is then its column's mean.
    scaled = np.nan_to_num(StandardScaler().fit(inputs[data.train]).transform(inputs))
    weights = "balanced" if class_weights == "balanced" else None
    plain = LogisticRegression(C=0.05, class_weight=weights, max_iter=1000, tol=1e-8)
    plain.fit(scaled[data.train], data.urgency[data.train])
    np.testing.assert_allclose(probs, plain.predict_proba(scaled), atol=1e-4)
    expected = log_loss(data.urgency[data.val], plain.predict_proba(scaled[data.val]))
    assert epoch.metrics["val_loss"] == pytest.approx(expected, abs=1e-4)
    assert (epoch.metrics["epoch"], epoch.improved, epoch.last) == (1, True, True)


def test_the_penalty_is_that_of_the_least_log_loss_over_folds_that_keep_groups_together() -> None:
    data = make_data(120)
    inputs, labels, groups = data.audio, data.urgency, data.groups
    assert groups is not None
    found = choose_penalty(inputs, labels, groups, balanced=False, seed=3)
    assert found is not None
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=3).split(inputs, labels, groups))
    losses = {}
    for c in PENALTIES:
        model = LogisticRegression(C=c, max_iter=1000)
        losses[c] = log_loss(labels, cross_val_predict(model, inputs, labels, cv=folds, method="predict_proba"))
    assert found.c == min(losses, key=losses.__getitem__)
    assert -np.log(found.held_out[np.arange(120), labels]).mean() == pytest.approx(losses[found.c], abs=1e-3)


def test_a_class_that_is_not_there_is_never_called() -> None:
    for classes in ((0, 2), (1,)):
        data = make_data(classes=classes)
        _, probs = fit_here({"train.linear_c": 0.1}, data)
        absent = sorted({0, 1, 2} - set(classes))
        assert (probs[:, absent] < 1e-9).all()
        assert set(probs.argmax(axis=1)) <= set(classes)


@pytest.mark.parametrize("name", ["linear", "discriminant", "stacked"])
def test_embeddings_of_any_size_are_taken_by_a_model_that_standardises_them(name: str) -> None:
    data = make_data()
    ids, none = range(240), dict.fromkeys(("audio_sha256", "text_sha256"))
    keys = pd.DataFrame({"example_id": ids, "call_id": ids, "provider_split": "unknown", **none})
    examples = Examples(keys, data.audio * 1e20, data.text, data.acoustic, data.urgency, data.sentiment, None)
    splits = Splits(data.train, data.val[:30], data.val[30:])
    assert check_examples(Config().replace({"model.name": name}), examples, splits) == []
    with pytest.raises(RequestError, match=r"model\.standardize_embeddings: false"):
        check_examples(Config(), examples, splits)


def test_a_sentiment_that_it_cannot_learn_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"loss\.sentiment_weight: 0\.4, but model\.name linear learns urgency alone: set it to 0"
    ):
        Config().replace({"model.name": "linear", "loss.sentiment_weight": 0.4})


def test_where_there_is_too_little_to_choose_the_penalty_by_it_is_still_fitted() -> None:
    data = make_data()
    few = dataclasses.replace(data, urgency=np.where(np.arange(240) == data.train[0], 2, data.urgency % 2))
    _, probs = fit_here({}, few)
    _, expected = fit_here({"train.linear_c": 0.01}, few)
    np.testing.assert_array_equal(probs, expected)


def test_it_has_no_weights_but_those_of_its_inputs() -> None:
    model = build_model(Config().replace({"model.name": "linear"}), make_data())
    assert [(name, tuple(value.shape)) for name, value in model.named_parameters()] == [
        ("urgency.weight", (3, 8 + 5 + 6)),
        ("urgency.bias", (3,)),
    ]
    assert model.temperature.device == torch.device("cpu")
