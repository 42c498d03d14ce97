"""What the benchmarks share: calls with the real length distribution, full-size checkpoints with random weights, timing."""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    Wav2Vec2FeatureExtractor,
    logging,
)

quiet: Any = logging.disable_progress_bar
quiet()

TELEPHONE_HZ = 8_000
SAMPLE_RATE_HZ = 16_000
UTTERANCES_PER_CALL = 30
SPECIAL = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def make_waves(num_calls: int) -> list[bytes]:
    """WAV files of speech-like noise bursts, 8 kHz PCM16: lognormal lengths, median 65 s, between 30 and 180 s."""
    rng = np.random.default_rng(0)
    waves = []
    for seconds in np.clip(rng.lognormal(np.log(65), 0.5, num_calls), 30, 180):
        num_samples = int(TELEPHONE_HZ * seconds)
        talks = np.repeat(rng.random(int(seconds) + 1) > 0.3, TELEPHONE_HZ)[:num_samples]
        file = io.BytesIO()
        soundfile.write(file, 0.1 * rng.standard_normal(num_samples) * talks, TELEPHONE_HZ, format="WAV", subtype="PCM_16")
        waves.append(file.getvalue())
    return waves


def _draw_text(rng: np.random.Generator) -> str:
    words = ("".join(chr(0xAC00 + int(code)) for code in rng.integers(0, 400, size=2)) for _ in range(rng.integers(2, 7)))
    return " ".join(words)


def draw_texts(num_calls: int) -> list[str]:
    """What is said in calls of `UTTERANCES_PER_CALL` utterances."""
    rng = np.random.default_rng(1)
    return [" ".join(_draw_text(rng) for _ in range(UTTERANCES_PER_CALL)) for _ in range(num_calls)]


def write_corpus(folder: Path, num_calls: int) -> None:
    """Calls of `make_waves` with labels of about 30 utterances each, as plain files."""
    rng = np.random.default_rng(1)
    for index, wave in enumerate(make_waves(num_calls)):
        utterances = [
            {"id": str(i), "startAt": 1000 * i, "endAt": 1000 * i + 900, "text": _draw_text(rng), "speaker": i % 2}
            for i in range(UTTERANCES_PER_CALL)
        ]
        label = {"_id": f"call{index}", "utterances": utterances, "urgencyLevel": "하중상"[index % 3]}
        (folder / f"call{index}_1.wav").write_bytes(wave)
        (folder / f"call{index}_1.json").write_text(json.dumps(label), encoding="utf-8")


def save_encoders(folder: Path) -> tuple[str, str]:
    """Checkpoints of the architectures of facebook/data2vec-audio-base and jhgan/ko-sroberta-multitask, random weights."""
    torch.manual_seed(0)
    audio, text = folder / "audio", folder / "text"
    Data2VecAudioModel(Data2VecAudioConfig()).save_pretrained(audio)
    make_extractor: Any = Wav2Vec2FeatureExtractor
    make_extractor(sampling_rate=SAMPLE_RATE_HZ, do_normalize=True, return_attention_mask=True).save_pretrained(audio)
    raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rng = np.random.default_rng(2)
    trainer = trainers.WordPieceTrainer(vocab_size=2000, special_tokens=list(SPECIAL.values()), show_progress=False)
    raw.train_from_iterator((_draw_text(rng) for _ in range(2000)), trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    make_tokenizer: Any = PreTrainedTokenizerFast
    tokenizer = make_tokenizer(tokenizer_object=raw, model_max_length=512, **SPECIAL)
    tokenizer.save_pretrained(text)
    RobertaModel(RobertaConfig(vocab_size=32000, max_position_embeddings=514, type_vocab_size=1)).save_pretrained(text)
    return str(audio), str(text)


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def matmul_peak(size: int = 2048, dtype: torch.dtype = torch.float32) -> float:
    """GFLOP/s of the best of ten square products: what this machine, as it is now, can do in an arithmetic."""
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / min(timed(lambda: left @ right) for _ in range(10)) / 1e9


def median_ratio(over: list[float], under: list[float]) -> float:
    """Median of the ratios of paired measurements."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
