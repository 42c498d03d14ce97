"""CTC speech recognizers of the wav2vec 2.0 family: the letter of each frame, and windows stitched together frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

from urgency_ray.config import TranscriberConfig
from urgency_ray.encoders.audio_inputs import count_frames, frame_convs
from urgency_ray.encoders.hub import load_processors, load_transformer
from urgency_ray.errors import RequestError

# Windows are filled up with silence to a multiple of this, each for itself: those of many calls, and utterances, share a batch,
# and none hears what it shares it with.
STEP_SEC = 0.5


class Window(NamedTuple):
    """A stretch of a waveform: whose it is, its samples, how many are its own, and which of its frames it decides."""

    row: int
    samples: NDArray[np.float32]
    num_samples: int
    first_frame: int
    stop_frame: int


def cut_windows(num_samples: int, size: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Windows of `size` samples over a waveform, each `overlap` samples into the one before; the last ends with it.

    Returns:
        Of each where it starts and stops, and where what it decides does: to the middle of what it shares with a neighbour.
    """
    starts = [0]
    while starts[-1] + size < num_samples:
        starts.append(starts[-1] + size - overlap)
    borders = [0, *(start + overlap // 2 for start in starts[1:]), num_samples]
    return [(start, min(start + size, num_samples), *bounds) for start, bounds in zip(starts, pairwise(borders), strict=True)]


class CtcTranscriber:
    """Greedy CTC: the likeliest token of each frame, repeats and blanks dropped (Graves et al. 2006).

    A long call is heard in windows that overlap; of the frames that two share, each decides its half, and the text is that of
    all frames in a row, as in transformers' speech recognition pipeline
    (https://huggingface.co/blog/asr-chunking). Each window is brought to zero mean and unit variance by itself, where the model
    wants that.

    Args:
        config: model name, window, overlap and arithmetic.
        device: torch device.

    Raises:
        RequestError: the model cannot be loaded, or its files do not fit together.
    """

    def __init__(self, config: TranscriberConfig, device: str = "cpu") -> None:
        name = config.name
        assert name is not None
        self.device = device
        self.batch_size = config.batch_size or (16 if device.startswith("cuda") else 4)
        self.extractor, self.tokenizer = load_processors("transcriber", config)
        self.model, self.dtype = load_transformer("transcriber", config, device, AutoModelForCTC)
        self._refuse_unknown(name)
        self.sample_rate_hz = int(self.extractor.sampling_rate)
        self.convs = frame_convs(self.model.config)
        self.hop = math.prod(stride for _, stride in self.convs)
        # In whole frames, so that those of neighbouring windows fall on one another.
        self.size = self._samples(config.window_sec)
        self.overlap = 2 * self._samples(config.overlap_sec / 2)
        self.step = round(STEP_SEC * self.sample_rate_hz)

    def _refuse_unknown(self, name: str) -> None:
        if not isinstance(self.extractor, Wav2Vec2FeatureExtractor):
            raise RequestError(f"transcriber {name}: does not hear waveforms, but what {type(self.extractor).__name__} makes")
        if not isinstance(self.tokenizer, Wav2Vec2CTCTokenizer):
            raise RequestError(f"transcriber {name}: its tokenizer, {type(self.tokenizer).__name__}, is none of CTC")
        architecture = self.model.config
        if getattr(architecture, "adapter_attn_dim", None) is not None:
            raise RequestError(f"transcriber {name}: knows languages by adapters, as MMS does; choose a model of Korean alone")
        known = len(set(self.tokenizer.get_vocab().values()) & set(range(architecture.vocab_size)))
        if known < architecture.vocab_size:
            raise RequestError(
                f"transcriber {name}: its tokenizer knows {known} of its {architecture.vocab_size} tokens; copy its tokenizer "
                "files, too"
            )
        if self.tokenizer.pad_token_id != architecture.pad_token_id:
            raise RequestError(
                f"transcriber {name}: its blank is token {architecture.pad_token_id}, and its tokenizer's is "
                f"{self.tokenizer.pad_token_id}; take files of one checkpoint"
            )

    def _samples(self, seconds: float) -> int:
        return self.hop * round(seconds * self.sample_rate_hz / self.hop)

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str | None]:
        """See `base.Transcriber.transcribe`."""
        windows = [window for row, waveform in enumerate(waveforms) for window in self._windows(row, waveform)]
        batches = list(self._batches([(order, window) for order, window in enumerate(windows)]))
        # Nothing here waits for the device until all is on its way.
        outputs = [self._forward([window for _, window in batch]) for batch in batches]
        tokens: dict[int, list[int] | None] = {}
        for batch, (ids, is_finite) in zip(batches, outputs, strict=True):
            for (order, window), row_ids, is_sound in zip(batch, ids.cpu().tolist(), is_finite.cpu().tolist(), strict=True):
                tokens[order] = row_ids[window.first_frame : window.stop_frame] if is_sound else None
        texts: list[str | None] = []
        for _, part in groupby(enumerate(windows), key=lambda item: item[1].row):
            found = [tokens[order] for order, _ in part]
            whole = [token for piece in found if piece is not None for token in piece]
            texts.append(None if None in found else self._spell(whole))
        return texts

    def _spell(self, tokens: Sequence[int]) -> str:
        # Not `skip_special_tokens`: the blank is one, and would go before what repeats across it is told apart.
        blank, said = self.tokenizer.pad_token_id, self.tokenizer.word_delimiter_token_id
        special = set(self.tokenizer.all_special_ids) - {said}
        text: str = self.tokenizer.decode([blank if token in special else token for token in tokens])
        return text

    def _windows(self, row: int, waveform: NDArray[np.float32]) -> Iterator[Window]:
        for start, stop, decides_from, decides_to in cut_windows(len(waveform), self.size, self.overlap):
            heard = waveform[start:stop]
            num_frames = max(0, int(count_frames(np.array(len(heard)), self.convs)))
            # The last frames of a window end behind the last border, which is a multiple of the hop but for that of the call.
            stop_frame = num_frames if stop == len(waveform) else min(num_frames, (decides_to - start) // self.hop)
            heard = self.extractor(heard, sampling_rate=self.sample_rate_hz, return_tensors="np").input_values[0]
            padded = np.pad(heard, (0, -len(heard) % self.step)).astype(np.float32, copy=False)
            yield Window(row, padded, stop - start, (decides_from - start) // self.hop, stop_frame)

    def _batches(self, windows: Sequence[tuple[int, Window]]) -> Iterator[list[tuple[int, Window]]]:
        by_length = sorted(windows, key=lambda item: -len(item[1].samples))
        for _, equal in groupby(by_length, key=lambda item: len(item[1].samples)):
            some = list(equal)
            yield from (some[start : start + self.batch_size] for start in range(0, len(some), self.batch_size))

    def _forward(self, batch: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Tokens (B, T), and whether all is finite, (B,); still on the device."""
        samples = torch.from_numpy(np.stack([window.samples for window in batch])).to(self.device, self.dtype)
        mask = {}
        # Where its extractor says so, the model was trained with masks: else silence is what it knows at an end.
        if self.extractor.return_attention_mask:
            lengths = torch.tensor([window.num_samples for window in batch])
            mask["attention_mask"] = (torch.arange(samples.shape[1]) < lengths[:, None]).long().to(self.device)
        logits = self.model(samples, **mask).logits.float()
        return logits.argmax(dim=-1), logits.isfinite().flatten(1).all(dim=1)
