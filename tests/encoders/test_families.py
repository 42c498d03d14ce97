"""Each family of audio encoders beside a plain forward pass of transformers."""

import warnings
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from tiny_checkpoints import tf
from tiny_families import FAMILIES, save_family

from urgency_ray.config import AudioEncoderConfig
from urgency_ray.encoders.audio_inputs import Window
from urgency_ray.encoders.load import load_audio_encoder
from urgency_ray.encoders.pretrained_audio import PretrainedAudioEncoder
from urgency_ray.encoders.probe import probe_audio_encoder
from urgency_ray.errors import RequestError

pytestmark = pytest.mark.usefixtures("steady_arithmetic")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("families")
    return {name: save_family(folder, name) for name in FAMILIES}


def make_waveform(seconds: float, seed: int = 0) -> Any:
    return (0.3 * np.random.default_rng(seed).standard_normal(round(16000 * seconds))).astype(np.float32)


def plain_frames(folder: str, waveform: Any) -> Any:
    """(T, D) of one window, by transformers alone, without what it heard of padding."""
    extractor = tf.AutoFeatureExtractor.from_pretrained(folder)
    model = tf.AutoModel.from_pretrained(folder).eval()
    kind = model.config.model_type
    if kind == "clap":
        waveform = soxr.resample(waveform, 16000, 48000, "HQ")
    rate_hz = 48000 if kind == "clap" else 16000
    inputs = extractor(waveform, sampling_rate=rate_hz, return_tensors="pt")
    with torch.no_grad():
        if kind == "whisper":
            hidden = model.encoder(inputs.input_features).last_hidden_state[0]
            return hidden[: -(-len(waveform) // 320)]
        if kind == "clap":
            longer = torch.zeros(1, 1, dtype=torch.bool)
            return model.audio_model(inputs.input_features, is_longer=longer).pooler_output
        hidden = model(**inputs).last_hidden_state[0]
        # Of an odd number of filterbanks wav2vec2-BERT's last frame is half of padding.
        return hidden[inputs.attention_mask[0].bool()] if kind == "wav2vec2-bert" else hidden


@pytest.mark.parametrize("name", FAMILIES)
def test_a_window_equals_a_plain_transformers_forward(checkpoints: dict[str, str], name: str) -> None:
    settings: dict[str, Any] = {"peak_normalize": False, "l2_normalize": False, "window_sec": None}
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints[name], **settings))
    waveform = make_waveform(1.21)
    expected = plain_frames(checkpoints[name], waveform).mean(0)
    # Beside another one of nearly its length: where a mask is exact, they share a batch.
    vectors = encoder.encode([waveform, make_waveform(1.25, 1)]).vectors
    assert vectors.shape == (2, encoder.dim)
    np.testing.assert_allclose(vectors[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["whisper", "wav2vec2-bert", "clap"])
def test_a_call_of_several_windows_is_heard_whole(checkpoints: dict[str, str], name: str) -> None:
    settings: dict[str, Any] = {"peak_normalize": False, "l2_normalize": False, "window_sec": 2.0}
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints[name], **settings))
    assert isinstance(encoder, PretrainedAudioEncoder)
    waveform = make_waveform(4.5)
    encoded = encoder.encode([waveform])
    assert encoded.num_windows.tolist() == [3]
    # Half a second is two eighths of a window, which wav2vec2-BERT's needs no reaching back for.
    parts = [waveform[:32000], waveform[32000:64000], waveform[64000:]]
    frames = [plain_frames(checkpoints[name], part) for part in parts]
    if name == "clap":  # 2, 2 and 0.5 s
        frames = [part.repeat(times, 1) for part, times in zip(frames, (4, 4, 1), strict=True)]
    np.testing.assert_allclose(encoded.vectors[0], torch.cat(frames).mean(0), atol=1e-4)


def test_whisper_s_silence_does_not_count(checkpoints: dict[str, str]) -> None:
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints["whisper"]))
    assert isinstance(encoder, PretrainedAudioEncoder)
    inputs = encoder.inputs.stack([Window(0, make_waveform(1.0), 0), Window(1, make_waveform(0.101), 0)])
    assert inputs.counted is not None
    # 50 frames of 20 ms; 101 ms begin a sixth one.
    assert inputs.counted.sum(axis=1).tolist() == inputs.weights.tolist() == [50, 6]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_proves_itself_without_a_word(checkpoints: dict[str, str], name: str) -> None:
    with warnings.catch_warnings():
        # transformers warns of mel filters as AST and others have them: nobody can do anything about it.
        warnings.simplefilter("error", UserWarning)
        probe_audio_encoder(AudioEncoderConfig(name=checkpoints[name]))


def test_short_windows_of_a_model_that_hears_long_ones_are_told(
    checkpoints: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    probe_audio_encoder(AudioEncoderConfig(name=checkpoints["whisper"], window_sec=2.0))
    assert not caplog.text
    probe_audio_encoder(AudioEncoderConfig(name=checkpoints["whisper"], window_sec=0.5))
    assert "hears 2 s at a time" in caplog.text
    assert "--audio_encoder.window_sec 2 is 4.0 times as fast" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clap", r"audio_encoder\.layers: must be last for .*, whose layers are not of one width"),
        ("sew", "layers must be last for a sew model, whose layers are not of one width and one rate"),
        ("whisper", r"audio_encoder\.layers: .* has layers 0 \(what goes into the first\) to 2, but got 3"),
    ],
)
def test_layers_that_cannot_lie_side_by_side_are_one_line(checkpoints: dict[str, str], name: str, said: str) -> None:
    layers = [1, 3] if name == "whisper" else [0, 1]
    with pytest.raises(RequestError, match=said) as caught:
        probe_audio_encoder(AudioEncoderConfig(name=checkpoints[name], layers=layers))
    assert len(str(caught.value).splitlines()) == 1
