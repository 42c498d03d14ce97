"""The whole extract against the recipe's own way and against the bare audio encoder.

    python benchmarks/pipeline.py [--pairs 5] [--calls 12]

Full-size architectures of UrgencySense (data2vec-audio-base, RoBERTa-base) with random weights, WAV and JSON files with the
real length distribution, all cores. The recipe's way: one call at a time, decoded twice with librosa, the whole call through
the encoder, the text padded to 384 tokens. Ours: Ray Data's pipeline as `urgency-ray extract` runs it, in float32, int8 and,
where the processor gains by it, bfloat16, its rate taken between the first and the last batch that comes out, so that what Ray
takes to start does not count. The limit: our encoder on ready windows at its best batch. Medians of paired runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from corpus import SAMPLE_RATE_HZ, median_ratio, save_encoders, timed, write_corpus
from transformers import AutoModel, AutoTokenizer, Wav2Vec2FeatureExtractor

from urgency_ray import cluster
from urgency_ray.calls.audio import acoustic_features, decode_audio
from urgency_ray.calls.label import parse_label
from urgency_ray.calls.plan import plan_calls
from urgency_ray.calls.transcript import join_transcript
from urgency_ray.config import Config
from urgency_ray.embedding.pipeline import embed_calls
from urgency_ray.embedding.transform import make_fingerprint
from urgency_ray.encoders.arithmetic import best_arithmetic
from urgency_ray.encoders.load import load_audio_encoder, load_text_encoder

# Small blocks, so that a few calls are enough batches to take a rate from; and the recipe does every third call.
CALLS_PER_BATCH = 3
RECIPE_STEP = 3


class Recipe:
    """UrgencySense's scripts, call by call."""

    def __init__(self, audio: str, text: str) -> None:
        self.extractor = Wav2Vec2FeatureExtractor.from_pretrained(audio)
        self.audio: Any = AutoModel.from_pretrained(audio).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(text)
        self.text: Any = AutoModel.from_pretrained(text).eval()

    @torch.inference_mode()
    def embed(self, wave: Path, transcript: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Features from one decode, the embedding from another."""
        waveform, _ = librosa.load(wave, sr=SAMPLE_RATE_HZ)
        librosa.effects.split(waveform, top_db=25)
        np.mean(waveform**2)
        waveform, _ = librosa.load(wave, sr=SAMPLE_RATE_HZ)
        inputs = self.extractor(waveform / np.abs(waveform).max(), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        heard = self.audio(inputs.input_values).last_hidden_state.mean(1)
        tokens = self.tokenizer(transcript, padding="max_length", max_length=384, truncation=True, return_tensors="pt")
        read = self.text(**tokens).last_hidden_state[:, 0]
        return torch.nn.functional.normalize(heard), torch.nn.functional.layer_norm(read, read.shape[-1:])


def pipeline_rate(config: Config, audio_sec: float) -> float:
    """Audio seconds per second of Ray Data's pipeline, from the first batch that is out to the last."""
    seen: list[tuple[float, float]] = []

    def note(batches: list[tuple[float, float]]) -> None:
        now = time.perf_counter()
        seen.extend((now, seconds) for _, seconds in batches)

    with cluster.Relay(note, every_sec=0.05) as send:
        embed_calls(plan_calls(config.data), config, make_fingerprint(config), send).materialize()
    assert abs(sum(seconds for _, seconds in seen) - audio_sec) < 1
    first, last = seen[0][0], seen[-1][0]
    return sum(seconds for moment, seconds in seen if moment > first) / (last - first)


def bare_rate(config: Config) -> float:
    """Audio seconds per second of the model on ready windows, at the best of three batch sizes."""
    assert config.audio_encoder.window_sec is not None
    model = load_audio_encoder(config.audio_encoder).model  # type: ignore[attr-defined]
    rates = []
    with torch.inference_mode():
        for batch in (2, 4, 8):
            windows = torch.randn(batch, round(config.audio_encoder.window_sec * SAMPLE_RATE_HZ)).to(model.dtype)
            model(windows)
            rates.append(batch * config.audio_encoder.window_sec / min(timed(lambda w=windows: model(w)) for _ in range(3)))  # type: ignore[misc]
    return max(rates)


def show_parts(config: Config, waves: list[Path], transcripts: list[str], audio_sec: float) -> None:
    """Seconds of each part alone, per 100 seconds of audio."""
    contents = [wave.read_bytes() for wave in waves]
    decoded: list[Any] = []
    seconds = {
        "decode, resample": timed(lambda: decoded.extend(decode_audio(c, SAMPLE_RATE_HZ, 600.0).waveform for c in contents))
    }
    seconds["features"] = timed(lambda: [acoustic_features(waveform, SAMPLE_RATE_HZ) for waveform in decoded])
    audio, text = load_audio_encoder(config.audio_encoder), load_text_encoder(config.text_encoder)
    audio.encode(decoded[:1])
    text.encode(transcripts[:1])
    seconds["audio encoder"] = timed(lambda: audio.encode(decoded))
    seconds["text encoder"] = timed(lambda: text.encode(transcripts))
    for name, value in seconds.items():
        print(f"  {name:<18}{100 * value / audio_sec:8.3f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder, "calls")
        calls.mkdir()
        write_corpus(calls, options.calls)
        audio, text = save_encoders(Path(folder))
        small_blocks = dict.fromkeys(
            ("extract.rows_per_block", "extract.batch_size", "text_encoder.batch_size"), CALLS_PER_BATCH
        )
        fields = {"data.root": str(calls), "audio_encoder.name": audio, "text_encoder.name": text}
        dtypes = ["float32", "int8"] + ["bfloat16"] * (best_arithmetic("cpu").dtype == "bfloat16")
        configs = {
            dtype: Config().replace({**fields, **small_blocks, "audio_encoder.dtype": dtype, "text_encoder.dtype": dtype})
            for dtype in dtypes
        }
        waves = sorted(calls.glob("*.wav"))
        labels = [parse_label(wave.with_suffix(".json").read_bytes(), True) for wave in waves]
        transcripts = [join_transcript(label.utterances, "all") for label in labels]
        seconds = [len(decode_audio(wave.read_bytes(), SAMPLE_RATE_HZ, 600.0).waveform) / SAMPLE_RATE_HZ for wave in waves]
        audio_sec = sum(seconds)
        some = list(zip(waves, transcripts, strict=True))[::RECIPE_STEP]
        cluster.connect(configs["float32"].ray)
        recipe = Recipe(audio, text)
        recipe.embed(waves[0], transcripts[0])
        rates: dict[str, list[float]] = {"recipe": []}
        rates |= {name: [] for dtype in dtypes for name in (dtype, f"bare {dtype}")}
        for _ in range(options.pairs):
            took = timed(lambda: [recipe.embed(*call) for call in some])
            rates["recipe"].append(sum(seconds[::RECIPE_STEP]) / took)
            for name, config in configs.items():
                rates[name].append(pipeline_rate(config, audio_sec))
                rates[f"bare {name}"].append(bare_rate(config))
            print("  ".join(f"{name} {values[-1]:.1f}" for name, values in rates.items()), flush=True)
        mean_sec = audio_sec / len(waves)
        for name, values in rates.items():
            rate = statistics.median(values)
            print(f"{name:<14}{rate:7.1f} audio seconds per second, {rate / mean_sec:.3f} calls per second")
        for name in dtypes:
            print(f"{name} / recipe {median_ratio(rates[name], rates['recipe']):.2f}, ", end="")
            print(f"{name} / bare encoder {median_ratio(rates[name], rates[f'bare {name}']):.2f}")
        for name, config in configs.items():
            print(f"{name}, per 100 s of audio, each alone with all cores:")
            show_parts(config, waves, transcripts, audio_sec)


if __name__ == "__main__":
    main()
