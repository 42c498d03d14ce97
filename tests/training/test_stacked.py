from typing import Any

import numpy as np
import pytest
from fitting import run
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from urgency_ray.config import Config
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.synthesize.cues import CLASS_SHARES, VOICE_RELIABILITY, WORDS_RELIABILITY
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(size: int, classes: Any = (0, 1, 2), noise: float = 0.5) -> tuple[TrainingData, Any]:
    """Vectors that tell a words cue and a voice cue of each call, and the P(urgency class) of who knows both cues, (N, 3)."""
    rng = np.random.default_rng(0)
    shares = CLASS_SHARES[list(classes)] / CLASS_SHARES[list(classes)].sum()
    urgency = rng.choice(classes, size, p=shares)
    cues = [np.array([rng.choice(3, p=table[y]) for y in urgency]) for table in (VOICE_RELIABILITY, WORDS_RELIABILITY)]
    audio, text = (
        (rng.standard_normal((3, dim))[cue] + noise * rng.standard_normal((size, dim))).astype(np.float32)
        for cue, dim in zip(cues, (12, 9), strict=True)
    )
    known = CLASS_SHARES * VOICE_RELIABILITY[:, cues[0]].T * WORDS_RELIABILITY[:, cues[1]].T
    acoustic, order = rng.normal(40, 9, (size, 5)).astype(np.float32), rng.permutation(size)
    fold, none = len(order) // 3, np.full(size, -1)
    data = TrainingData(audio, text, acoustic, urgency, none, order[fold:], order[:fold], groups=np.arange(size) // 2)
    return data, known / known.sum(axis=1, keepdims=True)


def fit_here(changes: dict[str, Any], data: TrainingData) -> Any:
    config = Config().replace({"model.name": "stacked"} | changes)
    ((epoch, weights),) = run(config, data)
    assert np.isfinite(epoch.metrics["train_loss"]) and epoch.last
    model = build_model(config, data)
    model.load_state_dict(weights)
    return predict_probabilities(model.eval(), data.audio, data.text, data.acoustic)["urgency"]


def test_where_cues_are_clear_and_mislead_its_odds_level_off_as_no_linear_model_s_do() -> None:
    data, known = make_data(900)
    truth, ceiling = data.urgency[data.val], log_loss(data.urgency[data.val], known[data.val])
    losses = {
        name: log_loss(truth, fit_here({"model.name": name}, data)[data.val]) for name in ("stacked", "linear", "discriminant")
    }
    assert losses["stacked"] < ceiling + 0.03
    assert losses["stacked"] < min(losses["linear"], losses["discriminant"]) - 0.015


def kernel(left: Any, right: Any) -> Any:
    return np.exp(-0.5 * ((left[:, None] - right[None]) ** 2).sum(axis=-1))


def test_its_probabilities_are_those_of_a_kernel_regression_on_scores_of_rows_held_out() -> None:
    data, _ = make_data(150)
    probs = fit_here({"train.shrinkage": 0.3, "loss.class_weights": "none"}, data)
    rows, labels = data.train, data.urgency[data.train]
    assert data.groups is not None
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(rows, labels, data.groups[rows]))
    line = np.linspace(-2, 2, 5)
    grid = np.array([(one, other) for one in line for other in line])
    seen, asked = [], []
    for inputs in (np.hstack([data.audio, data.acoustic]).astype(np.float64), data.text.astype(np.float64)):
        scaled = StandardScaler().fit(inputs[rows]).transform(inputs)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3)
        told = cross_val_predict(model, scaled[rows], labels, cv=folds, method="decision_function")
        all_told = model.fit(scaled[rows], labels).decision_function(scaled)
        told, all_told = ([[v[2] - v[0], v[1] - (v[0] + v[2]) / 2] for v in values] for values in (told, all_told))
        mean, width = np.mean(told, axis=0), 1.3 * np.std(told, axis=0)
        seen.append(kernel(np.clip((told - mean) / width, -2, 2), grid))
        asked.append(kernel(np.clip((all_told - mean) / width, -2, 2), grid))

    def regress(c: float, parts: Any, truth: Any) -> Any:
        """Weights of f = sum over grid points of a k(., g), by the least C * loss + |f|^2 / 2, and biases without penalty."""
        norm = kernel(grid, grid)

        def loss(flat: Any) -> float:
            weights, bias = flat[:-3].reshape(2, 25, 3), flat[-3:]
            logits = sum(part @ own for part, own in zip(parts, weights, strict=True)) + bias
            penalty = sum(float((own * (norm @ own)).sum()) for own in weights)
            return float(penalty / 2 - c * log_softmax(logits, axis=1)[np.arange(len(truth)), truth].sum())

        def slope(flat: Any) -> Any:
            weights, bias = flat[:-3].reshape(2, 25, 3), flat[-3:]
            logits = sum(part @ own for part, own in zip(parts, weights, strict=True)) + bias
            over = c * (np.exp(logits - logsumexp(logits, axis=1, keepdims=True)) - np.eye(3)[truth])
            own = [part.T @ over + norm @ mine for part, mine in zip(parts, weights, strict=True)]
            return np.concatenate([np.ravel(own), over.sum(axis=0)])

        flat = minimize(loss, np.zeros(153), jac=slope, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-10}).x
        return flat[:-3].reshape(2, 25, 3), flat[-3:]

    def tell(found: Any, parts: Any) -> Any:
        return softmax(sum(part @ own for part, own in zip(parts, found[0], strict=True)) + found[1], axis=1)

    losses = {}
    for c in (0.1, 10**-0.5, 1.0, 10**0.5, 10.0):
        told = np.zeros((len(rows), 3))
        for fitted, held_out in folds:
            told[held_out] = tell(
                regress(c, [part[fitted] for part in seen], labels[fitted]), [part[held_out] for part in seen]
            )
        losses[c] = log_loss(labels, told)
    best = min(losses, key=lambda c: losses[c])
    np.testing.assert_allclose(probs, tell(regress(best, seen, labels), asked), atol=5e-3)


@pytest.mark.parametrize("modalities", ["audio", "text"])
def test_a_modality_that_is_not_in_use_changes_nothing(modalities: str) -> None:
    data, _ = make_data(200)
    probs = fit_here({"model.modalities": modalities}, data)
    other = "text" if modalities == "audio" else "audio"
    getattr(data, other)[:] = 7.0
    np.testing.assert_allclose(fit_here({"model.modalities": modalities}, data), probs, atol=1e-6)


@pytest.mark.parametrize("classes", [(0, 2), (1,)])
def test_a_class_that_is_not_there_is_never_called(classes: tuple[int, ...]) -> None:
    data, _ = make_data(120, classes)
    probs = fit_here({}, data)
    assert np.isfinite(probs).all() and set(probs.argmax(axis=1)) <= set(classes)
    assert (probs[:, sorted({0, 1, 2} - set(classes))] < 1e-9).all()


def test_with_a_call_too_few_to_hold_out_it_is_still_fitted() -> None:
    data, _ = make_data(60)
    data.urgency[:] = data.urgency % 2
    data.urgency[data.train[0]] = 2
    assert np.isfinite(fit_here({}, data)).all()


def test_a_call_beyond_all_others_is_told_as_the_outermost_are() -> None:
    data, _ = make_data(200)
    far = data.audio.copy()
    far[0] *= 1e6
    config = Config().replace({"model.name": "stacked"})
    ((_, weights),) = run(config, data)
    model = build_model(config, data)
    model.load_state_dict(weights)
    one, other = (
        predict_probabilities(model.eval(), audio, data.text, data.acoustic)["urgency"][0] for audio in (far, far * 10)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.isfinite(one).all() and one.max() < 1 - 1e-6
