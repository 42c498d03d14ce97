"""Layers side by side, and poolings beyond the mean and the first token."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from odd_checkpoints import save_byt5, save_qwen2
from tiny_checkpoints import SENTENCES, save_audio_checkpoint, save_text_checkpoint, tf

from urgency_ray.config import AudioEncoderConfig, Config, TextEncoderConfig
from urgency_ray.encoders.load import load_audio_encoder, load_text_encoder
from urgency_ray.encoders.probe import probe_text_encoder
from urgency_ray.encoders.settings import pin_settings, settle
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint

pytestmark = pytest.mark.usefixtures("steady_arithmetic")

RAW: dict[str, Any] = {"peak_normalize": False, "l2_normalize": False}
PLAIN: dict[str, Any] = {"layer_norm": False, "l2_normalize": False}


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_audio_checkpoint(tmp_path_factory.mktemp("audio"), "wav2vec2_group")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return Path(save_text_checkpoint(tmp_path, "electra"))


def make_waveform(seconds: float) -> Any:
    return (0.3 * np.random.default_rng(0).standard_normal(round(16000 * seconds))).astype(np.float32)


def audio_frames(folder: str, waveform: Any, *cuts: int) -> list[Any]:
    """Of each layer, from 0 on, the frames (T, D) of the stretches between the cuts, by transformers alone."""
    extractor = tf.AutoFeatureExtractor.from_pretrained(folder)
    model = tf.AutoModel.from_pretrained(folder).eval()
    values = extractor(waveform, sampling_rate=16000, return_tensors="pt").input_values
    ends = [0, *cuts, len(waveform)]
    with torch.no_grad():
        shown = [model(values[:, a:b], output_hidden_states=True).hidden_states for a, b in pairwise(ends)]
    return [torch.cat([part[number][0] for part in shown]) for number in range(len(shown[0]))]


def test_layers_lie_side_by_side_each_of_unit_length(audio: str) -> None:
    waveform = make_waveform(1.3)
    config = AudioEncoderConfig(name=audio, layers=[0, 2], window_sec=None, peak_normalize=False)
    encoder = load_audio_encoder(config)
    vectors = encoder.encode([waveform]).vectors
    assert vectors.shape == (1, encoder.dim) == (1, 48)
    means = [audio_frames(audio, waveform)[number].mean(0) for number in (0, 2)]
    expected = torch.cat([mean / mean.norm() for mean in means])
    np.testing.assert_allclose(vectors[0], expected, atol=1e-5)


def test_the_last_layer_of_all_is_the_one_that_is_taken_alone(audio: str) -> None:
    waveform = make_waveform(1.3)
    alone = load_audio_encoder(AudioEncoderConfig(name=audio)).encode([waveform]).vectors
    together = load_audio_encoder(AudioEncoderConfig(name=audio, layers="all")).encode([waveform]).vectors
    assert together.shape == (1, 3 * 24)
    np.testing.assert_allclose(together[:, 48:], alone, atol=1e-6)


def test_the_deviation_is_that_of_all_frames_of_a_call(audio: str) -> None:
    # Two windows whose means differ: the second half is ten times as loud, and a window's own mean would hide it.
    waveform = make_waveform(1.5)
    waveform[16000:] *= 10
    config = AudioEncoderConfig(name=audio, layers=[1, 2], pooling="mean_std", window_sec=1.0, **RAW)
    encoded = load_audio_encoder(config).encode([waveform, make_waveform(0.7)])
    assert encoded.num_windows.tolist() == [2, 1]
    frames = audio_frames(audio, waveform, 16000)[1:]
    expected = torch.cat([part for layer in frames for part in (layer.mean(0), layer.std(0, correction=0))])
    np.testing.assert_allclose(encoded.vectors[0], expected, atol=1e-4)


def test_text_layers_lie_side_by_side_each_normalised(text: Path) -> None:
    encoder = load_text_encoder(TextEncoderConfig(name=str(text), layers=[1, 2], pooling="mean"))
    tokenizer, model = tf.AutoTokenizer.from_pretrained(text), tf.AutoModel.from_pretrained(text).eval()
    vectors = encoder.encode(SENTENCES).vectors
    assert vectors.shape == (len(SENTENCES), encoder.dim) == (len(SENTENCES), 48)
    with torch.no_grad():
        shown = model(**tokenizer(SENTENCES[0], return_tensors="pt"), output_hidden_states=True).hidden_states
    means = [shown[number][0].mean(0) for number in (1, 2)]
    parts = [torch.nn.functional.normalize(torch.nn.functional.layer_norm(mean, mean.shape), dim=0) for mean in means]
    np.testing.assert_allclose(vectors[0], torch.cat(parts), atol=1e-4)


def test_a_decoder_s_last_token_has_read_the_text(tmp_path: Path) -> None:
    save_qwen2(tmp_path)
    config = TextEncoderConfig(name=str(tmp_path), pooling="last", **PLAIN)
    probe_text_encoder(config)
    tokenizer, model = tf.AutoTokenizer.from_pretrained(tmp_path), tf.AutoModel.from_pretrained(tmp_path).eval()
    vectors = load_text_encoder(config).encode(SENTENCES).vectors
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0, -1]
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize("overflow", ["truncate", "window"])
def test_a_tokenizer_in_python_cuts_as_one_in_rust(tmp_path: Path, overflow: Literal["truncate", "window"]) -> None:
    save_byt5(tmp_path)
    config = TextEncoderConfig(name=str(tmp_path), max_tokens=16, overflow=overflow, pooling="mean", **PLAIN)
    probe_text_encoder(config)
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path)
    model = tf.T5EncoderModel.from_pretrained(tmp_path).eval()
    # One of bytes beyond the limit, an empty one, and one that fits.
    encoded = load_text_encoder(config).encode([SENTENCES[0], "", "불"])
    words = tokenizer(SENTENCES[0], add_special_tokens=False)["input_ids"]
    num_special = tokenizer.num_special_tokens_to_add()
    size = 16 - num_special
    parts = [words[start : start + size] for start in range(0, len(words), size)]
    assert len(parts) > 1
    assert encoded.num_tokens.tolist()[0] == len(words) + num_special
    if overflow == "truncate":
        assert encoded.num_tokens_dropped.tolist() == [len(words) - size, 0, 0]
        parts = parts[:1]
    assert encoded.num_windows.tolist() == [len(parts), 1, 1]
    with torch.no_grad():
        around = [torch.tensor([tokenizer.build_inputs_with_special_tokens(part)]) for part in parts]
        means = torch.stack([model.eval()(ids).last_hidden_state[0].mean(0) for ids in around])
    weights = torch.tensor([float(len(part)) for part in parts])
    np.testing.assert_allclose(encoded.vectors[0], weights @ means / weights.sum(), atol=1e-4)
    assert np.isfinite(encoded.vectors).all()


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_a_sentence_transformers_model_is_pooled_as_it_says(text: Path, said: Any, pooling: str) -> None:
    write(text, "modules.json", [{"type": "sentence_transformers.models.Transformer", "path": ""}, POOL, NORMALIZE])
    write(text, "1_Pool/config.json", said)
    write(text, "sentence_bert_config.json", {"max_seq_length": 16})
    config = settle(TextEncoderConfig(name=str(text), pooling="auto"))
    assert (config.pooling, config.max_tokens) == (pooling, 16)
    # The config's limit holds, where it is the lower one.
    assert settle(TextEncoderConfig(name=str(text), pooling="auto", max_tokens=8)).max_tokens == 8
    assert settle(TextEncoderConfig(name=str(text), max_tokens=64)) == TextEncoderConfig(name=str(text), max_tokens=64)


POOL = {"type": "sentence_transformers.models.Pooling", "path": "1_Pool"}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
SEVERAL = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}


@pytest.mark.parametrize(
    ("modules", "said", "message"),
    [
        ([], {}, "says no pooling that we have; say cls, mean or last"),
        ([POOL], SEVERAL, "says no pooling that we have"),
        ([POOL, DENSE], {"pooling_mode_cls_token": True}, "ends in Dense, which is not taken"),
    ],
)
def test_a_pooling_that_cannot_be_taken_is_one_line(text: Path, modules: Any, said: Any, message: str) -> None:
    write(text, "modules.json", modules)
    write(text, "1_Pool/config.json", said)
    with pytest.raises(RequestError, match=rf"text_encoder\.pooling: auto, but .* {message}"):
        probe_text_encoder(TextEncoderConfig(name=str(text), pooling="auto"))


def test_what_all_and_auto_stand_for_is_in_the_fingerprint(audio: str, text: Path) -> None:
    write(text, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    names = {"audio_encoder.name": audio, "text_encoder.name": str(text)}
    config = pin_settings(Config().replace({**names, "audio_encoder.layers": "all", "text_encoder.pooling": "auto"}))
    assert (config.audio_encoder.layers, config.text_encoder.pooling) == ([0, 1, 2], "mean")
    weights = {"audio_encoder": "a", "text_encoder": "b"}
    fingerprint = Fingerprint.of(config, weights, "0.3.0")
    assert fingerprint.audio_encoder["layers"] == [0, 1, 2]
    # Where one layer is taken, it says what it said before there were layers to choose from.
    assert "layers" not in fingerprint.text_encoder
    before = Fingerprint.of(config.replace({"audio_encoder.layers": "last"}), weights, "0.3.0")
    assert before.differences(fingerprint) == {"audio_encoder.layers": "last there, [0, 1, 2] here"}


def test_layers_are_checked_before_anything_is_loaded() -> None:
    with pytest.raises(RequestError, match=r"layers must rise, none twice, but got \[9, 6\]"):
        Config().replace({"audio_encoder.name": "a/b", "audio_encoder.layers": [9, 6]})
    with pytest.raises(RequestError, match="layers all need an encoder of layers, but name is spectral"):
        Config().replace({"audio_encoder.layers": "all"})
    with pytest.raises(RequestError, match="one of last, all, or a list, each an integer >= 0"):
        Config().replace({"audio_encoder.layers": "first"})
