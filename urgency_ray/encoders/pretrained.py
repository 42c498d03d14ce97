"""Hugging Face encoders, by name or folder. A neighbour's length never reaches an embedding: see the two classes for how."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer, Wav2Vec2FeatureExtractor

from urgency_ray.audio import peak_normalize
from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig
from urgency_ray.encoders.base import AudioEmbeddings, TextEmbeddings, normalize_rows
from urgency_ray.hub import load_pretrained, longest_input

# The convolutional front ends of the wav2vec family need 400 samples for one frame.
MIN_SAMPLES = 1600


def identify_weights(name: str, revision: str | None) -> str:
    """The commit of a Hub model, or a digest of the files of a folder.

    Raises:
        ConfigError: there is no such model or folder.
    """
    folder = Path(name)
    model_config = load_pretrained("pretrained", name, lambda: AutoConfig.from_pretrained(name, revision=revision))
    if not folder.is_dir():
        return str(getattr(model_config, "_commit_hash", None) or revision or "main")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as stream:
            digest.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _torch_dtype(dtype: str, device: str) -> torch.dtype:
    # bfloat16 products run a hundred times slower than float32 on CPUs without the instructions for them.
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


class PretrainedAudioEncoder:
    """A wav2vec-like model on raw waveforms, or a spectrogram model such as AST.

    data2vec's positional convolutions see padding even behind a mask, and wav2vec2 with group norm must not get a mask at all.
    So nothing is padded here: calls are cut into windows, and windows of exactly equal length share a batch. A call's embedding
    is the mean over the frames of all its windows. A spectrogram model hears windows of one fixed length, the last filled up
    with silence as in its training; its windows count by their duration.

    Args:
        config: model name, window, pooling and normalisation.
        device: torch device.

    Raises:
        ConfigError: the model cannot be loaded.
    """

    def __init__(self, config: AudioEncoderConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.dtype = _torch_dtype(config.dtype, device)
        source: dict[str, Any] = {"revision": config.revision}
        from_pretrained: Any = AutoFeatureExtractor.from_pretrained
        self.extractor = load_pretrained("audio", config.name, lambda: from_pretrained(config.name, **source))
        model = load_pretrained(
            "audio", config.name, lambda: AutoModel.from_pretrained(config.name, dtype=self.dtype, **source)
        )
        self.model = model.to(device).eval()
        self.dim = int(self.model.config.hidden_size)
        self.sample_rate_hz = int(self.extractor.sampling_rate)
        self.takes_waveform = isinstance(self.extractor, Wav2Vec2FeatureExtractor)

    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> AudioEmbeddings:
        """Embed waveforms: float32 (N, hidden_size)."""
        by_length: defaultdict[int, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)
        num_windows = np.zeros(len(waveforms), np.int32)
        for index, waveform in enumerate(waveforms):
            for window in self._windows(waveform):
                by_length[len(window)].append((index, window))
                num_windows[index] += 1
        sums = np.zeros((len(waveforms), self.dim), np.float64)
        weights = np.zeros(len(waveforms), np.float64)
        for length, members in by_length.items():
            for start in range(0, len(members), self.config.batch_size):
                batch = members[start : start + self.config.batch_size]
                vectors, num_frames = self._forward(np.stack([window for _, window in batch]))
                weight = num_frames if self.takes_waveform else length
                for (index, _), vector in zip(batch, vectors, strict=True):
                    sums[index] += weight * vector
                    weights[index] += weight
        vectors = (sums / weights[:, None]).astype(np.float32)
        return AudioEmbeddings(normalize_rows(vectors, layer_norm=False, l2=self.config.l2_normalize), num_windows)

    def _windows(self, waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        if self.config.peak_normalize:
            waveform = peak_normalize(waveform)
        if len(waveform) < MIN_SAMPLES:
            waveform = np.pad(waveform, (0, MIN_SAMPLES - len(waveform)))
        if self.takes_waveform:
            # The extractor's zero mean and unit variance are those of the call, not of a window.
            waveform = self.extractor(waveform, sampling_rate=self.sample_rate_hz, return_tensors="np").input_values[0]
        seconds = self._longest_window_sec()
        if seconds is None:
            return [waveform]
        size = round(seconds * self.sample_rate_hz)
        cuts = list(range(size, len(waveform), size))
        # A sliver at the end says little: it joins the window before it, where the model takes any length.
        if cuts and self.takes_waveform and len(waveform) - cuts[-1] < size // 4:
            cuts.pop()
        return np.split(waveform, cuts)

    def _longest_window_sec(self) -> float | None:
        # A spectrogram extractor pads or cuts everything to max_length frames of 10 ms: never hand it more.
        most = None if self.takes_waveform else self.extractor.max_length * 0.010
        limits = [limit for limit in (self.config.window_sec, most) if limit is not None]
        return min(limits, default=None)

    @torch.inference_mode()
    def _forward(self, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
        if self.takes_waveform:
            inputs = torch.from_numpy(windows)
        else:
            inputs = self.extractor(list(windows), sampling_rate=self.sample_rate_hz, return_tensors="pt").input_values
        hidden = self.model(inputs.to(self.device, self.dtype)).last_hidden_state.float()
        pooled = hidden[:, 0] if self.config.pooling == "cls" else hidden.mean(dim=1)
        return pooled.cpu().numpy(), hidden.shape[1]


class PretrainedTextEncoder:
    """A BERT-like model. Texts are sorted by length, padded to the longest of a batch and masked, in attention and in pooling.

    Args:
        config: model name, limit, pooling and normalisation.
        device: torch device.

    Raises:
        ConfigError: the model or its tokenizer cannot be loaded.
    """

    def __init__(self, config: TextEncoderConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.dtype = _torch_dtype(config.dtype, device)
        source: dict[str, Any] = {"revision": config.revision}
        self.tokenizer = load_pretrained("text", config.name, lambda: AutoTokenizer.from_pretrained(config.name, **source))
        model = load_pretrained("text", config.name, lambda: AutoModel.from_pretrained(config.name, dtype=self.dtype, **source))
        self.model = model.to(device).eval()
        self.dim = int(self.model.config.hidden_size)
        self.max_tokens = longest_input(self.tokenizer, self.model.config, config.max_tokens)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts: float32 (N, hidden_size)."""
        whole = self.tokenizer(list(texts), verbose=False)["input_ids"]
        num_tokens = np.array([len(ids) for ids in whole], np.int32)
        vectors = np.zeros((len(texts), self.dim), np.float32)
        order = np.argsort(num_tokens, kind="stable")
        for start in range(0, len(order), self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            batch = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(self.device)
            hidden = self.model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1)
            pooled = hidden[:, 0] if self.config.pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = pooled.cpu().numpy()
        vectors = normalize_rows(vectors, layer_norm=self.config.layer_norm, l2=self.config.l2_normalize)
        return TextEmbeddings(vectors, num_tokens, np.maximum(num_tokens - self.max_tokens, 0))
