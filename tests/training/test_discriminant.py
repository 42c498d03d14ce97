from typing import Any

import numpy as np
import pytest
from fitting import run
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from urgency_ray.config import Config
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.training.data import TrainingData
from urgency_ray.training.discriminant import SHRINKAGES
from urgency_ray.training.fit import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(size: int, dim: int, classes: Any = (0, 1, 2)) -> TrainingData:
    rng = np.random.default_rng(0)
    urgency = rng.choice(classes, size)
    audio, text = (
        (rng.standard_normal((3, dim))[urgency] / 2 + 2 * rng.standard_normal((size, dim))).astype(np.float32) for _ in range(2)
    )
    acoustic = rng.normal(40, 9, (size, 5)).astype(np.float32)
    order = rng.permutation(size)
    return TrainingData(audio, text, acoustic, urgency, np.full(size, -1), order[40:], order[:40], groups=np.arange(size) // 2)


def fit_here(changes: dict[str, Any], data: TrainingData) -> Any:
    config = Config().replace({"model.name": "discriminant"} | changes)
    ((_, weights),) = run(config, data)
    model = build_model(config, data)
    model.load_state_dict(weights)
    return predict_probabilities(model.eval(), data.audio, data.text, data.acoustic)["urgency"]


class EvenPriors(LinearDiscriminantAnalysis):  # type: ignore[misc]
    """With `priors`, scikit-learn's own would also weigh the classes' covariances by them."""

    def decision_function(self, rows: Any) -> Any:
        return super().decision_function(rows) - np.log(self.priors_)


# Fewer rows than inputs, and more: two ways to the same inverse.
@pytest.mark.parametrize(("size", "dim"), [(140, 90), (260, 12)])
@pytest.mark.parametrize("class_weights", ["balanced", "none"])
def test_its_probabilities_are_scikit_learn_s_at_the_best_temperature_of_the_best_shrinkage(
    size: int, dim: int, class_weights: str
) -> None:
    data = make_data(size, dim)
    probs = fit_here({"loss.class_weights": class_weights}, data)
    inputs = np.hstack([data.audio, data.acoustic, data.text]).astype(np.float64)
    scaled = StandardScaler().fit(inputs[data.train]).transform(inputs)
    fitted, labels = scaled[data.train], data.urgency[data.train]
    assert data.groups is not None
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(fitted, labels, data.groups[data.train]))

    def loss(logits: Any, log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    kind = EvenPriors if class_weights == "balanced" else LinearDiscriminantAnalysis
    found = {}
    for shrinkage in SHRINKAGES:
        model = kind(solver="lsqr", shrinkage=shrinkage)
        logits = cross_val_predict(model, fitted, labels, cv=folds, method="decision_function")
        best = minimize_scalar(lambda t, logits=logits: loss(logits, t), bounds=(-2.3, 2.3), method="bounded")
        found[shrinkage] = (best.fun, best.x)
    shrinkage = min(found, key=lambda s: found[s][0])
    model = kind(solver="lsqr", shrinkage=shrinkage).fit(fitted, labels)
    expected = softmax(model.decision_function(scaled) / np.exp(found[shrinkage][1]), axis=1)
    np.testing.assert_allclose(probs, expected, atol=2e-4)


def test_a_given_shrinkage_of_1_takes_the_class_of_the_nearest_mean() -> None:
    data = make_data(200, 6)
    probs = fit_here({"train.shrinkage": 1.0}, data)
    inputs = np.hstack([data.audio, data.acoustic, data.text]).astype(np.float64)
    scaled = StandardScaler().fit(inputs[data.train]).transform(inputs)
    means = [scaled[data.train[data.urgency[data.train] == label]].mean(axis=0) for label in range(3)]
    nearest = np.argmin([((scaled - mean) ** 2).sum(axis=1) for mean in means], axis=0)
    np.testing.assert_array_equal(probs.argmax(axis=1), nearest)


@pytest.mark.parametrize("classes", [(0, 2), (1,)])
def test_a_class_that_is_not_there_is_never_called(classes: tuple[int, ...]) -> None:
    probs = fit_here({}, make_data(120, 6, classes))
    assert (probs[:, sorted({0, 1, 2} - set(classes))] < 1e-9).all()
    assert np.isfinite(probs).all()
