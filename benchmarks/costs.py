"""What an hour of audio costs with the encoders that the shipped configs name: seconds of one core of this machine.

    python benchmarks/costs.py [--calls 2] [--configs urgency_sense whisper_large ...]

Architectures of full size with random weights (the speed is the same), in the config's own settings and the arithmetic that
`dtype: auto` takes here, on calls of the real lengths; text encoders on a call's words of about 30 utterances. One thread, as
extract's actors have on a small node, so that cores divide the time; it is the processor's time, not the clock's.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch: an actor of a small node has one thread.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import soundfile
import soxr
import torch
from corpus import SAMPLE_RATE_HZ, draw_texts, make_waves, save_encoders
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ElectraConfig,
    ElectraModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from urgency_ray.config import Config, load_config
from urgency_ray.encoders.arithmetic import best_arithmetic
from urgency_ray.encoders.load import is_built_in, load_audio_encoder, load_text_encoder

CONFIGS = Path(__file__).parents[1] / "configs"
SET_HOURS, SET_CALLS = 3064, 158_973
LARGE: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def save_wav2vec2_large(folder: Path) -> None:
    """The architecture of kresnik/wav2vec2-large-xlsr-korean."""
    Wav2Vec2Model(Wav2Vec2Config(**LARGE, feat_extract_norm="layer", do_stable_layer_norm=True)).save_pretrained(folder)
    _save_extractor(Wav2Vec2FeatureExtractor, folder, sampling_rate=SAMPLE_RATE_HZ, return_attention_mask=True)


def save_whisper_large(folder: Path) -> None:
    """The encoder of openai/whisper-large-v3; of its decoder, which is not loaded, a layer."""
    sizes: dict[str, Any] = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
    WhisperModel(WhisperConfig(**sizes, num_mel_bins=128, decoder_layers=1, decoder_attention_heads=20)).save_pretrained(folder)
    _save_extractor(WhisperFeatureExtractor, folder, feature_size=128)


def save_ast(folder: Path) -> None:
    """The architecture of MIT/ast-finetuned-audioset-10-10-0.4593."""
    ASTModel(ASTConfig()).save_pretrained(folder)
    _save_extractor(ASTFeatureExtractor, folder)


def _save_extractor(kind: Any, folder: Path, **options: Any) -> None:
    kind(**options).save_pretrained(folder)


def save_kcelectra(folder: Path) -> None:
    """The architecture of beomi/KcELECTRA-base."""
    base: dict[str, Any] = {"embedding_size": 768, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    ElectraModel(ElectraConfig(**base, intermediate_size=3072, vocab_size=32_000)).save_pretrained(folder)


def save_kure(folder: Path) -> None:
    """The architecture of nlpai-lab/KURE-v1, that of BAAI/bge-m3."""
    XLMRobertaModel(XLMRobertaConfig(**LARGE, vocab_size=32_000, max_position_embeddings=8194)).save_pretrained(folder)


AUDIO: dict[str, Callable[[Path], None]] = {
    "kresnik/wav2vec2-large-xlsr-korean": save_wav2vec2_large,
    "openai/whisper-large-v3": save_whisper_large,
    "MIT/ast-finetuned-audioset-10-10-0.4593": save_ast,
}
TEXT: dict[str, Callable[[Path], None]] = {"beomi/KcELECTRA-base": save_kcelectra, "nlpai-lab/KURE-v1": save_kure}


def give_folders(config: Config, folder: Path) -> Config:
    """The config with folders of random weights for the names of its encoders."""
    audio, text = save_encoders(folder)  # those of urgency_sense, and a tokenizer for all
    names = {"audio_encoder.name": audio, "text_encoder.name": text}
    for field, kinds, section in (
        ("audio_encoder.name", AUDIO, config.audio_encoder),
        ("text_encoder.name", TEXT, config.text_encoder),
    ):
        if is_built_in(section):
            del names[field]
        elif section.name in kinds:
            target = folder / field
            for file in Path(text).glob("*token*") if kinds is TEXT else ():
                target.mkdir(exist_ok=True)
                (target / file.name).write_bytes(file.read_bytes())
            kinds[section.name](target)
            names[field] = str(target)
    return config.replace(names)


def spent(work: Callable[[Any], Any], inputs: Any) -> float:
    """Seconds of the processor that `work` takes."""
    started = time.process_time()
    work(inputs)
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2)
    shipped = ["urgency_sense", "urgency_detect", "baseline_concat", "whisper_large"]
    parser.add_argument("--configs", nargs="+", default=shipped)
    options = parser.parse_args()
    torch.set_num_threads(1)
    waves = []
    for content in make_waves(options.calls):
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        waves.append(soxr.resample(samples, rate, SAMPLE_RATE_HZ).astype(np.float32))
    audio_sec = sum(map(len, waves)) / SAMPLE_RATE_HZ
    texts = draw_texts(8)
    arithmetic = best_arithmetic("cpu").dtype
    print(f"{options.calls} calls of {audio_sec:.0f} s in all; dtype auto is {arithmetic}; seconds an hour of audio")
    columns = (("audio", 9), ("x real time", 13), ("text", 8), ("both", 9), ("core hours of the set", 23), ("bytes a row", 13))
    print(f"{'config':<18}" + "".join(f"{name:>{width}}" for name, width in columns))
    for name in options.configs:
        with tempfile.TemporaryDirectory() as folder:
            config = give_folders(load_config(CONFIGS / f"{name}.yaml"), Path(folder))
            hearing, reading = load_audio_encoder(config.audio_encoder), load_text_encoder(config.text_encoder)
        hearing.encode([waves[0][: 4 * SAMPLE_RATE_HZ]])
        reading.encode(texts[:1])
        heard = spent(hearing.encode, waves) / audio_sec * 3600
        read = spent(reading.encode, texts) / len(texts) * SET_CALLS / SET_HOURS
        both, size = heard + read, 4 * (hearing.dim + reading.dim)
        cells = f"{name:<18}{heard:>9.0f}{3600 / heard:>13.1f}{read:>8.0f}{both:>9.0f}{both * SET_HOURS / 3600:>23,.0f}"
        print(f"{cells}{size:>13,}", flush=True)


if __name__ == "__main__":
    main()
