import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from urgency_ray.config import Config, ModelConfig
from urgency_ray.errors import RequestError
from urgency_ray.model.batch import Batch
from urgency_ray.model.classifier import CornHead, UrgencyClassifier
from urgency_ray.model.load import load_model

SMALL = {"hidden_dim": 16, "num_heads": 2, "num_layers": 2, "feedforward_dim": 24, "head_dim": 12}


def make_batch(rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio, text, acoustic = (torch.randn(rows, dim, generator=generator) for dim in (10, 7, 5))
    return Batch(audio, text, acoustic)


def build(**changes: Any) -> Any:
    torch.manual_seed(0)
    with_sentiment = changes.pop("with_sentiment", False)
    return UrgencyClassifier(ModelConfig(**{**SMALL, **changes}), 10, 7, with_sentiment, {"unit": "call"}).eval()


@pytest.mark.parametrize("name", ["cross_attention", "concat", "cross_modal", "linear", "discriminant", "stacked"])
@pytest.mark.parametrize(("modalities", "urgency_head"), [("fused", "softmax"), ("audio", "corn"), ("text", "softmax")])
def test_a_saved_model_gives_the_same_logits(tmp_path: Path, name: str, modalities: str, urgency_head: str) -> None:
    if name in ("linear", "discriminant", "stacked"):
        urgency_head = "softmax"
    model = build(name=name, modalities=modalities, urgency_head=urgency_head, with_sentiment=True)
    model.standardize_acoustic.set_statistics(np.arange(5, dtype=np.float32), np.full(5, 2.0, np.float32))
    model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    batch = make_batch()
    for task, logits in model(batch).items():
        torch.testing.assert_close(loaded(batch)[task], logits, rtol=0, atol=0)
    assert (loaded.transform, loaded.config) == ({"unit": "call"}, model.config)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}


def test_the_fusion_trunk_is_the_recipe_s(monkeypatch: pytest.MonkeyPatch) -> None:
    # Written again from the recipe, with PyTorch's own layers and our weights.
    model = build()
    batch = make_batch()
    hear, read = model.project_audio, model.project_text
    kinds = (nn.Linear, nn.LayerNorm, nn.GELU, nn.Dropout)
    assert all(isinstance(layer, kind) for layer, kind in zip(hear, kinds, strict=True))
    assert hear[0].in_features == 10 + 5
    tokens = torch.stack([hear(torch.cat([batch.audio, batch.acoustic], -1)), read(batch.text)], 1)
    for layer in model.trunk.encoder.layers:
        attended, _ = layer.self_attn(tokens, tokens, tokens)
        tokens = layer.norm1(tokens + attended)
        tokens = layer.norm2(tokens + layer.linear2(nn.functional.gelu(layer.linear1(tokens))))
    a, t = tokens.unbind(1)
    expected = model.urgency(model.head(torch.cat([a, t, (a - t).abs(), a * t], -1)))
    torch.testing.assert_close(model(batch)["urgency"], expected, rtol=1e-4, atol=1e-5)


def test_corn_s_head_multiplies_conditional_probabilities() -> None:
    head = CornHead(5, 4)
    hidden = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    more = nn.functional.linear(hidden, head.weight, head.bias).sigmoid()
    first, second, third = more.T
    expected = [1 - first, first * (1 - second), first * second * (1 - third), first * second * third]
    log_probs = head(hidden)
    torch.testing.assert_close(log_probs.exp(), torch.stack(expected, -1))
    torch.testing.assert_close(log_probs.softmax(-1), log_probs.exp())


def test_corn_s_head_is_stable_far_out() -> None:
    head = CornHead(1, 3)
    nn.init.ones_(head.weight)
    nn.init.zeros_(head.bias)
    log_probs = head(torch.tensor([[300.0], [-300.0]]))
    assert log_probs.tolist() == [pytest.approx([-300, -300, 0], abs=1e-6), pytest.approx([0, -300, -600], abs=1e-6)]
    log_probs.sum().backward()
    assert head.weight.grad is not None
    assert torch.isfinite(head.weight.grad).all()


def test_the_corn_loss_is_refused_without_its_head() -> None:
    message = "^config: loss.corn_weight: 0.5 needs model.urgency_head corn but got softmax$"
    with pytest.raises(RequestError, match=message):
        Config().replace({"loss.corn_weight": 0.5})


def test_the_default_model_has_the_recipe_s_size() -> None:
    model: Any = UrgencyClassifier(ModelConfig(), 768, 768)
    hidden, feedforward, head = 768, 2048, 512
    project = (768 + 5) * hidden + hidden + 2 * hidden + 768 * hidden + hidden + 2 * hidden
    attention = 4 * (hidden * hidden + hidden)
    layer = attention + hidden * feedforward + feedforward + feedforward * hidden + hidden + 4 * hidden
    classify = 4 * hidden * head + head + 2 * head + head * 3 + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == project + 3 * layer + classify
    assert {layer.dropout.p for layer in model.trunk.encoder.layers} == {0.2}
    assert (model.project_audio[3].p, model.head[3].p) == (0.4, 0.4)


@pytest.mark.parametrize(
    ("modalities", "heard", "read"), [("fused", True, True), ("audio", True, False), ("text", False, True)]
)
def test_a_modality_that_is_left_out_has_no_say(modalities: str, heard: bool, read: bool) -> None:
    model = build(modalities=modalities)
    batch = make_batch()
    base = model(batch)["urgency"]
    deaf = model(batch._replace(audio=torch.zeros(4, 10), acoustic=torch.ones(4, 5)))["urgency"]
    blind = model(batch._replace(text=torch.zeros(4, 7)))["urgency"]
    assert (not torch.equal(base, deaf), not torch.equal(base, blind)) == (heard, read)


def test_without_a_head_concat_adds_up_what_audio_and_text_say() -> None:
    model = build(name="concat", head_dim=None)
    batch = make_batch()
    other = Batch(batch.audio.roll(1, dims=0), batch.text.roll(1, dims=0), batch.acoustic.roll(1, dims=0))
    mixed = batch._replace(text=other.text)
    swapped = other._replace(text=batch.text)
    one, two, three, four = (model(rows)["urgency"] for rows in (batch, other, mixed, swapped))
    torch.testing.assert_close(one + two, three + four)
    assert not torch.allclose(one, three)


def test_cross_modal_hears_and_reads() -> None:
    model = build(name="cross_modal", acoustic_features=False)
    batch = make_batch()
    assert not torch.equal(model(batch)["urgency"], model(batch._replace(audio=-batch.audio))["urgency"])
    assert not torch.equal(model(batch)["urgency"], model(batch._replace(text=-batch.text))["urgency"])


def test_acoustic_features_are_standardised_and_gaps_become_the_mean() -> None:
    model = build()
    model.standardize_acoustic.set_statistics(np.full(5, 30.0, np.float32), np.full(5, 10.0, np.float32))
    batch = make_batch()
    gap = batch._replace(acoustic=torch.full((4, 5), torch.nan))
    mean = batch._replace(acoustic=torch.full((4, 5), 30.0))
    torch.testing.assert_close(model(gap)["urgency"], model(mean)["urgency"])
    assert not torch.equal(model(batch._replace(acoustic=torch.full((4, 5), 40.0)))["urgency"], model(mean)["urgency"])


def test_config_json_holds_the_transform_and_no_code(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["transform"] == {"unit": "call"}
    assert saved["model"]["hidden_dim"] == 16


def test_probabilities_are_those_of_the_temperature_that_travels_with_the_model(tmp_path: Path) -> None:
    model = build(with_sentiment=True)
    model.temperature.copy_(torch.tensor([2.0, 0.5]))
    model.save_pretrained(tmp_path)
    loaded, batch = load_model(str(tmp_path)), make_batch()
    logits, probs = model(batch), loaded.probabilities(loaded(batch))
    torch.testing.assert_close(probs["urgency"], (logits["urgency"] / 2.0).softmax(-1))
    torch.testing.assert_close(probs["sentiment"], (logits["sentiment"] / 0.5).softmax(-1))


def test_a_model_saved_before_there_were_temperatures_has_temperature_one(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["temperature"]
    save_file(weights, tmp_path / "model.safetensors")
    assert load_model(str(tmp_path)).temperature.tolist() == [1.0, 1.0]


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--model .*: holds no model\.safetensors"):
        load_model(str(tmp_path))
