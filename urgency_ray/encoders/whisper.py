"""Whisper: windows of at most half a minute that end in pauses, each written down by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSpeechSeq2Seq, LogitsProcessor, WhisperFeatureExtractor

from urgency_ray.config import TranscriberConfig
from urgency_ray.encoders.hub import load_processors, load_transformer
from urgency_ray.errors import RequestError

PAUSE_SEC = 0.2


def cut_at_pauses(waveform: NDArray[np.float32], size: int, reach: int, pause: int) -> list[tuple[int, int]]:
    """Cut a waveform into stretches (start, stop) of at most `size` samples, each at the quietest moment near its end.

    Args:
        waveform: (T,).
        size: samples of the longest stretch.
        reach: how many samples before its longest a stretch may end.
        pause: samples of a moment; the cut is in its middle.
    """
    spans, start = [], 0
    while start + size < len(waveform):
        stop = start + size
        tail = waveform[stop - reach : stop].astype(np.float64)
        if len(tail) >= pause:
            power = np.convolve(tail**2, np.ones(pause), mode="valid")
            # Of moments that are as quiet, the last.
            stop += int(len(power) - 1 - np.argmin(power[::-1])) + pause // 2 - reach
        spans.append((start, stop))
        start = stop
    return [*spans, (start, len(waveform))]


class _Watch(LogitsProcessor):
    """Looks for NaN in the logits of each step, and leaves them as they are; infinite ones are tokens that are ruled out."""

    def __init__(self, num_rows: int, device: str) -> None:
        self.is_broken = torch.zeros(num_rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.is_broken |= scores.isnan().any(dim=-1)
        return scores


class WhisperTranscriber:
    """Greedy, without timestamps and without what it wrote before as a prompt: no window can lead the next one astray.

    Args:
        config: model name, window, overlap (how far back from its end a window looks for a pause), language and arithmetic.
        device: torch device.

    Raises:
        RequestError: the model cannot be loaded, or does not know the language.
    """

    def __init__(self, config: TranscriberConfig, device: str = "cpu") -> None:
        name = config.name
        assert name is not None
        self.device = device
        self.batch_size = config.batch_size or (16 if device.startswith("cuda") else 4)
        self.extractor, self.tokenizer = load_processors("transcriber", config)
        if not isinstance(self.extractor, WhisperFeatureExtractor):
            raise RequestError(
                f"transcriber {name}: a Whisper with a {type(self.extractor).__name__}; copy its own preprocessor"
            )
        self.model, self.dtype = load_transformer("transcriber", config, device, AutoModelForSpeechSeq2Seq)
        if len(self.tokenizer) < self.model.config.vocab_size:
            known = f"{len(self.tokenizer)} of its {self.model.config.vocab_size} tokens"
            raise RequestError(f"transcriber {name}: its tokenizer knows {known}; copy its tokenizer files, too")
        self.sample_rate_hz = int(self.extractor.sampling_rate)
        self.size = round(min(config.window_sec, self.extractor.chunk_length) * self.sample_rate_hz)
        self.reach = min(round(config.overlap_sec * self.sample_rate_hz), self.size // 2)
        self.options = self._options(name, config.language)
        # Its own `generate` calls transformers' in a way that this warns of.
        logging.getLogger("transformers.generation").setLevel(logging.ERROR)

    def _options(self, name: str, language: str | None) -> dict[str, Any]:
        """What `generate` is told: the model's own settings ask for sampling or beams now and then."""
        # One call: a window is at most what one call hears, and a stray timestamp would have it heard again from there.
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "force_unique_generate_call": True}
        options["max_length"] = int(self.model.config.max_target_positions)
        known = getattr(self.model.generation_config, "lang_to_id", None)
        # A model of one language takes none.
        if not known or not getattr(self.model.generation_config, "is_multilingual", True):
            return options
        if language is not None and f"<|{language}|>" not in known:
            raise RequestError(
                f"transcriber.language: {language}, but {name} knows {', '.join(key.strip('<|>') for key in sorted(known))}"
            )
        return options | {"language": language, "task": "transcribe"}

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str | None]:
        """See `base.Transcriber.transcribe`."""
        pause = round(PAUSE_SEC * self.sample_rate_hz)
        spans = [
            (row, start, stop)
            for row, waveform in enumerate(waveforms)
            for start, stop in cut_at_pauses(waveform, self.size, self.reach, pause)
        ]
        parts: list[list[str | None]] = [[] for _ in waveforms]
        for first in range(0, len(spans), self.batch_size):
            batch = spans[first : first + self.batch_size]
            texts = self._write([waveforms[row][start:stop] for row, start, stop in batch])
            for (row, _, _), text in zip(batch, texts, strict=True):
                parts[row].append(text)
        return [None if None in some else " ".join(text.strip() for text in some if text) for some in parts]

    def _write(self, samples: Sequence[NDArray[np.float32]]) -> list[str | None]:
        # It fills each up to its 30 s: all are of one length, whoever shares the batch.
        inputs = self.extractor(
            list(samples), sampling_rate=self.sample_rate_hz, return_tensors="pt", return_attention_mask=True
        )
        watch = _Watch(len(samples), self.device)
        tokens = self.model.generate(
            inputs.input_features.to(self.device, self.dtype),
            attention_mask=inputs.attention_mask.to(self.device),
            logits_processor=[watch],
            **self.options,
        )
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [None if is_broken else text for text, is_broken in zip(texts, watch.is_broken.tolist(), strict=True)]
