"""From the waveform of a call to what an audio model takes: windows, their features, and which frames of the output count.

Shapes: B windows of a batch, T frames that the model gives for the longest of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from urgency_ray.encoders.base import SAMPLE_RATE_HZ
from urgency_ray.errors import RequestError

# The convolutional front ends of the wav2vec family need 400 samples for one frame.
MIN_SAMPLES = 1600
# Where padding can be masked, a window may be this much shorter than the longest of its batch.
PADDING = 0.1


class Window(NamedTuple):
    """A stretch of a waveform: whose it is, its samples, and how many of them the window before it has heard already."""

    row: int
    samples: NDArray[np.float32]
    num_heard: int


class Inputs(NamedTuple):
    """A batch for a model.

    Attributes:
        values: its keyword arguments.
        counted: bool (B, T), the frames that enter the pooling; None where all do.
        weights: float64 (B,), what each window counts.
    """

    values: Mapping[str, Tensor]
    counted: NDArray[np.bool_] | None
    weights: NDArray[np.float64]


class AudioInputs(Protocol):
    """How a kind of model is given sound.

    Attributes:
        sample_rate_hz: of the waveforms that it is given.
        longest_sec: longest window that it hears; None where there is no such limit.
        is_fixed: whether it hears silence up to that length whatever it is given.
        hop: samples that windows come in multiples of, those from one frame to the next.
        padding: how much shorter than the longest a window of a batch may be, as a share of it.
    """

    sample_rate_hz: int
    longest_sec: float | None
    is_fixed: bool
    hop: int
    padding: float

    def prepare(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is done to a call as a whole, before it is cut into windows."""
        ...

    def stack(self, windows: Sequence[Window]) -> Inputs:
        """What the model takes of some windows, the longest first."""
        ...


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


def _count_new(windows: Sequence[Window], stop: NDArray[np.int64], hop: int, num_frames: int) -> NDArray[np.bool_]:
    """The frames, (B, num_frames), that the windows before have not heard, of `stop` in each."""
    # What is new may be shorter than a frame: its last one counts then.
    first = np.minimum(np.array([window.num_heard for window in windows]) // hop, stop - 1)
    frames = np.arange(num_frames)
    counted: NDArray[np.bool_] = (frames >= first[:, None]) & (frames < stop[:, None])
    return counted


class WaveformInputs:
    """The wav2vec 2.0 family: samples of zero mean and unit variance over the call.

    data2vec's positional convolutions see padding even behind a mask, and wav2vec2 with group norm must not get a mask at all:
    there, windows of exactly equal length share a batch, and nothing is padded. wav2vec2 with layer norm (XLSR) is exact behind
    a mask.
    """

    longest_sec: float | None = None
    is_fixed = False

    def __init__(self, extractor: Wav2Vec2FeatureExtractor, architecture: Any) -> None:
        self.extractor = extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.convs = frame_convs(architecture)
        self.hop = math.prod(stride for _, stride in self.convs)
        takes_mask = architecture.model_type == "wav2vec2" and architecture.feat_extract_norm == "layer"
        self.padding = PADDING if takes_mask else 0.0

    def prepare(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise the call: its mean and variance are not those of a window."""
        return np.asarray(self.extractor(waveform, sampling_rate=self.sample_rate_hz, return_tensors="np").input_values[0])

    def stack(self, windows: Sequence[Window]) -> Inputs:
        """`input_values` (B, samples), and a mask where windows differ in length."""
        lengths = np.array([len(window.samples) for window in windows])
        padded = np.zeros((len(windows), lengths.max()), np.float32)
        for row, window in zip(padded, windows, strict=True):
            row[: len(window.samples)] = window.samples
        values = {"input_values": torch.from_numpy(padded)}
        if lengths.min() < lengths.max():
            values["attention_mask"] = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).long()
        stop = count_frames(lengths, self.convs)
        counted = _count_new(windows, stop, self.hop, int(stop.max()))
        return Inputs(values, counted, counted.sum(axis=1).astype(np.float64))


class FilterbankInputs:
    """wav2vec2-BERT: mel filterbanks of zero mean and unit variance over a window, two to a frame, exact behind a mask."""

    longest_sec: float | None = None
    is_fixed = False
    padding = PADDING

    def __init__(self, extractor: SeamlessM4TFeatureExtractor) -> None:
        self.extractor = extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        # Its filterbanks are 10 ms apart.
        self.hop = self.sample_rate_hz // 100 * int(extractor.stride)

    def prepare(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Nothing: a window is normalised on its own."""
        return waveform

    def stack(self, windows: Sequence[Window]) -> Inputs:
        """`input_features` (B, T, 160) and their mask."""
        samples = [window.samples for window in windows]
        found = self.extractor(samples, sampling_rate=self.sample_rate_hz, return_tensors="pt")
        stop = found.attention_mask.sum(dim=1).numpy()
        counted = _count_new(windows, stop, self.hop, found.attention_mask.shape[1])
        values = {"input_features": found.input_features, "attention_mask": found.attention_mask}
        return Inputs(values, counted, counted.sum(axis=1).astype(np.float64))


class WhisperInputs:
    """Whisper: a log-mel spectrogram of 30 s, filled up with silence as in its training, whose frames do not count."""

    is_fixed = True
    padding = 1.0

    def __init__(self, extractor: WhisperFeatureExtractor, architecture: Any) -> None:
        self.extractor = extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.longest_sec: float | None = float(extractor.chunk_length)
        # A convolution of stride 2 makes a frame of two columns of the spectrogram.
        self.hop = 2 * int(extractor.hop_length)
        self.num_frames = int(architecture.max_source_positions)

    def prepare(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Nothing: a window is normalised on its own."""
        return waveform

    def stack(self, windows: Sequence[Window]) -> Inputs:
        """`input_features` (B, mels, 3000)."""
        samples = [window.samples for window in windows]
        features = self.extractor(samples, sampling_rate=self.sample_rate_hz, return_tensors="pt").input_features
        covered = np.array([math.ceil(len(window.samples) / self.hop) for window in windows])
        counted = np.arange(self.num_frames) < covered[:, None]
        return Inputs({"input_features": features}, counted, covered.astype(np.float64))


class AstInputs:
    """AST: a spectrogram of one fixed length, filled up with silence as in its training; windows count by their duration."""

    is_fixed = True
    padding = 1.0
    hop = 1

    def __init__(self, extractor: ASTFeatureExtractor) -> None:
        self.extractor = extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        # It pads or cuts everything to max_length frames of 10 ms: never hand it more.
        self.longest_sec: float | None = extractor.max_length * 0.010

    def prepare(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Nothing: its spectrograms are normalised with constants."""
        return waveform

    def stack(self, windows: Sequence[Window]) -> Inputs:
        """`input_values` (B, frames, mels)."""
        samples = [window.samples for window in windows]
        values = self.extractor(samples, sampling_rate=self.sample_rate_hz, return_tensors="pt").input_values
        return Inputs({"input_values": values}, None, np.array([len(each) for each in samples], np.float64))


class ClapInputs:
    """CLAP's audio tower: 10 s at its own 48 kHz, a shorter window repeated to that length; windows count by their duration."""

    sample_rate_hz = SAMPLE_RATE_HZ
    is_fixed = True
    padding = 1.0
    hop = 1

    def __init__(self, extractor: ClapFeatureExtractor) -> None:
        self.extractor = extractor
        self.longest_sec: float | None = float(extractor.max_length_s)

    def prepare(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Nothing: there is no level that it wants."""
        return waveform

    def stack(self, windows: Sequence[Window]) -> Inputs:
        """`input_features` (B, 1 or 4, frames, mels); `is_longer` says of each that it was not cut."""
        wanted_hz = int(self.extractor.sampling_rate)
        samples = [soxr.resample(window.samples, self.sample_rate_hz, wanted_hz, "HQ") for window in windows]
        most = int(self.extractor.nb_max_samples)
        found = self.extractor([each[:most] for each in samples], sampling_rate=wanted_hz, return_tensors="pt")
        # The extractor says of one at random that it was: a vector must not depend on chance.
        values = {"input_features": found.input_features, "is_longer": torch.zeros(len(samples), 1, dtype=torch.bool)}
        return Inputs(values, None, np.array([len(window.samples) for window in windows], np.float64))


def choose_inputs(name: str, extractor: Any, architecture: Any) -> AudioInputs:
    """How the model of this feature extractor and configuration is given sound.

    Raises:
        RequestError: it is of none of these kinds.
    """
    kind = architecture.model_type
    if isinstance(extractor, WhisperFeatureExtractor) and kind == "whisper":
        return WhisperInputs(extractor, architecture)
    if isinstance(extractor, ClapFeatureExtractor) and kind == "clap_audio_model":
        return ClapInputs(extractor)
    if isinstance(extractor, SeamlessM4TFeatureExtractor) and kind == "wav2vec2-bert" and not architecture.add_adapter:
        return FilterbankInputs(extractor)
    if isinstance(extractor, ASTFeatureExtractor):
        return AstInputs(extractor)
    has_frames = hasattr(architecture, "conv_stride") and hasattr(architecture, "hidden_size")
    if isinstance(extractor, Wav2Vec2FeatureExtractor) and has_frames:
        return WaveformInputs(extractor, architecture)
    raise RequestError(
        f"audio encoder {name}: a {kind} model with a {type(extractor).__name__}; choose one of the wav2vec 2.0 family "
        "(wav2vec2, wav2vec2-bert, HuBERT, WavLM, UniSpeech-SAT, SEW, data2vec-audio, ...), a Whisper, an AST or a CLAP"
    )
