import shutil

import numpy as np
import pytest
import torch
from tiny_checkpoints import SENTENCES, save_audio_checkpoint, save_text_checkpoint
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

from urgency_ray.config import AudioEncoderConfig, ConfigError, TextEncoderConfig
from urgency_ray.encoders import load_audio_encoder, load_text_encoder, resolve_weights
from urgency_ray.encoders.base import normalize_rows

AUDIO = ("data2vec", "wav2vec2_layer", "wav2vec2_group", "ast")
TEXT = ("roberta", "electra")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    saved = {name: save_audio_checkpoint(folder, name) for name in AUDIO}
    return saved | {name: save_text_checkpoint(folder, name) for name in TEXT}


def make_waveforms(*seconds):
    rng = np.random.default_rng(0)
    return [(0.3 * rng.standard_normal(round(16000 * s))).astype(np.float32) for s in seconds]


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("name", AUDIO)
def test_an_audio_embedding_does_not_depend_on_its_neighbours(checkpoints, name):
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints[name], window_sec=1.0, batch_size=3))
    waveforms = make_waveforms(0.7, 2.6, 1.0, 2.0, 0.7, 3.3)
    together = encoder.encode(waveforms).vectors
    assert together.shape == (6, encoder.dim)
    for waveform, vector in zip(waveforms, together, strict=True):
        assert cosine(encoder.encode([waveform]).vectors[0], vector) >= 0.99999


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_layer", "wav2vec2_group"])
def test_a_whole_call_equals_a_plain_transformers_forward(checkpoints, name):
    # UrgencySense's audio embedding: peak-normalise, extractor, mean over time of last_hidden_state, L2.
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints[name]))
    extractor = AutoFeatureExtractor.from_pretrained(checkpoints[name])
    model = AutoModel.from_pretrained(checkpoints[name]).eval()
    waveforms = make_waveforms(1.3, 2.1)
    encoded = encoder.encode(waveforms)
    assert encoded.num_windows.tolist() == [1, 1]
    for waveform, vector in zip(waveforms, encoded.vectors, strict=True):
        inputs = extractor(waveform / np.abs(waveform).max(), sampling_rate=16000, return_tensors="pt").input_values
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model(inputs).last_hidden_state.mean(1)[0], dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_windows_are_pooled_by_frame_count(checkpoints):
    config = AudioEncoderConfig(name=checkpoints["wav2vec2_group"], window_sec=1.0, peak_normalize=False, l2_normalize=False)
    encoder = load_audio_encoder(config)
    extractor = AutoFeatureExtractor.from_pretrained(checkpoints["wav2vec2_group"])
    model = AutoModel.from_pretrained(checkpoints["wav2vec2_group"]).eval()
    (waveform,) = make_waveforms(1.5)
    inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        frames = torch.cat([model(part).last_hidden_state[0] for part in (inputs[:, :16000], inputs[:, 16000:])])
    encoded = encoder.encode([waveform])
    assert encoded.num_windows.tolist() == [2]
    np.testing.assert_allclose(encoded.vectors[0], frames.mean(0), atol=1e-4)


def test_no_sample_is_lost_to_windows(checkpoints):
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints["data2vec"], window_sec=1.0))
    for seconds in (0.05, 0.5, 1.0, 1.1, 1.5, 2.2, 3.9):
        (waveform,) = make_waveforms(seconds)
        windows = encoder._windows(waveform)
        assert sum(map(len, windows)) == max(len(waveform), 1600)
        assert max(map(len, windows)) <= 1.25 * 16000


def test_ast_hears_all_of_a_long_call(checkpoints):
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints["ast"]))
    (waveform,) = make_waveforms(3.0)
    # 128 frames of 10 ms are 1.28 s: three windows, though no window was asked for.
    assert encoder.encode([waveform]).num_windows.tolist() == [3]
    other = waveform.copy()
    other[-8000:] *= 0.01
    assert cosine(encoder.encode([other]).vectors[0], encoder.encode([waveform]).vectors[0]) < 0.99999


@pytest.mark.parametrize("name", TEXT)
def test_a_text_embedding_follows_the_recipe_and_not_its_neighbours(checkpoints, name):
    encoder = load_text_encoder(TextEncoderConfig(name=checkpoints[name], batch_size=3))
    tokenizer = AutoTokenizer.from_pretrained(checkpoints[name])
    model = AutoModel.from_pretrained(checkpoints[name]).eval()
    vectors = encoder.encode(SENTENCES).vectors
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        with torch.no_grad():
            cls = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0, 0]
        expected = torch.nn.functional.normalize(torch.nn.functional.layer_norm(cls, cls.shape), dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_mean_pooling_leaves_padding_out(checkpoints):
    encoder = load_text_encoder(TextEncoderConfig(name=checkpoints["electra"], pooling="mean", layer_norm=False))
    alone = encoder.encode(SENTENCES[:1]).vectors[0]
    np.testing.assert_allclose(encoder.encode(SENTENCES).vectors[0], alone, atol=1e-5)


@pytest.mark.parametrize(("name", "limit"), [("roberta", 66 - 1), ("electra", 66)])
def test_long_texts_are_cut_at_the_model_and_counted(checkpoints, name, limit):
    encoder = load_text_encoder(TextEncoderConfig(name=checkpoints[name]))
    text = " ".join(SENTENCES * 10)
    encoded = encoder.encode([text, SENTENCES[0]])
    num_tokens = len(AutoTokenizer.from_pretrained(checkpoints[name])(text)["input_ids"])
    assert encoded.num_tokens[0] == num_tokens > 66
    assert encoded.num_tokens_dropped.tolist() == [num_tokens - limit, 0]


def test_an_unknown_model_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"audio encoder .*empty: [^\n]+$"):
        load_audio_encoder(AudioEncoderConfig(name=str(tmp_path / "empty")))
    with pytest.raises(ConfigError, match=r"^[^\n]+$"):
        resolve_weights(TextEncoderConfig(name="nobody/no-such-model"))


def test_weights_are_identified_by_content(checkpoints, tmp_path):
    before = resolve_weights(TextEncoderConfig(name=checkpoints["electra"]))
    other = str(shutil.copytree(checkpoints["electra"], tmp_path / "copy"))
    assert resolve_weights(TextEncoderConfig(name=other)) == before
    model = AutoModel.from_pretrained(other)
    model.embeddings.word_embeddings.weight.data += 0.1
    model.save_pretrained(other)
    assert resolve_weights(TextEncoderConfig(name=other)) != before


def test_normalize_rows_matches_torch():
    values = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    expected = torch.nn.functional.normalize(torch.nn.functional.layer_norm(torch.from_numpy(values), (9,)), dim=-1)
    np.testing.assert_allclose(normalize_rows(values, layer_norm=True, l2=True), expected, atol=1e-6)
    assert not normalize_rows(np.zeros((1, 9), np.float32), layer_norm=False, l2=True).any()


def test_the_spectral_encoder_hears_loudness_changes_and_speed():
    encoder = load_audio_encoder(AudioEncoderConfig(l2_normalize=False))
    time = np.arange(32000) / 16000
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    slow, fast = (tone * (0.55 + 0.45 * np.sin(2 * np.pi * rate * time)).astype(np.float32) for rate in (1, 8))
    vectors = encoder.encode([tone, slow, fast, 0.1 * tone]).vectors.reshape(4, 6, -1)
    assert vectors.shape == (4, 6, 48)
    mean, std, low, high, delta, _ = np.moveaxis(vectors, 1, 0)
    assert (high + 1e-6 >= low).all()
    # Peak normalisation makes it deaf to the gain; the deviation hears the swell, the delta how fast it is.
    np.testing.assert_allclose(mean[0], mean[3], atol=1e-3)
    band = int(mean[0].argmax())
    assert std[1, band] > 3 * std[0, band]
    assert delta[2, band] > 2 * delta[1, band]


@pytest.mark.parametrize("samples", [1, 200, 400, 800, 1600, 16000])
def test_the_spectral_encoder_takes_any_length(samples):
    vectors = load_audio_encoder(AudioEncoderConfig()).encode([np.full(samples, 0.5, np.float32)]).vectors
    assert np.isfinite(vectors).all()


def test_the_hashing_encoder_keeps_angles_between_texts():
    encoder = load_text_encoder(TextEncoderConfig(layer_norm=False, hashing_dim=2048))
    exact = encoder.vectorizer.transform(SENTENCES).toarray()
    projected = encoder.encode(SENTENCES).vectors
    np.testing.assert_allclose(projected @ projected.T, exact @ exact.T, atol=5 / np.sqrt(2048))
    # " 불", "불 " and " 불 ": a word is read with the blanks around it.
    assert encoder.encode(["", "불"]).num_tokens.tolist() == [0, 3]
