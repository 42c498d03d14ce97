"""What looks like an encoder and is none is one line before the work; what is one proves itself."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from odd_checkpoints import save_byt5, save_causal, save_qwen2
from tiny_checkpoints import SENTENCES, save_audio_checkpoint, save_text_checkpoint, tf

from urgency_ray.config import AudioEncoderConfig, Config, TextEncoderConfig
from urgency_ray.encoders import arithmetic, probe
from urgency_ray.encoders.arithmetic import Arithmetic
from urgency_ray.encoders.load import load_text_encoder, resolve_weights
from urgency_ray.encoders.pretrained_text import PretrainedTextEncoder
from urgency_ray.encoders.probe import check_vocabulary, probe_audio_encoder, probe_text_encoder
from urgency_ray.errors import RequestError

pytestmark = pytest.mark.usefixtures("steady_arithmetic")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return Path(save_text_checkpoint(tmp_path, "electra"))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    return Path(save_audio_checkpoint(tmp_path, "wav2vec2_layer"))


@pytest.mark.parametrize("name", ["data2vec", "wav2vec2_group", "wav2vec2_layer", "ast"])
@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_the_recipes_audio_architectures_prove_themselves(tmp_path: Path, name: str, dtype: Any) -> None:
    pooling: Any = "cls" if name == "ast" else "mean"
    probe_audio_encoder(AudioEncoderConfig(name=save_audio_checkpoint(tmp_path, name), dtype=dtype, pooling=pooling))


@pytest.mark.parametrize("name", ["electra", "roberta"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_recipes_text_architectures_prove_themselves(tmp_path: Path, name: str, pooling: Any) -> None:
    probe_text_encoder(TextEncoderConfig(name=save_text_checkpoint(tmp_path, name), pooling=pooling))


@pytest.mark.parametrize("here", ["float32", "bfloat16"])
def test_arithmetic_of_few_bits_is_tried_where_the_processor_has_it(
    text: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(arithmetic, "best_arithmetic", lambda device: Arithmetic(here, ""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(probe, "probe_text_encoder", lambda config, device: tried.append(config.dtype))
    for dtype in ("bfloat16", "float16", "int8", "auto"):
        probe.probe_encoders(Config().replace({"text_encoder.name": str(text), "text_encoder.dtype": dtype}))
    assert tried == [here, "float32", "int8", "auto"]


def test_an_adapter_gives_vectors_of_its_own_width(tmp_path: Path) -> None:
    folder = Path(save_audio_checkpoint(tmp_path, "wav2vec2_layer"))
    config = tf.Wav2Vec2Config.from_pretrained(folder, add_adapter=True, output_hidden_size=16, num_adapter_layers=1)
    tf.Wav2Vec2Model(config).save_pretrained(folder)
    probe_audio_encoder(AudioEncoderConfig(name=str(folder)))


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


@pytest.mark.parametrize("save", [save_causal, save_qwen2])
def test_the_mean_of_a_causal_model_reads(tmp_path: Path, save: Callable[[Path], None]) -> None:
    save(tmp_path)
    probe_text_encoder(TextEncoderConfig(name=str(tmp_path), pooling="mean"))


def test_a_text_without_a_token_has_no_vector_and_disturbs_no_other(tmp_path: Path) -> None:
    save_qwen2(tmp_path)
    encoder = load_text_encoder(TextEncoderConfig(name=str(tmp_path), pooling="mean"))
    vectors = encoder.encode(["", SENTENCES[0]]).vectors
    assert np.isnan(vectors[0]).all()
    np.testing.assert_allclose(vectors[1], encoder.encode(SENTENCES[:1]).vectors[0], atol=1e-6)


def test_settings_of_sentence_transformers_that_are_not_taken_are_told(text: Path, caplog: pytest.LogCaptureFixture) -> None:
    probe_text_encoder(TextEncoderConfig(name=str(text)))
    assert not caplog.text
    (text / "1_Pooling").mkdir()
    (text / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    (text / "sentence_bert_config.json").write_text('{"max_seq_length": 16}', encoding="utf-8")
    probe_text_encoder(TextEncoderConfig(name=str(text)))
    assert "says --text_encoder.pooling mean, --text_encoder.max_tokens 16, which is not taken" in caplog.text
    caplog.clear()
    probe_text_encoder(TextEncoderConfig(name=str(text), pooling="mean", max_tokens=16))
    assert not caplog.text


def test_a_fault_in_an_encoder_s_own_code_is_a_fact_about_the_encoder(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("overflow_to_sample_mapping\nand more")

    monkeypatch.setattr(PretrainedTextEncoder, "_forward", fail)
    with pytest.raises(RequestError, match=r"text encoder .*: cannot be used: KeyError: .*; choose another") as caught:
        probe_text_encoder(TextEncoderConfig(name=str(text)))
    assert len(str(caught.value).splitlines()) == 1


def test_what_transformers_reports_of_a_model_that_is_whole_is_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_byt5(tmp_path)
    root = logging.getLogger("transformers")
    root.addHandler(caplog.handler)
    try:
        tf.AutoModel.from_pretrained(tmp_path)
        assert "decoder" in caplog.text, "its decoder, which nobody asks for, is missing"
        caplog.clear()
        probe_text_encoder(TextEncoderConfig(name=str(tmp_path)))
    finally:
        root.removeHandler(caplog.handler)
    assert not caplog.text


def test_a_tokenizer_that_pads_on_the_left_does_not_move_the_text(text: Path) -> None:
    encoder_before = load_text_encoder(TextEncoderConfig(name=str(text))).encode(SENTENCES).vectors
    path = text / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"padding_side": "left"}), encoding="utf-8")
    probe_text_encoder(TextEncoderConfig(name=str(text)))
    np.testing.assert_allclose(load_text_encoder(TextEncoderConfig(name=str(text))).encode(SENTENCES).vectors, encoder_before)


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
