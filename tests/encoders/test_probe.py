"""What looks like an encoder and is none is one line before the work; what is one proves itself."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import SENTENCES, save_audio_checkpoint, save_text_checkpoint, tf

from urgency_ray.config import AudioEncoderConfig, Config, TextEncoderConfig
from urgency_ray.encoders import probe
from urgency_ray.encoders.load import load_text_encoder, resolve_weights
from urgency_ray.encoders.probe import check_vocabulary, probe_audio_encoder, probe_text_encoder
from urgency_ray.errors import RequestError

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return Path(save_text_checkpoint(tmp_path, "electra"))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    return Path(save_audio_checkpoint(tmp_path, "wav2vec2_layer"))


def refuse(message: str, *, text: Path | None = None, audio: Path | None = None, **fields: Any) -> None:
    """The probe of the folder ends in one line that names it, and says what `message` matches."""
    folder = text or audio
    probe: Any = probe_audio_encoder if text is None else probe_text_encoder
    section: Any = AudioEncoderConfig if text is None else TextEncoderConfig
    with pytest.raises(RequestError, match=message) as caught:
        probe(section(name=str(folder), **fields))
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_group", "wav2vec2_layer", "ast"])
@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_the_recipes_audio_architectures_prove_themselves(tmp_path: Path, name: str, dtype: Any) -> None:
    pooling: Any = "cls" if name == "ast" else "mean"
    probe_audio_encoder(AudioEncoderConfig(name=save_audio_checkpoint(tmp_path, name), dtype=dtype, pooling=pooling))


@pytest.mark.parametrize("name", ["electra", "roberta"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_recipes_text_architectures_prove_themselves(tmp_path: Path, name: str, pooling: Any) -> None:
    probe_text_encoder(TextEncoderConfig(name=save_text_checkpoint(tmp_path, name), pooling=pooling))


def test_bfloat16_is_tried_as_float32_where_there_is_no_gpu(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(probe, "probe_text_encoder", lambda config, device: tried.append(config.dtype))
    for dtype in ("bfloat16", "int8", "auto"):
        probe.probe_encoders(Config().replace({"text_encoder.name": str(text), "text_encoder.dtype": dtype}))
    assert tried == ["float32", "int8", "auto"]


def test_an_adapter_gives_vectors_of_its_own_width(tmp_path: Path) -> None:
    folder = Path(save_audio_checkpoint(tmp_path, "wav2vec2_layer"))
    config = tf.Wav2Vec2Config.from_pretrained(folder, add_adapter=True, output_hidden_size=16, num_adapter_layers=1)
    tf.Wav2Vec2Model(config).save_pretrained(folder)
    probe_audio_encoder(AudioEncoderConfig(name=str(folder)))


def save_whisper(folder: Path) -> None:
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tf.WhisperModel(
        tf.WhisperConfig(**size, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=60, pad_token_id=0)
    ).save_pretrained(folder)
    tf.WhisperFeatureExtractor().save_pretrained(folder)


def save_wav2vec2_bert(folder: Path) -> None:
    tf.Wav2Vec2BertModel(tf.Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=160)).save_pretrained(folder)
    tf.SeamlessM4TFeatureExtractor().save_pretrained(folder)


def save_moonshine(folder: Path) -> None:
    size = {"encoder_num_hidden_layers": 1, "decoder_num_hidden_layers": 1, "hidden_size": 24, "intermediate_size": 24}
    heads = {"encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "vocab_size": 60}
    tf.MoonshineModel(tf.MoonshineConfig(**size, **heads)).save_pretrained(folder)
    tf.Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_whisper, save_wav2vec2_bert, save_moonshine])
def test_a_model_that_is_not_known_how_to_hear_with_is_named(tmp_path: Path, save: Callable[[Path], None]) -> None:
    save(tmp_path)
    refuse(r"a \w+(-\w+)* model with a \w+; choose one of the wav2vec 2\.0 family", audio=tmp_path)


def test_an_extractor_of_another_rate_is_named(audio: Path) -> None:
    tf.Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(audio)
    refuse("hears 8000 Hz, calls are decoded to 16000 Hz", audio=audio)


def test_each_kind_of_model_in_the_other_s_place_is_named(audio: Path, text: Path) -> None:
    refuse("cannot be loaded", audio=text)
    refuse("cannot be loaded", text=audio)


def test_the_encoder_alone_of_a_model_with_a_decoder_reads(tmp_path: Path, text: Path) -> None:
    size = {
        "d_model": 24,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "vocab_size": 200,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 66}
    tokenizer = tf.AutoTokenizer.from_pretrained(text)
    model = tf.BartModel(tf.BartConfig(**size, **heads, pad_token_id=tokenizer.pad_token_id)).eval()
    model.save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    config = TextEncoderConfig(name=str(tmp_path / "bart"), layer_norm=False, l2_normalize=False)
    probe_text_encoder(config)
    with torch.inference_mode():
        expected = model.get_encoder()(**tokenizer(SENTENCES[0], return_tensors="pt")).last_hidden_state[0, 0]
    np.testing.assert_allclose(load_text_encoder(config).encode(SENTENCES[:1]).vectors[0], expected, atol=1e-5)


def save_causal(folder: Path, text: Path) -> Path:
    """A GPT-2 whose tokenizer has an end of text, and nothing to pad with."""
    tokenizer = tf.AutoTokenizer.from_pretrained(text)
    causal = tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]", unk_token="[UNK]")
    tf.GPT2Model(tf.GPT2Config(n_embd=24, n_layer=1, n_head=2, vocab_size=200, n_positions=66)).save_pretrained(folder)
    causal.save_pretrained(folder)
    return folder


def test_the_first_token_of_a_causal_model_is_refused_and_its_mean_reads(tmp_path: Path, text: Path) -> None:
    folder = save_causal(tmp_path / "gpt2", text)
    refuse("gives different inputs the same vector", text=folder, pooling="cls")
    probe_text_encoder(TextEncoderConfig(name=str(folder), pooling="mean"))


def test_a_tokenizer_that_pads_on_the_left_does_not_move_the_text(text: Path) -> None:
    encoder_before = load_text_encoder(TextEncoderConfig(name=str(text))).encode(SENTENCES).vectors
    path = text / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"padding_side": "left"}), encoding="utf-8")
    probe_text_encoder(TextEncoderConfig(name=str(text)))
    np.testing.assert_allclose(load_text_encoder(TextEncoderConfig(name=str(text))).encode(SENTENCES).vectors, encoder_before)


def test_a_model_without_its_tokenizer_is_named(text: Path) -> None:
    for path in text.glob("*token*"):
        path.unlink()
    refuse("its tokenizer knows no words; copy its tokenizer files, too", text=text)


def test_a_tokenizer_in_python_alone_is_named(tmp_path: Path) -> None:
    tf.CanineModel(tf.CanineConfig(**SMALL)).save_pretrained(tmp_path)
    tf.CanineTokenizer().save_pretrained(tmp_path)
    refuse("has no fast tokenizer", text=tmp_path)


def drop_body(folder: Path) -> None:
    save_file({"head.weight": torch.ones(3, 24)}, folder / "model.safetensors", metadata={"format": "pt"})


def change(folder: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = edit(weights[name]).clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def want_code(folder: Path) -> None:
    path = folder / "config.json"
    config = {"model_type": "ours", "auto_map": {"AutoModel": "ours.Model", "AutoConfig": "ours.Config"}}
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder / "ours.py").write_text("raise SystemExit('run')", encoding="utf-8")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("raise SystemExit('run')",)


def put_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "head alone": (drop_body, r"its weights lack .* and \d+ more; take a whole checkpoint"),
    "NaN": (lambda f: change(f, "encoder.layer.0.output.dense.weight", lambda w: w * np.nan), "hold NaN or infinite values in"),
    "other shape": (lambda f: change(f, "embeddings.word_embeddings.weight", lambda w: w[:7]), "cannot be loaded"),
    "cut": (cut, r"model\.safetensors is cut"),
    "LFS": (
        lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        r"model\.safetensors is a Git-LFS pointer",
    ),
    "code": (want_code, "it wants to run code of its own, which is never done here"),
    "pickle that runs": (put_pickle, "cannot be loaded"),
    "no config": (lambda f: (f / "config.json").unlink(), "cannot be loaded"),
    "gone": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_line(text: Path, damage: str) -> None:
    probe_text_encoder(TextEncoderConfig(name=str(text)))
    apply, message = DAMAGES[damage]
    apply(text)
    refuse(message, text=text)


def test_a_missing_preprocessor_is_named(audio: Path) -> None:
    (audio / "preprocessor_config.json").unlink()
    refuse("cannot be loaded", audio=audio)


def test_a_folder_has_no_revisions(text: Path) -> None:
    with pytest.raises(RequestError, match=r"text_encoder\.revision: nosuch, but .* is a folder, which has no revisions"):
        resolve_weights(TextEncoderConfig(name=str(text), revision="nosuch"))


def test_words_that_the_vocabulary_does_not_know_are_counted(text: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TextEncoderConfig(name=str(text))
    check_vocabulary(config, SENTENCES)
    assert not caplog.text
    with pytest.raises(RequestError, match=r"does not know 100% of the tokens of these transcripts"):
        check_vocabulary(config, ["γλῶσσα ἄλλη", "another tongue"])
    check_vocabulary(config, [*SENTENCES, "γλῶσσα", "ἄλλη", "ἔτι", "καί", "δέ"])
    assert "does not know" in caplog.text
