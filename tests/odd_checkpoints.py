"""Folders that look like encoders and cannot be used, as public reports have them, and what is said of each."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import SENTENCES, save_audio_checkpoint, save_text_checkpoint, tf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
WAV2VEC2 = tf.Wav2Vec2FeatureExtractor


def save_moonshine(folder: Path) -> None:
    size = {"encoder_num_hidden_layers": 1, "decoder_num_hidden_layers": 1, "hidden_size": 24, "intermediate_size": 24}
    heads = {"encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "vocab_size": 60}
    tf.MoonshineModel(tf.MoonshineConfig(**size, **heads)).save_pretrained(folder)
    WAV2VEC2(sampling_rate=16000).save_pretrained(folder)


def save_encodec(folder: Path) -> None:
    size = {"hidden_size": 8, "num_filters": 2, "codebook_size": 16, "codebook_dim": 8, "upsampling_ratios": [2, 2]}
    tf.EncodecModel(tf.EncodecConfig(**size, num_lstm_layers=1)).save_pretrained(folder)
    tf.EncodecFeatureExtractor(sampling_rate=16000).save_pretrained(folder)


def save_speecht5(folder: Path) -> None:
    size = {"hidden_size": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    heads = {"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_conv_pos_embedding_groups": 2}
    front = {"conv_dim": (8,) * 3, "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_conv_pos_embeddings": 4}
    tf.SpeechT5Model(tf.SpeechT5Config(**size, **heads, **front)).save_pretrained(folder)
    tf.SpeechT5FeatureExtractor().save_pretrained(folder)


def save_causal(folder: Path) -> None:
    """A GPT-2 whose tokenizer has an end of text, and nothing to pad with."""
    save_text_checkpoint(folder, "electra")
    tokenizer = tf.AutoTokenizer.from_pretrained(folder / "electra")
    shutil.rmtree(folder / "electra")
    causal = tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]", unk_token="[UNK]")
    tf.GPT2Model(tf.GPT2Config(n_embd=24, n_layer=1, n_head=2, vocab_size=200, n_positions=66)).save_pretrained(folder)
    causal.save_pretrained(folder)


def save_qwen2(folder: Path) -> None:
    """A decoder alone, with something to pad with."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<unk>", "<eos>"]
    raw.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=letters))
    tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", bos_token="<eos>"
    ).save_pretrained(folder)
    tf.Qwen2Model(tf.Qwen2Config(**SMALL, num_key_value_heads=2, vocab_size=320, pad_token_id=0)).save_pretrained(folder)


def save_canine(folder: Path) -> None:
    tf.CanineModel(tf.CanineConfig(**SMALL)).save_pretrained(folder)
    tf.CanineTokenizer().save_pretrained(folder)


def save_deberta(folder: Path) -> None:
    """The weights of a DeBERTa, without a tokenizer: transformers makes one that has each mark twice, and no word."""
    tf.DebertaV2Model(tf.DebertaV2Config(**SMALL, vocab_size=60, max_position_embeddings=66)).save_pretrained(folder)


def save_sentencepiece(folder: Path) -> None:
    tf.XLMRobertaModel(tf.XLMRobertaConfig(**SMALL, vocab_size=60, max_position_embeddings=66)).save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")


def save_byt5(folder: Path) -> None:
    size = {"d_model": 24, "d_kv": 12, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 384}
    tf.T5EncoderModel(tf.T5Config(**size)).save_pretrained(folder)
    tf.ByT5Tokenizer().save_pretrained(folder)


def save_electra(folder: Path) -> None:
    save_text_checkpoint(folder.parent, "electra")
    (folder.parent / "electra").rename(folder)


def save_wav2vec2(folder: Path) -> None:
    save_audio_checkpoint(folder.parent, "wav2vec2_layer")
    (folder.parent / "wav2vec2_layer").rename(folder)


def change(folder: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put another tensor in the place of one."""
    weights = load_file(folder / "model.safetensors")
    weights[name] = edit(weights[name]).clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def keep(folder: Path, is_kept: Callable[[str], bool], rename: Callable[[str], str] = str) -> None:
    """Keep some of the tensors alone, each under another name, or its own."""
    weights = {rename(name): value for name, value in load_file(folder / "model.safetensors").items() if is_kept(name)}
    save_file(weights | {"head.weight": torch.ones(3, 24)}, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def want_code(folder: Path) -> None:
    config = {"model_type": "ours", "auto_map": {"AutoModel": "ours.Model", "AutoConfig": "ours.Config"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "ours.py").write_text("raise SystemExit('run')", encoding="utf-8")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("raise SystemExit('run')",)


def put_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


def cut_pickle(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[: len(content) // 2])


def lose_shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    where = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    where[next(iter(where))] = "model-00002-of-00002.safetensors"
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def point_outside(folder: Path) -> None:
    """An index whose shard lies beside the folder."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "weights.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, "../weights.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def drop(pattern: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for path in list(folder.glob(pattern)):
            path.unlink()

    return apply


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return apply


def no_change(folder: Path) -> None:
    pass


class Odd(NamedTuple):
    """A folder that cannot be an encoder: how it is made, and a pattern of what is said."""

    section: str
    save: Callable[[Path], None]
    damage: Callable[[Path], object]
    said: str


HEARS_NOT = r"a \w+(-\w+)* model with a \w+; choose one of the wav2vec 2\.0 family"
SAME = "gives different inputs the same vector"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
WEIGHT = "encoder.layer.0.output.dense.weight"

ODD: dict[str, Odd] = {
    "moonshine": Odd("audio", save_moonshine, no_change, HEARS_NOT),
    "encodec": Odd("audio", save_encodec, no_change, HEARS_NOT),
    "speecht5": Odd("audio", save_speecht5, no_change, HEARS_NOT),
    "8 kHz": Odd(
        "audio",
        save_wav2vec2,
        lambda f: WAV2VEC2(sampling_rate=8000, do_normalize=True).save_pretrained(f),
        "hears 8000 Hz, calls are decoded to 16000 Hz",
    ),
    "no preprocessor": Odd("audio", save_wav2vec2, drop("preprocessor_config.json"), "cannot be loaded"),
    "text as audio": Odd("audio", save_electra, no_change, "cannot be loaded"),
    "audio as text": Odd("text", save_wav2vec2, no_change, "cannot be loaded"),
    "causal": Odd("text", save_causal, no_change, SAME),
    "causal that pads": Odd("text", save_qwen2, no_change, SAME),
    "canine": Odd("text", save_canine, no_change, "a canine model sees what a text is padded with"),
    "no tokenizer, but its marks twice": Odd(
        "text", save_deberta, no_change, "its tokenizer knows no words; copy its tokenizer files, too"
    ),
    "SentencePiece alone": Odd("text", save_sentencepiece, no_change, r"SentencePiece model alone \(pip install sentencepiece"),
    "no tokenizer": Odd("text", save_electra, drop("*token*"), "its tokenizer knows no words; copy its tokenizer files, too"),
    "head alone": Odd(
        "text", save_electra, lambda f: keep(f, lambda _: False), r"its weights lack .* and \d+ more; take a whole checkpoint"
    ),
    "prefixed": Odd(
        "text", save_electra, lambda f: keep(f, lambda _: True, lambda name: f"module.net.{name}"), "its weights lack"
    ),
    "half": Odd("audio", save_wav2vec2, lambda f: keep(f, lambda name: "layers.1" not in name), "its weights lack"),
    "NaN": Odd("text", save_electra, lambda f: change(f, WEIGHT, lambda w: w * np.nan), "hold NaN or infinite values in"),
    "other shape": Odd(
        "text",
        save_electra,
        lambda f: change(f, "embeddings.word_embeddings.weight", lambda w: w[:7]),
        r"other shapes than its weights have of embeddings\.word_embeddings\.weight; take both from one model",
    ),
    "cut": Odd("text", save_electra, cut, r"model\.safetensors is cut"),
    "cut audio": Odd("audio", save_wav2vec2, cut, r"model\.safetensors is cut"),
    "empty": Odd("audio", save_wav2vec2, put("model.safetensors", b""), r"model\.safetensors is empty"),
    "LFS pointer": Odd("text", save_electra, put("model.safetensors", LFS), r"model\.safetensors is a Git-LFS pointer"),
    "LFS pointer of a tokenizer": Odd(
        "text", save_electra, put("tokenizer.json", LFS), r"tokenizer\.json is a Git-LFS pointer"
    ),
    "cut preprocessor": Odd("audio", save_wav2vec2, put("preprocessor_config.json", b'{"feat'), r"_config\.json is no JSON"),
    "empty config": Odd("text", save_electra, put("config.json", b""), r"config\.json is empty"),
    "web page": Odd("audio", save_wav2vec2, put("model.safetensors", b"<!DOCTYPE html>"), "is a web page, not the weights"),
    "shard missing": Odd("text", save_electra, lose_shard, r"model-00002-of-00002\.safetensors"),
    "shard elsewhere": Odd("text", save_electra, point_outside, r"names \.\./weights\.safetensors, outside the folder"),
    "whole numbers": Odd(
        "text", save_electra, lambda f: change(f, WEIGHT, lambda w: w.to(torch.int8)), f"are whole numbers in {WEIGHT}"
    ),
    "overflow of float16": Odd(
        "text", save_electra, lambda f: change(f, WEIGHT, lambda w: (1e9 * w).half()), "hold NaN or infinite values in"
    ),
    "code": Odd("text", save_electra, want_code, "it wants to run code of its own, which is never done here"),
    "pickle that runs": Odd("text", save_electra, put_pickle, r"a pickle that could run code, .* \(take its safetensors\)"),
    "cut pickle": Odd("text", save_electra, cut_pickle, r"pytorch_model\.bin is cut"),
    "empty folder": Odd("text", Path.mkdir, no_change, "cannot be loaded: .*give the folder of a whole model"),
    "no config": Odd("text", save_electra, drop("config.json"), "cannot be loaded"),
    "no folder": Odd("text", save_electra, shutil.rmtree, "no such folder"),
}
