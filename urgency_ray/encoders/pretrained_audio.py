"""Hugging Face audio encoders: windows of a call through a transformers model, pooled over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoFeatureExtractor

from urgency_ray.calls.audio import peak_normalize
from urgency_ray.config import AudioEncoderConfig
from urgency_ray.encoders.audio_inputs import MIN_SAMPLES, Window, choose_inputs
from urgency_ray.encoders.base import AudioEmbeddings, normalize_rows
from urgency_ray.encoders.hub import load_transformer
from urgency_ray.encoders.layers import hidden_states
from urgency_ray.encoders.settings import settle
from urgency_ray.huggingface import load_pretrained

# The last window of a call is as long as a multiple of this part of a window, so that those of many calls share a batch.
TAIL_STEPS = 8


class PretrainedAudioEncoder:
    """A call is cut into windows; its embedding is pooled over the frames of all of them, each sample counted once.

    The mean over a call is that of its windows, weighted by what each counts; with `mean_std` the deviation is that of all
    counted frames about the call's mean, not about a window's. Windows of one length, or of nearly one where that is exact,
    share a batch: see `audio_inputs`.

    Args:
        config: model name, layers, window, pooling, normalisation and arithmetic.
        device: torch device.

    Raises:
        RequestError: the model cannot be loaded, or has not such layers.
    """

    def __init__(self, config: AudioEncoderConfig, device: str = "cpu") -> None:
        self.config = settle(config)
        self.device = device
        self.batch_size = config.batch_size or (64 if device.startswith("cuda") else 8)
        source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
        from_pretrained: Any = AutoFeatureExtractor.from_pretrained
        extractor = load_pretrained("audio encoder", config.name, lambda: from_pretrained(config.name, **source))
        self.model: Any
        self.model, self.dtype = load_transformer("audio encoder", config, device)
        self.inputs = choose_inputs(config.name, extractor, self.model.config)
        self.sample_rate_hz = self.inputs.sample_rate_hz
        # What is heard at a time, be it silence: None where a window is as long as what it holds.
        self.fixed_window_sec = self.inputs.longest_sec if self.inputs.is_fixed else None
        self.layers = self.config.layers if isinstance(self.config.layers, list) else None
        adapted = getattr(self.model.config, "add_adapter", False)
        self.width = int(self.model.config.output_hidden_size if adapted else self.model.config.hidden_size)
        # Mean alone, or mean and variance.
        self.num_moments = 2 if config.pooling == "mean_std" else 1
        self.dim = (1 if self.layers is None else len(self.layers)) * self.num_moments * self.width

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> AudioEmbeddings:
        """Embed waveforms: float32 (N, dim), of each layer the mean, then the deviation where it is asked for."""
        windows = [window for row, waveform in enumerate(waveforms) for window in self._windows(row, waveform)]
        batches = list(self._batches(windows))
        # Nothing here waits for the device: the next batch is stacked and on its way while this one is computed.
        pooled = [self._forward(batch) for batch in batches]
        sums = np.zeros((len(waveforms), self.dim // self.num_moments // self.width, self.num_moments, self.width))
        weights = np.zeros(len(waveforms), np.float64)
        for batch, (moments, weight) in zip(batches, pooled, strict=True):
            rows = [window.row for window in batch]
            values = moments.cpu().numpy().astype(np.float64)
            # Variances about means of their own do not add up, mean squares do.
            values[:, :, 1:] += values[:, :, :1] ** 2 if self.num_moments == 2 else 0.0
            np.add.at(sums, rows, values * weight[:, None, None, None])
            np.add.at(weights, rows, weight)
        means = sums / weights[:, None, None, None]
        if self.num_moments == 2:
            means[:, :, 1] = np.sqrt(np.maximum(means[:, :, 1] - means[:, :, 0] ** 2, 0.0))
        vectors = means.astype(np.float32).reshape(*means.shape[:2], -1)
        num_windows = np.bincount([window.row for window in windows], minlength=len(waveforms)).astype(np.int32)
        vectors = normalize_rows(vectors, layer_norm=False, l2=self.config.l2_normalize)
        return AudioEmbeddings(vectors.reshape(len(waveforms), self.dim), num_windows)

    def _windows(self, row: int, waveform: NDArray[np.float32]) -> Iterator[Window]:
        if self.config.peak_normalize:
            waveform = peak_normalize(waveform)
        if len(waveform) < MIN_SAMPLES:
            waveform = np.pad(waveform, (0, MIN_SAMPLES - len(waveform)))
        waveform = self.inputs.prepare(waveform)
        limits = [limit for limit in (self.config.window_sec, self.inputs.longest_sec) if limit is not None]
        seconds, hop = min(limits, default=None), self.inputs.hop
        size = len(waveform) if seconds is None else hop * round(seconds * self.sample_rate_hz / hop)
        num_whole = len(waveform) // size
        for start in range(0, num_whole * size, size):
            yield Window(row, waveform[start : start + size], 0)
        rest = len(waveform) - num_whole * size
        if not rest:
            return
        length = rest
        if num_whole and not self.inputs.is_fixed:
            length = max(rest, math.ceil(size * math.ceil(rest * TAIL_STEPS / size) / TAIL_STEPS))
        yield Window(row, waveform[-length:], length - rest)

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[Window]]:
        shortest, batch = 1 - self.inputs.padding, list[Window]()
        for window in sorted(windows, key=lambda window: -len(window.samples)):
            if batch and (len(batch) == self.batch_size or len(window.samples) < shortest * len(batch[0].samples)):
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _forward(self, batch: list[Window]) -> tuple[Tensor, NDArray[np.float64]]:
        """Moments (B, layers, 1 or 2, width), still on the device, and the weight of each window, (B,)."""
        inputs = self.inputs.stack(batch)
        counted = None if inputs.counted is None else self._send(torch.from_numpy(inputs.counted))
        states = hidden_states(self.model, {name: self._send(value) for name, value in inputs.values.items()}, self.layers)
        return torch.stack([self._pool(hidden, counted) for hidden in states], dim=1), inputs.weights

    def _send(self, values: Tensor) -> Tensor:
        dtype = self.dtype if values.is_floating_point() else values.dtype
        if self.device == "cpu":
            return values.to(dtype)
        return values.pin_memory().to(self.device, dtype, non_blocking=True)

    def _pool(self, hidden: Tensor, counted: Tensor | None) -> Tensor:
        """Frames (B, T, D) to their moments (B, 1 or 2, D): the mean, and the variance about it."""
        if hidden.dim() == 4:  # CLAP's map of channels, frequencies and times: (B, D, F, T)
            hidden = hidden.flatten(2).transpose(1, 2)
        if self.config.pooling == "cls":
            return hidden[:, :1]
        weights = None if counted is None else counted.unsqueeze(-1).float()
        mean = _mean(hidden, weights)
        if self.num_moments == 1:
            return mean.unsqueeze(1)
        return torch.stack([mean, _mean((hidden - mean.unsqueeze(1)) ** 2, weights)], dim=1)


def _mean(hidden: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return hidden.mean(dim=1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
