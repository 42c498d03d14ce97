import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.random_projection import SparseRandomProjection
from tiny_checkpoints import SENTENCES, save_audio_checkpoint, save_text_checkpoint, tf

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig
from urgency_ray.encoders.audio_inputs import count_frames, frame_convs
from urgency_ray.encoders.base import normalize_rows
from urgency_ray.encoders.cpu import Int8Linear
from urgency_ray.encoders.front_end import FrontEnd
from urgency_ray.encoders.hashing import HashingEncoder
from urgency_ray.encoders.load import load_audio_encoder, load_text_encoder, resolve_weights
from urgency_ray.encoders.pretrained_audio import PretrainedAudioEncoder
from urgency_ray.errors import RequestError

AUDIO = ("data2vec", "wav2vec2_layer", "wav2vec2_group", "ast")
TEXT = ("roberta", "electra")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    saved = {name: save_audio_checkpoint(folder, name) for name in AUDIO}
    return saved | {name: save_text_checkpoint(folder, name) for name in TEXT}


def make_waveforms(*seconds: float) -> Any:
    rng = np.random.default_rng(0)
    return [(0.3 * rng.standard_normal(round(16000 * s))).astype(np.float32) for s in seconds]


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("name", AUDIO)
def test_an_audio_embedding_does_not_depend_on_its_neighbours(checkpoints: dict[str, str], name: str) -> None:
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints[name], window_sec=1.0, batch_size=3))
    # Some lengths are nearly equal: where a mask is exact, they are padded into one batch.
    waveforms = make_waveforms(0.7, 2.6, 1.0, 2.0, 0.68, 3.3)
    together = encoder.encode(waveforms).vectors
    assert together.shape == (6, encoder.dim)
    for waveform, vector in zip(waveforms, together, strict=True):
        assert cosine(encoder.encode([waveform]).vectors[0], vector) >= 0.99999


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_layer", "wav2vec2_group"])
def test_a_whole_call_equals_a_plain_transformers_forward(checkpoints: dict[str, str], name: str) -> None:
    # UrgencySense's audio embedding: peak-normalise, extractor, mean over time of last_hidden_state, L2.
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints[name], window_sec=None))
    extractor = tf.AutoFeatureExtractor.from_pretrained(checkpoints[name])
    model = tf.AutoModel.from_pretrained(checkpoints[name]).eval()
    waveforms = make_waveforms(1.3, 2.1)
    encoded = encoder.encode(waveforms)
    assert encoded.num_windows.tolist() == [1, 1]
    for waveform, vector in zip(waveforms, encoded.vectors, strict=True):
        inputs = extractor(waveform / np.abs(waveform).max(), sampling_rate=16000, return_tensors="pt").input_values
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model(inputs).last_hidden_state.mean(1)[0], dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_windows_are_pooled_by_frame_count(checkpoints: dict[str, str]) -> None:
    config = AudioEncoderConfig(name=checkpoints["wav2vec2_group"], window_sec=1.0, peak_normalize=False, l2_normalize=False)
    encoder = load_audio_encoder(config)
    extractor = tf.AutoFeatureExtractor.from_pretrained(checkpoints["wav2vec2_group"])
    model = tf.AutoModel.from_pretrained(checkpoints["wav2vec2_group"]).eval()
    (waveform,) = make_waveforms(1.5)
    inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        frames = torch.cat([model(part).last_hidden_state[0] for part in (inputs[:, :16000], inputs[:, 16000:])])
    encoded = encoder.encode([waveform])
    assert encoded.num_windows.tolist() == [2]
    np.testing.assert_allclose(encoded.vectors[0], frames.mean(0), atol=1e-4)


def test_the_last_window_reaches_back_and_counts_what_is_new(checkpoints: dict[str, str]) -> None:
    config = AudioEncoderConfig(name=checkpoints["data2vec"], window_sec=1.0, peak_normalize=False, l2_normalize=False)
    encoder = load_audio_encoder(config)
    model = tf.AutoModel.from_pretrained(checkpoints["data2vec"]).eval()
    (waveform,) = make_waveforms(1.3)
    inputs = torch.from_numpy((waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7))[None]
    with torch.no_grad():
        # 0.3 s are left: three eighths of a window are heard again from 0.925 s on, and 0.075 s, three frames, do not count.
        whole, tail = (model(part).last_hidden_state[0] for part in (inputs[:, :16000], inputs[:, 14800:]))
    np.testing.assert_allclose(encoder.encode([waveform]).vectors[0], torch.cat([whole, tail[3:]]).mean(0), atol=1e-4)


def test_every_sample_is_heard_and_counts_once(checkpoints: dict[str, str]) -> None:
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints["data2vec"], window_sec=1.0))
    assert isinstance(encoder, PretrainedAudioEncoder)
    for seconds in (0.05, 0.5, 1.0, 1.001, 1.1, 1.5, 2.2, 3.9):
        (waveform,) = make_waveforms(seconds)
        windows = list(encoder._windows(0, waveform))
        assert sum(len(window.samples) - window.num_heard for window in windows) == max(len(waveform), 1600)
        assert max(len(window.samples) for window in windows) <= 16000
        assert np.isfinite(encoder.encode([waveform]).vectors).all()


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_layer"])
def test_the_cpu_front_end_is_that_of_transformers(checkpoints: dict[str, str], name: str) -> None:
    model = tf.AutoModel.from_pretrained(checkpoints[name]).eval()
    front_end = FrontEnd(model.feature_extractor.conv_layers)
    # 1.3 s and 4.9 s: within a tile, and over three tiles of which the last is short.
    for num_samples in (400, 20800, 78411):
        inputs = torch.randn(2, num_samples)
        with torch.no_grad():
            torch.testing.assert_close(front_end(inputs), model.feature_extractor(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_layer", "ast"])
def test_int8_is_nearly_equal(checkpoints: dict[str, str], name: str) -> None:
    config = AudioEncoderConfig(name=checkpoints[name])
    waveforms = make_waveforms(1.3, 2.1)
    exact = load_audio_encoder(config).encode(waveforms).vectors
    quantised = load_audio_encoder(config.model_copy(update={"dtype": "int8"})).encode(waveforms).vectors
    assert not np.array_equal(exact, quantised)
    assert min(cosine(*pair) for pair in zip(exact, quantised, strict=True)) >= 0.995


def test_an_int8_layer_is_its_linear_layer_rounded() -> None:
    # Weights of 127 steps a row, inputs of 255 steps of 1/128: nothing is rounded, so the products are exact.
    weight = torch.tensor([[127.0, -3.0, 5.0], [0.5, 63.5, -1.0]])
    linear = torch.nn.Linear(3, 2)
    linear.load_state_dict({"weight": weight, "bias": torch.tensor([1.0, -2.0])})
    values = torch.tensor([[-1.0, 0.5, 127 / 128], [0.25, 0.0, -0.5]])
    with torch.no_grad():
        torch.testing.assert_close(Int8Linear(linear)(values), linear(values))


def test_frames_are_counted_by_the_arithmetic_of_convolutions() -> None:
    # By hand: 400 samples are one frame of wav2vec 2.0, each further 320 another one; 16,000 give 49.
    convs = list(zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True))
    assert count_frames(np.array([399, 400, 719, 720, 16000]), convs).tolist() == [0, 1, 1, 2, 49]


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_layer", "wav2vec2_group", "hubert", "adapter"])
def test_frames_are_counted_as_transformers_does(checkpoints: dict[str, str], name: str) -> None:
    small: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    small |= {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    if name == "hubert":
        model = tf.HubertModel(tf.HubertConfig(**small)).eval()
    elif name == "adapter":
        model = tf.Wav2Vec2Model(tf.Wav2Vec2Config(**small, add_adapter=True)).eval()
    else:
        model = tf.AutoModel.from_pretrained(checkpoints[name]).eval()
    lengths = np.array([1600, 1601, 1999, 2000, 16000, 16321, 48123])
    counted = count_frames(lengths, frame_convs(model.config))
    assert counted.tolist() == model._get_feat_extract_output_lengths(torch.from_numpy(lengths)).tolist()
    with torch.no_grad():
        given = [model(torch.zeros(1, length)).last_hidden_state.shape[1] for length in lengths]
    assert counted.tolist() == given


def test_ast_hears_all_of_a_long_call(checkpoints: dict[str, str]) -> None:
    encoder = load_audio_encoder(AudioEncoderConfig(name=checkpoints["ast"]))
    (waveform,) = make_waveforms(3.0)
    # 128 frames of 10 ms are 1.28 s: three windows, though no window was asked for.
    assert encoder.encode([waveform]).num_windows.tolist() == [3]
    other = waveform.copy()
    other[-8000:] *= 0.01
    assert cosine(encoder.encode([other]).vectors[0], encoder.encode([waveform]).vectors[0]) < 0.99999


@pytest.mark.parametrize("name", TEXT)
def test_a_text_embedding_follows_the_recipe_and_not_its_neighbours(checkpoints: dict[str, str], name: str) -> None:
    encoder = load_text_encoder(TextEncoderConfig(name=checkpoints[name], batch_size=3))
    tokenizer = tf.AutoTokenizer.from_pretrained(checkpoints[name])
    model = tf.AutoModel.from_pretrained(checkpoints[name]).eval()
    vectors = encoder.encode(SENTENCES).vectors
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        with torch.no_grad():
            cls = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0, 0]
        expected = torch.nn.functional.normalize(torch.nn.functional.layer_norm(cls, cls.shape), dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_mean_pooling_leaves_padding_out(checkpoints: dict[str, str]) -> None:
    encoder = load_text_encoder(TextEncoderConfig(name=checkpoints["electra"], pooling="mean", layer_norm=False))
    alone = encoder.encode(SENTENCES[:1]).vectors[0]
    np.testing.assert_allclose(encoder.encode(SENTENCES).vectors[0], alone, atol=1e-5)


@pytest.mark.parametrize(("name", "limit"), [("roberta", 66 - 1), ("electra", 66)])
def test_long_texts_are_cut_at_the_model_and_counted(checkpoints: dict[str, str], name: str, limit: int) -> None:
    encoder = load_text_encoder(TextEncoderConfig(name=checkpoints[name]))
    text = " ".join(SENTENCES * 10)
    encoded = encoder.encode([text, SENTENCES[0]])
    num_tokens = len(tf.AutoTokenizer.from_pretrained(checkpoints[name])(text)["input_ids"])
    assert encoded.num_tokens[0] == num_tokens > 66
    assert encoded.num_tokens_dropped.tolist() == [num_tokens - limit, 0]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_long_text_is_read_in_windows(checkpoints: dict[str, str], pooling: Literal["cls", "mean"]) -> None:
    config = TextEncoderConfig(name=checkpoints["electra"], max_tokens=16, pooling=pooling, overflow="window", layer_norm=False)
    encoder = load_text_encoder(config.model_copy(update={"l2_normalize": False}))
    tokenizer = tf.AutoTokenizer.from_pretrained(checkpoints["electra"])
    model = tf.AutoModel.from_pretrained(checkpoints["electra"]).eval()
    text = " ".join(SENTENCES)
    encoded = encoder.encode([text, SENTENCES[0], ""])
    words = tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = [words[start : start + 14] for start in range(0, len(words), 14)]
    assert encoded.num_windows.tolist() == [len(parts), 1, 1]
    assert encoded.num_tokens.tolist()[0] == len(words) + 2
    assert not encoded.num_tokens_dropped.any()
    with torch.no_grad():
        ends = tokenizer.cls_token_id, tokenizer.sep_token_id
        hidden = [model(torch.tensor([[ends[0], *part, ends[1]]])).last_hidden_state[0] for part in parts]
    vectors = torch.stack([part[0] if pooling == "cls" else part.mean(0) for part in hidden])
    weights = torch.tensor([float(len(part)) for part in parts])
    np.testing.assert_allclose(encoded.vectors[0], weights @ vectors / weights.sum(), atol=1e-5)
    assert np.isfinite(encoded.vectors).all()


def test_an_unknown_model_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"audio encoder .*empty: [^\n]+$"):
        load_audio_encoder(AudioEncoderConfig(name=str(tmp_path / "empty")))
    with pytest.raises(RequestError, match=r"^[^\n]+$"):
        resolve_weights(TextEncoderConfig(name="nobody/no-such-model"))


def test_a_model_of_the_hub_is_its_commit(checkpoints: dict[str, str], tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--nobody--tiny"
    shutil.copytree(checkpoints["electra"], folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit, encoding="utf-8")
    # In a process of its own: the cache's place is read once, when it starts.
    code = (
        "from urgency_ray.config import Config; from urgency_ray.embedding.transform import make_fingerprint, pin_revisions;"
        "config = pin_revisions(Config().replace({'text_encoder.name': 'nobody/tiny'}));"
        "print(config.text_encoder.revision, make_fingerprint(config).text_encoder['weights'])"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [commit, commit]


def test_weights_are_identified_by_content(checkpoints: dict[str, str], tmp_path: Path) -> None:
    before = resolve_weights(TextEncoderConfig(name=checkpoints["electra"]))
    other = str(shutil.copytree(checkpoints["electra"], tmp_path / "copy"))
    assert resolve_weights(TextEncoderConfig(name=other)) == before
    model = tf.AutoModel.from_pretrained(other)
    model.embeddings.word_embeddings.weight.data += 0.1
    model.save_pretrained(other)
    assert resolve_weights(TextEncoderConfig(name=other)) != before


def test_normalize_rows_matches_torch() -> None:
    values = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    expected = torch.nn.functional.normalize(torch.nn.functional.layer_norm(torch.from_numpy(values), (9,)), dim=-1)
    np.testing.assert_allclose(normalize_rows(values, layer_norm=True, l2=True), expected, atol=1e-6)
    assert not normalize_rows(np.zeros((1, 9), np.float32), layer_norm=False, l2=True).any()


def test_the_spectral_encoder_hears_loudness_changes_and_speed() -> None:
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
def test_the_spectral_encoder_takes_any_length(samples: int) -> None:
    vectors = load_audio_encoder(AudioEncoderConfig()).encode([np.full(samples, 0.5, np.float32)]).vectors
    assert np.isfinite(vectors).all()


def test_the_hashing_encoder_keeps_angles_between_texts() -> None:
    encoder = load_text_encoder(TextEncoderConfig(layer_norm=False, hashing_dim=2048))
    assert isinstance(encoder, HashingEncoder)
    exact = encoder.vectorizer.transform(SENTENCES).toarray()
    projected = encoder.encode(SENTENCES).vectors
    np.testing.assert_allclose(projected @ projected.T, exact @ exact.T, atol=5 / np.sqrt(2048))
    # " 불", "불 " and " 불 ": a word is read with the blanks around it.
    assert encoder.encode(["", "불"]).num_tokens.tolist() == [0, 3]


def test_the_hashing_encoder_projects_as_scikit_learn_does() -> None:
    encoder = load_text_encoder(TextEncoderConfig(layer_norm=False, l2_normalize=False, hashing_dim=64))
    assert isinstance(encoder, HashingEncoder)
    hashed = encoder.vectorizer.transform([*SENTENCES, ""])
    projection = SparseRandomProjection(64, random_state=119).fit(sparse.csr_matrix(hashed.shape))
    expected = projection.transform(hashed).toarray().astype(np.float32)
    np.testing.assert_array_equal(encoder.encode([*SENTENCES, ""]).vectors, expected)


COUNT_PAGES = """
import resource, torch
from urgency_ray.encoders.cpu import keep_freed_memory

pytestmark = pytest.mark.usefixtures("steady_arithmetic")

def work():
    blocks = [torch.ones(2_000_000) for _ in range(16)]

keep_freed_memory()
for _ in range(2):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_a_model_freed_is_not_asked_of_the_kernel_again() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_PAGES], check=True, capture_output=True, text=True)
    # 80 blocks of 1,953 pages. By default it is luck: from 1,953 faults, of one block in all, to 154,141.
    assert int(done.stdout) < 0.1 * 80 * 1953
