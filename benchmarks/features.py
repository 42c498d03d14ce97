"""Decode + resample to 16 kHz + five acoustic features: our path against the recipe's librosa path, on one core.

    python benchmarks/features.py [--pairs 5] [--calls 40]

Both see the same WAV bytes (8 kHz PCM16, lengths as in the corpus: lognormal around a median of 65 s). The bare libraries
(soundfile decode and soxr resampling alone) are the limit that no path can pass. Prints the median of the paired ratios and the
largest relative difference between the two paths' features.
"""

from __future__ import annotations

import argparse
import functools
import io
import statistics
from typing import Any

import librosa
import numpy as np
import soundfile
import soxr
from corpus import SAMPLE_RATE_HZ, make_waves, median_ratio, timed
from numpy.typing import NDArray

from urgency_ray.calls.audio import acoustic_features, decode_audio
from urgency_ray.schema import ACOUSTIC_FEATURES


def by_librosa(content: bytes) -> dict[str, float]:
    """The recipe's way: librosa.load at 16 kHz, librosa.effects.split, NumPy."""
    waveform, _ = librosa.load(io.BytesIO(content), sr=SAMPLE_RATE_HZ)
    spans = librosa.effects.split(waveform, top_db=25)
    energy, peak = float(np.mean(waveform**2)), float(np.max(np.abs(waveform)))
    speech = sum(end - start for start, end in spans) / len(waveform)
    return dict(zip(ACOUSTIC_FEATURES, (len(waveform) / SAMPLE_RATE_HZ, speech, energy, peak, peak / energy**0.5), strict=True))


def by_us(content: bytes) -> dict[str, float]:
    """urgency_ray's way."""
    return acoustic_features(decode_audio(content, SAMPLE_RATE_HZ, 7200.0).waveform, SAMPLE_RATE_HZ)


def by_libraries(content: bytes) -> NDArray[Any]:
    """The limit: soundfile's decode and soxr's resampling, nothing else."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE_HZ, quality="HQ"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    calls = make_waves(options.calls)
    ways = {"librosa": by_librosa, "urgency_ray": by_us, "libraries": by_libraries}
    for way in ways.values():
        way(calls[0])
    runs = [{name: timed(functools.partial(list, map(way, calls))) for name, way in ways.items()} for _ in range(options.pairs)]
    seconds = {name: [run[name] for run in runs] for name in ways}
    audio_sec = sum(by_us(call)["duration_sec"] for call in calls)
    gap = max(
        abs(ours[name] - theirs[name]) / max(abs(theirs[name]), 1e-9)
        for ours, theirs in ((by_us(call), by_librosa(call)) for call in calls)
        for name in ACOUSTIC_FEATURES
    )
    for name in ways:
        print(f"{name:<12}{audio_sec / statistics.median(seconds[name]):>10,.0f}x real time on one core")
    print(f"urgency_ray / librosa    {median_ratio(seconds['librosa'], seconds['urgency_ray']):.2f}")
    print(f"urgency_ray / limit      {median_ratio(seconds['libraries'], seconds['urgency_ray']):.2f}")
    print(f"largest relative difference of a feature: {gap:.1e}")


if __name__ == "__main__":
    main()
