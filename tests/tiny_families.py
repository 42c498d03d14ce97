"""Tiny checkpoints of the encoders that people pick beside the recipes', random weights, for the real loading code."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_checkpoints import tf

SMALL: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
FRONT: dict[str, Any] = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


def _wave(kind: str, **changes: Any) -> tuple[Any, Any]:
    extractor = tf.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True)
    config = getattr(tf, f"{kind}Config")(**SMALL, **{**FRONT, **changes})
    return getattr(tf, f"{kind}Model")(config), extractor


def _sew() -> tuple[Any, Any]:
    kernels = {"conv_dim": (16,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
    return _wave("SEW", squeeze_factor=2, **kernels)


def _whisper() -> tuple[Any, Any]:
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    size = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 60, "num_mel_bins": 16}
    # Windows of 2 s: 200 columns of 10 ms, 100 frames.
    config = tf.WhisperConfig(**size, **heads, max_source_positions=100, pad_token_id=0)
    return tf.WhisperModel(config), tf.WhisperFeatureExtractor(feature_size=16, chunk_length=2)


def _wav2vec2_bert() -> tuple[Any, Any]:
    return tf.Wav2Vec2BertModel(
        tf.Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=160)
    ), tf.SeamlessM4TFeatureExtractor()


def _clap(*, fusion: bool = False) -> tuple[Any, Any]:
    text = {**SMALL, "vocab_size": 60, "projection_dim": 8}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16, "spec_size": 64}
    sizes = {"num_mel_bins": 16, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4], "projection_dim": 8}
    options = {"enable_fusion": fusion, "fusion_type": "aff_2d" if fusion else None}
    config = tf.ClapConfig(text_config=text, audio_config={**audio, **sizes, **options}, projection_dim=8)
    # Its map is 64 x 64: four stretches of 64 columns of 16 mels.
    kind = "fusion" if fusion else "rand_trunc"
    return tf.ClapModel(config), tf.ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation=kind)


def _ast() -> tuple[Any, Any]:
    extractor = tf.ASTFeatureExtractor(num_mel_bins=32, max_length=128)
    size = {"num_mel_bins": 32, "max_length": 128, "patch_size": 16, "frequency_stride": 10, "time_stride": 10}
    return tf.ASTModel(tf.ASTConfig(**SMALL, **size)), extractor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "whisper": _whisper,
    "wav2vec2-bert": _wav2vec2_bert,
    "hubert": lambda: _wave("Hubert"),
    "wavlm": lambda: _wave("WavLM"),
    "unispeech-sat": lambda: _wave("UniSpeechSat"),
    "sew": _sew,
    "data2vec": lambda: _wave(
        "Data2VecAudio", num_conv_pos_embeddings=3, conv_pos_kernel_size=5, num_conv_pos_embedding_groups=2
    ),
    "ast": _ast,
    "clap": _clap,
    "clap that fuses": lambda: _clap(fusion=True),
}


def save_family(folder: Path, name: str) -> str:
    """Save the model and the feature extractor of one of `FAMILIES`."""
    torch.manual_seed(7)
    path = folder / name.replace(" ", "_")
    shutil.rmtree(path, ignore_errors=True)
    for part in FAMILIES[name]():
        part.save_pretrained(path)
    return str(path)
