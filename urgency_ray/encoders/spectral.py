"""The built-in audio encoder: statistics over time of a log-mel spectrogram and its deltas. No weights, no download."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
from numpy.typing import NDArray

from urgency_ray.calls.audio import peak_normalize
from urgency_ray.config import AudioEncoderConfig
from urgency_ray.encoders.base import AudioEmbeddings, normalize_rows

NUM_MELS = 48
FFT_SAMPLES = 512
HOP_SAMPLES = 160
# Telephone speech ends at 4 kHz: mels above it would only hear the resampler.
MIN_HZ, MAX_HZ = 60.0, 3800.0
FLOOR_DB = -80.0


class SpectralEncoder:
    """Mean, deviation and the 10th and 90th percentile of each log-mel band, deviations of its first and second delta.

    Frames are 32 ms every 10 ms; levels are in units of 20 dB below the waveform's loudest frame band. The deltas (Furui 1986)
    carry what the averages lose: how fast the voice moves. It hears the whole call at once, in memory that grows with the call
    by 48 floats each 10 ms.

    Args:
        config: `peak_normalize` and `l2_normalize` apply; windows and pooling do not.
    """

    sample_rate_hz = 16_000
    dim = 6 * NUM_MELS

    def __init__(self, config: AudioEncoderConfig) -> None:
        self.config = config

    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> AudioEmbeddings:
        """Embed waveforms one by one: float32 (N, 288)."""
        vectors = np.stack([self._describe(waveform) for waveform in waveforms])
        vectors = normalize_rows(vectors, layer_norm=False, l2=self.config.l2_normalize)
        return AudioEmbeddings(vectors, np.ones(len(waveforms), np.int32))

    def _describe(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.config.peak_normalize:
            waveform = peak_normalize(waveform)
        if len(waveform) < FFT_SAMPLES:
            waveform = np.pad(waveform, (0, FFT_SAMPLES - len(waveform)))
        power = librosa.feature.melspectrogram(
            y=waveform,
            sr=self.sample_rate_hz,
            n_fft=FFT_SAMPLES,
            hop_length=HOP_SAMPLES,
            n_mels=NUM_MELS,
            fmin=MIN_HZ,
            fmax=MAX_HZ,
        )
        levels = np.maximum(librosa.power_to_db(power, ref=np.max, top_db=None), FLOOR_DB) / 20.0
        # librosa's delta needs as many frames as its window: the shortest utterances get a shorter one.
        width = min(9, levels.shape[1] - 1 + levels.shape[1] % 2)
        deltas = [np.zeros_like(levels)] * 2
        if width >= 3:
            deltas = [librosa.feature.delta(levels, width=width, order=order) for order in (1, 2)]
        low, high = np.percentile(levels, (10, 90), axis=1)
        statistics = [levels.mean(axis=1), levels.std(axis=1), low, high, *(10.0 * delta.std(axis=1) for delta in deltas)]
        return np.concatenate(statistics).astype(np.float32)
