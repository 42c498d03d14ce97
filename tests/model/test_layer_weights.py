"""Several layers of an encoder as one vector, in a classifier and around it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from urgency_ray.config import Config, ModelConfig
from urgency_ray.model.batch import Batch
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.model.layer_weights import name_weights
from urgency_ray.model.load import load_model
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model, fit

SMALL = {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "feedforward_dim": 24, "head_dim": 12}
LAYERS = {"audio": 3, "text": 2}
TRANSFORM = {"audio_encoder": {"layers": [0, 6, 9]}, "text_encoder": {"layers": [3, 12]}}


def build(**changes: Any) -> UrgencyClassifier:
    torch.manual_seed(0)
    config = ModelConfig(**{**SMALL, **changes})
    return UrgencyClassifier(config, 3 * 4, 2 * 5, False, TRANSFORM, num_layers=LAYERS).eval()


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio, text, acoustic = (torch.randn(4, dim, generator=generator) for dim in (12, 10, 5))
    return Batch(audio, text, acoustic)


def test_layers_are_weighed_by_a_softmax_of_learned_numbers() -> None:
    model, batch = build(), make_batch()
    assert model.mix_audio.scores is not None
    with torch.no_grad():
        model.mix_audio.scores.copy_(torch.tensor([0.0, 1.0, 2.0]).log1p())  # 1 : 2 : 3
    first, second, third = batch.audio.view(4, 3, 4).unbind(dim=1)
    expected = (first + 2 * second + 3 * third) / 6
    torch.testing.assert_close(model.mix_audio(batch.audio), expected)
    assert model.layer_weights == {"audio": pytest.approx([1 / 6, 2 / 6, 3 / 6]), "text": [0.5, 0.5]}
    # The classifier is that of the mixed vector, of one layer's width.
    plain = UrgencyClassifier(model.config, 4, 5).eval()
    shared = plain.state_dict().keys() - {key for key in plain.state_dict() if key.startswith("standardize")}
    plain.load_state_dict({key: model.state_dict()[key] for key in shared}, strict=False)
    mixed = batch._replace(audio=expected, text=batch.text.view(4, 2, 5).mean(1))
    torch.testing.assert_close(model(batch)["urgency"], plain(mixed)["urgency"])


@pytest.mark.parametrize(("choice", "weights"), [("mean", [1 / 3] * 3), ("last", [0.0, 0.0, 1.0])])
def test_a_search_can_leave_the_weights_alone(choice: str, weights: list[float]) -> None:
    model, batch = build(audio_layers=choice, text_layers=choice), make_batch()
    assert model.layer_weights["audio"] == pytest.approx(weights)
    expected = (batch.audio.view(4, 3, 4) * torch.tensor(weights)[:, None]).sum(1)
    torch.testing.assert_close(model.mix_audio(batch.audio), expected)
    assert not [name for name, _ in model.named_parameters() if "mix" in name]


def test_a_linear_model_takes_the_mean_of_the_layers() -> None:
    model, batch = build(name="linear", acoustic_features=False), make_batch()
    expected = torch.cat([batch.audio.view(4, 3, 4).mean(1), batch.text.view(4, 2, 5).mean(1)], dim=1)
    torch.testing.assert_close(model.linear_inputs(batch), expected)


@pytest.mark.parametrize(("modalities", "used"), [("audio", ["audio"]), ("text", ["text"])])
def test_layers_of_what_is_not_used_have_no_weights(modalities: str, used: list[str]) -> None:
    model = build(modalities=modalities)
    assert list(model.layer_weights) == used
    model(make_batch())["urgency"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_saved_model_and_an_ensemble_keep_their_layers(tmp_path: Path) -> None:
    first, second, batch = build(), build(name="linear"), make_batch()
    assert first.mix_audio.scores is not None
    with torch.no_grad():
        first.mix_audio.scores.copy_(torch.tensor([0.0, 1.0, 2.0]).log1p())
    ensemble = UrgencyEnsemble.of([first, second], [0, 1], [0.25, 0.75])
    for model in (first, ensemble):
        model.save_pretrained(tmp_path)
        again = load_model(str(tmp_path))
        torch.testing.assert_close(again(batch)["urgency"], model(batch)["urgency"], rtol=0, atol=0)
        assert again.widths == {"audio": 12, "text": 10}
    named = name_weights(ensemble.layer_weights, TRANSFORM)["audio"]
    # A quarter of 1, 2 and 3 sixths, three quarters of a third.
    assert named == {
        "0": pytest.approx(7 / 24, abs=1e-4),
        "6": pytest.approx(8 / 24, abs=1e-4),
        "9": pytest.approx(9 / 24, abs=1e-4),
    }


def test_a_model_saved_before_there_were_layers_has_one_of_each(tmp_path: Path) -> None:
    UrgencyClassifier(ModelConfig.model_validate(SMALL), 4, 5).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    del saved["num_layers"], saved["model"]["audio_layers"], saved["model"]["text_layers"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    model = load_model(str(tmp_path))
    assert (model.layer_weights, model.widths) == ({}, {"audio": 4, "text": 5})


def test_training_finds_the_layer_that_says_something() -> None:
    rng = np.random.default_rng(0)
    urgency = np.arange(120) % 3
    # Of three layers the second knows the answer, the others are noise.
    layers = rng.standard_normal((120, 3, 4)).astype(np.float32)
    layers[:, 1, :3] += 3 * np.eye(3, dtype=np.float32)[urgency]
    text, acoustic = (rng.standard_normal((120, dim)).astype(np.float32) for dim in (5, 5))
    rows = np.arange(90), np.arange(90, 120)
    data = TrainingData(layers.reshape(120, 12), text, acoustic, urgency, np.full(120, -1), *rows)
    small = {f"model.{key}": value for key, value in SMALL.items()} | {"model.modalities": "audio"}
    several = {"audio_encoder.name": "a/b", "audio_encoder.layers": [0, 1, 2], "model.standardize_embeddings": True}
    train = {"train.epochs": 40, "train.early_stop_epochs": None, "train.learning_rate": 2e-2, "train.schedule": "constant"}
    config = Config().replace({**small, **several, **train})
    found: list[Any] = []
    fit(config, data, found.append)
    model = build_model(config, data)
    model.load_state_dict(found[-1].state()["model"])
    low, high, other = model.layer_weights["audio"]
    assert high > 0.5 > low + other
    assert found[-1].metrics["best_val_macro_f1"] > 0.8
