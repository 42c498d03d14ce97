"""Hugging Face audio encoders: a wav2vec-like model on raw waveforms, or a spectrogram model such as AST."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, Wav2Vec2FeatureExtractor

from urgency_ray.calls.audio import peak_normalize
from urgency_ray.config import AudioEncoderConfig
from urgency_ray.encoders.base import AudioEmbeddings, normalize_rows
from urgency_ray.encoders.hub import load_transformer
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import load_pretrained

# The convolutional front ends of the wav2vec family need 400 samples for one frame.
MIN_SAMPLES = 1600
# The last window of a call is as long as a multiple of this part of a window, so that those of many calls share a batch.
TAIL_STEPS = 8
# Where padding can be masked, a window may be this much shorter than the longest of its batch.
PADDING = 0.1


def frame_convs(architecture: Any) -> list[tuple[int, int]]:
    """(kernel, stride) of each convolution over time between the samples and the frames that a wav2vec-like model gives.

    Args:
        architecture: its transformers configuration. An adapter's convolutions, kernel 3 with a sample of padding on both
            sides, give as many frames as kernel 1 without.
    """
    convs = list(zip(architecture.conv_kernel, architecture.conv_stride, strict=True))
    if getattr(architecture, "add_adapter", False):
        convs += [(1, architecture.adapter_stride)] * architecture.num_adapter_layers
    return convs


def count_frames(num_samples: NDArray[np.int64], convs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Frames that waveforms come to, (N,), of their samples, (N,).

    A convolution of kernel K and stride s without padding makes floor((T - K) / s) + 1 of T (Dumoulin and Visin 2016,
    arXiv:1603.07285, relationship 5); those of the front end follow one another.
    """
    frames = num_samples
    for kernel, stride in convs:
        frames = (frames - kernel) // stride + 1
    return frames


class Window(NamedTuple):
    """A stretch of a waveform: whose it is, its samples, and how many of them the window before it has heard already."""

    row: int
    samples: NDArray[np.float32]
    num_heard: int


class PretrainedAudioEncoder:
    """A call is cut into windows; its embedding is the mean over the frames of all of them, each sample counted once.

    data2vec's positional convolutions see padding even behind a mask, and wav2vec2 with group norm must not get a mask at all:
    there, windows of exactly equal length share a batch, and nothing is padded. wav2vec2 with layer norm (XLSR) is exact behind
    a mask: there, windows of nearly equal length share a batch. A spectrogram model hears windows of one fixed length, the last
    filled up with silence as in its training; its windows count by their duration.

    Args:
        config: model name, window, pooling, normalisation and arithmetic.
        device: torch device.

    Raises:
        RequestError: the model cannot be loaded.
    """

    def __init__(self, config: AudioEncoderConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.batch_size = config.batch_size or (64 if device.startswith("cuda") else 8)
        source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
        from_pretrained: Any = AutoFeatureExtractor.from_pretrained
        self.extractor = load_pretrained("audio encoder", config.name, lambda: from_pretrained(config.name, **source))
        self.takes_waveform = isinstance(self.extractor, Wav2Vec2FeatureExtractor)
        self.model: Any
        self.model, self.dtype = load_transformer("audio encoder", config, device)
        self._refuse_unknown()
        adapted = getattr(self.model.config, "add_adapter", False)
        self.dim = int(self.model.config.output_hidden_size if adapted else self.model.config.hidden_size)
        self.sample_rate_hz = int(self.extractor.sampling_rate)
        self.convs = frame_convs(self.model.config) if self.takes_waveform else []
        # Samples from one frame to the next.
        self.hop = math.prod(stride for _, stride in self.convs)
        self.takes_mask = self.model.config.model_type == "wav2vec2" and self.model.config.feat_extract_norm == "layer"

    def _refuse_unknown(self) -> None:
        architecture = self.model.config
        has_frames = hasattr(architecture, "conv_stride") and hasattr(architecture, "hidden_size")
        if not (has_frames if self.takes_waveform else isinstance(self.extractor, ASTFeatureExtractor)):
            kind = f"a {architecture.model_type} model with a {type(self.extractor).__name__}"
            raise RequestError(
                f"audio encoder {self.config.name}: {kind}; choose one of the wav2vec 2.0 family (wav2vec2, HuBERT, WavLM, "
                "data2vec-audio, ...) or an AST"
            )

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> AudioEmbeddings:
        """Embed waveforms: float32 (N, hidden_size)."""
        windows = [window for row, waveform in enumerate(waveforms) for window in self._windows(row, waveform)]
        batches = list(self._batches(windows))
        # Nothing here waits for the device: the next batch is stacked and on its way while this one is computed.
        pooled = [self._forward(batch) for batch in batches]
        sums = np.zeros((len(waveforms), self.dim), np.float64)
        weights = np.zeros(len(waveforms), np.float64)
        for batch, (means, weight) in zip(batches, pooled, strict=True):
            rows = [window.row for window in batch]
            np.add.at(sums, rows, means.cpu().numpy().astype(np.float64) * weight[:, None])
            np.add.at(weights, rows, weight)
        vectors = (sums / weights[:, None]).astype(np.float32)
        num_windows = np.bincount([window.row for window in windows], minlength=len(waveforms)).astype(np.int32)
        return AudioEmbeddings(normalize_rows(vectors, layer_norm=False, l2=self.config.l2_normalize), num_windows)

    def _windows(self, row: int, waveform: NDArray[np.float32]) -> Iterator[Window]:
        if self.config.peak_normalize:
            waveform = peak_normalize(waveform)
        if len(waveform) < MIN_SAMPLES:
            waveform = np.pad(waveform, (0, MIN_SAMPLES - len(waveform)))
        if self.takes_waveform:
            # The extractor's zero mean and unit variance are those of the call, not of a window.
            waveform = self.extractor(waveform, sampling_rate=self.sample_rate_hz, return_tensors="np").input_values[0]
        seconds = self._longest_window_sec()
        size = len(waveform) if seconds is None else self.hop * round(seconds * self.sample_rate_hz / self.hop)
        num_whole = len(waveform) // size
        for start in range(0, num_whole * size, size):
            yield Window(row, waveform[start : start + size], 0)
        rest = len(waveform) - num_whole * size
        if not rest:
            return
        length = rest
        if num_whole and self.takes_waveform:
            length = max(rest, math.ceil(size * math.ceil(rest * TAIL_STEPS / size) / TAIL_STEPS))
        yield Window(row, waveform[-length:], length - rest)

    def _longest_window_sec(self) -> float | None:
        # A spectrogram extractor pads or cuts everything to max_length frames of 10 ms: never hand it more.
        most = None if self.takes_waveform else self.extractor.max_length * 0.010
        limits = [limit for limit in (self.config.window_sec, most) if limit is not None]
        return min(limits, default=None)

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[Window]]:
        padding = PADDING if self.takes_mask else 0.0 if self.takes_waveform else 1.0
        batch: list[Window] = []
        for window in sorted(windows, key=lambda window: -len(window.samples)):
            if batch and (len(batch) == self.batch_size or len(window.samples) < (1 - padding) * len(batch[0].samples)):
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _forward(self, batch: list[Window]) -> tuple[Tensor, NDArray[np.float64]]:
        """Pooled vectors (B, hidden_size), still on the device, and the weight of each, (B,)."""
        lengths = np.array([len(window.samples) for window in batch])
        if not self.takes_waveform:
            samples = [window.samples for window in batch]
            inputs = self.extractor(samples, sampling_rate=self.sample_rate_hz, return_tensors="pt").input_values
            return self._pool(self._send(inputs), {}, None), lengths.astype(np.float64)
        padded = np.zeros((len(batch), lengths.max()), np.float32)
        for row, window in zip(padded, batch, strict=True):
            row[: len(window.samples)] = window.samples
        mask: dict[str, Tensor] = {}
        if lengths.min() < lengths.max():
            mask["attention_mask"] = self._send(torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).long())
        stop = count_frames(lengths, self.convs)
        # What is new may be shorter than a frame: its last one counts then.
        first = np.minimum(np.array([window.num_heard for window in batch]) // self.hop, stop - 1)
        frames = np.arange(stop.max())
        counted = (frames >= first[:, None]) & (frames < stop[:, None])
        vectors = self._pool(self._send(torch.from_numpy(padded)), mask, self._send(torch.from_numpy(counted)))
        return vectors, counted.sum(axis=1).astype(np.float64)

    def _send(self, values: Tensor) -> Tensor:
        dtype = self.dtype if values.is_floating_point() else values.dtype
        if self.device == "cpu":
            return values.to(dtype)
        return values.pin_memory().to(self.device, dtype, non_blocking=True)

    def _pool(self, inputs: Tensor, mask: dict[str, Tensor], counted: Tensor | None) -> Tensor:
        hidden: Tensor = self.model(inputs, **mask).last_hidden_state.float()
        if self.config.pooling == "cls":
            return hidden[:, 0]
        if counted is None:
            return hidden.mean(dim=1)
        weights = counted.unsqueeze(-1).float()
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
