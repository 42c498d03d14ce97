"""Bytes of a recording -> mono waveform, its five acoustic features, and cuts of it. Pure functions.

A waveform is a float32 array of shape (num_samples,), full scale at ±1. No broken file becomes silence: what cannot be decoded
whole raises `Reject`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from urgency_ray.calls.channels import Channel, Turn, is_silent, pick_channel
from urgency_ray.calls.formats import HEADERLESS_SUFFIXES, format_of, refuse_unknown, skip_id3
from urgency_ray.calls.samples import SLACK_SEC, Samples, find_samples
from urgency_ray.errors import Reason, Reject

Waveform = NDArray[np.float32]

_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 384_000
_MAX_CHANNELS = 16
# As large a file of one byte a sample is read: a compressed one must not become more.
_MAX_SAMPLES_PER_SEC = 48_000 * 8
# The scale of 32-bit integers written as floats; far beyond it squares leave float32.
_MAX_PEAK = 2.0**31
_UNKNOWN_FRAMES = 2**62
_BLOCK_FRAMES = 1 << 20
# Of librosa.effects.split: samples, samples, and dB below the loudest frame.
_FRAME, _HOP, _TOP_DB, _MIN_POWER = 2048, 512, 25.0, 1e-10


class Heard(NamedTuple):
    """A decoded recording, and what was decided on the way that a user should know."""

    waveform: Waveform
    note: str | None = None


def decode_audio(
    content: bytes,
    sample_rate_hz: int,
    max_sec: float,
    *,
    name: str = "",
    channel: Channel = "mean",
    turns: Sequence[Turn] = (),
    pcm_rate_hz: int | None = None,
) -> Heard:
    """Decode a WAV (WAVEX, RF64, RIFX), W64, FLAC, OGG, MP3, AIFF or AU file of any encoding that libsndfile knows.

    Equals `librosa.load(sr=sample_rate_hz)`: soxr at quality HQ, ceil(num_frames * ratio) samples. What a file is, its first
    bytes say, not its name; but that of a headerless one must end in .pcm or .raw.

    Args:
        content: the whole file.
        sample_rate_hz: rate of the result.
        max_sec: longest audio that is decoded, in seconds, by its header.
        name: the file's name.
        channel: which channel is heard, see `pick_channel`.
        turns: who speaks when.
        pcm_rate_hz: sample rate of a headerless file; None refuses it.

    Raises:
        Reject: empty_audio, not_audio, truncated_audio (by more than 0.1 s), too_long, invalid_samples (NaN, infinite, beyond
            2**31), silent_audio (nothing but a constant), channels_cancel, invalid_label (no turns to tell the caller by).
    """
    found, how = _find_samples(content, name, pcm_rate_hz)
    rate, samples = _read_samples(found, how, max_sec, name)
    if samples.size == 0:
        raise Reject(Reason.EMPTY_AUDIO, "a header without samples")
    if not _peak(samples) <= _MAX_PEAK:  # NaN compares false
        raise Reject(Reason.INVALID_SAMPLES, f"the largest sample is {_peak(samples):g}")
    mono = pick_channel(samples, rate, channel, turns)
    if is_silent(mono):
        what = "zeros" if not mono.any() else "one value"
        raise Reject(Reason.SILENT_AUDIO, f"{len(mono) / rate:.1f} s of {what}")
    return Heard(_resample(mono, rate, sample_rate_hz), found.note)


def _resample(mono: Waveform, rate_hz: int, sample_rate_hz: int) -> Waveform:
    if rate_hz == sample_rate_hz:
        return mono
    resampled: Waveform = soxr.resample(mono, rate_hz, sample_rate_hz, quality="HQ")
    # librosa rounds the length up, soxr to the nearest.
    num_samples = math.ceil(len(mono) * (sample_rate_hz / rate_hz))
    missing = num_samples - len(resampled)
    return np.pad(resampled, (0, missing)) if missing > 0 else resampled[:num_samples]


def _find_samples(content: bytes, name: str, pcm_rate_hz: int | None) -> tuple[Samples, dict[str, Any]]:
    """The samples of a file, and how libsndfile is told what it is, where it has no header."""
    if not content:
        raise Reject(Reason.EMPTY_AUDIO, "zero bytes")
    start = skip_id3(content)
    kind, is_headerless = format_of(content, start), name.lower().endswith(HEADERLESS_SUFFIXES)
    # The marks of an MP3 without a tag are eleven bits, which samples can begin with as well: those of a quiet -1 do.
    if kind is None or (kind == "mp3" and start == 0 and is_headerless):
        if not is_headerless or pcm_rate_hz is None:
            raise refuse_unknown(content, name)
        how = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "samplerate": pcm_rate_hz, "channels": 1}
        return Samples(content, len(content)), how
    return find_samples(content, kind, start), {}


def _read_samples(found: Samples, how: dict[str, Any], max_sec: float, name: str) -> tuple[int, NDArray[np.float32]]:
    """Rate in Hz and samples, float32 (num_frames, num_channels)."""
    try:
        with soundfile.SoundFile(io.BytesIO(found.content), **how) as file:
            rate, num_frames = file.samplerate, file.frames
            if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ or file.channels > _MAX_CHANNELS:
                limits = f"{_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz and {_MAX_CHANNELS} channels are read"
                raise Reject(Reason.NOT_AUDIO, f"{rate} Hz, {file.channels} channels; {limits}")
            if num_frames >= _UNKNOWN_FRAMES:
                return rate, _read_to_end(found.content, max_sec)
            _refuse_long(num_frames, rate, file.channels, max_sec)
            if found.is_open:
                raise Reject(Reason.TRUNCATED_AUDIO, f"{num_frames / rate:.1f} s, and the end is not marked as such")
            if found.missing * num_frames > SLACK_SEC * rate * found.available:
                words = f"{found.available} of {found.available + found.missing} bytes of samples"
                raise Reject(Reason.TRUNCATED_AUDIO, words)
            # soundfile reads encodings that cannot seek, such as GSM 6.10, only if told how much.
            samples = file.read(num_frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Reject(*_describe_failure(error, found.content, name)) from None
    if num_frames - len(samples) > SLACK_SEC * rate:
        raise Reject(Reason.TRUNCATED_AUDIO, f"{len(samples) / rate:.1f} of {num_frames / rate:.1f} s of samples")
    return rate, samples


def _refuse_long(num_frames: int, rate_hz: int, num_channels: int, max_sec: float) -> None:
    if num_frames > max_sec * rate_hz:
        raise Reject(Reason.TOO_LONG, f"{num_frames / rate_hz:.1f} s; at most {max_sec:g} s are decoded")
    if num_frames * num_channels > max_sec * _MAX_SAMPLES_PER_SEC:
        raise Reject(Reason.TOO_LONG, f"{num_frames * num_channels} samples, more than {max_sec:g} s at 48 kHz in 8 channels")


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read on and on: soundfile would seek, which fails where the length is not known."""

    def seekable(self) -> bool:
        """Never."""
        return False


def _read_to_end(content: bytes, max_sec: float) -> NDArray[np.float32]:
    """All samples of a file whose header does not say how many there are."""
    blocks: list[NDArray[np.float32]] = []
    num_frames = 0
    with _Stream(io.BytesIO(content)) as file:
        while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            blocks.append(block)
            num_frames += len(block)
            _refuse_long(num_frames, file.samplerate, file.channels, max_sec)
        return np.concatenate(blocks) if blocks else np.empty((0, file.channels), np.float32)


def _describe_failure(error: soundfile.LibsndfileError, content: bytes, name: str) -> tuple[Reason, str]:
    words = " ".join(error.error_string.split()).rstrip(".")
    if "lost sync" in words:
        return Reason.TRUNCATED_AUDIO, f"{words}: damaged, or cut off"
    return Reason.NOT_AUDIO, f"{words}; convert it, with ffmpeg say" if content[:3] == b"RIF" else f"{name}: {words}"


def acoustic_features(waveform: Waveform, sample_rate_hz: int) -> dict[str, float]:
    """The five acoustic features of the UrgencySense recipe, of at least one sample.

    `duration_sec`; `speech_ratio`, the share of time inside `librosa.effects.split(top_db=25)`; `energy_mean`, the mean of y²;
    `peak_amp`, max |y|; `peak_to_rms` = peak_amp / sqrt(energy_mean), 0 where the energy is 0. Like librosa, `speech_ratio` of
    pure zeros is 1: every frame is as loud as the loudest.
    """
    num_samples = len(waveform)
    num_hops = num_samples // _HOP
    hops = waveform[: num_hops * _HOP].reshape(num_hops, _HOP)
    tail = waveform[num_hops * _HOP :]
    # librosa's centred, zero-padded frame k is the hops k - 2 to k + 1. Frames share the sums of hops, which is four times as
    # fast as librosa, and spares each worker the two seconds of importing it.
    energy = np.zeros(num_hops + 4)
    energy[2:-2] = np.einsum("ij,ij->i", hops, hops)
    energy[-2] = np.dot(tail, tail)
    power = np.convolve(energy, np.ones(4), mode="valid") / _FRAME
    level_db = 10.0 * np.log10(np.maximum(power, _MIN_POWER) / max(power.max(), _MIN_POWER))
    is_speech = level_db > -_TOP_DB
    num_speech = _HOP * np.count_nonzero(is_speech[:-1]) + len(tail) * is_speech[-1]

    energy_mean = float(energy.sum()) / num_samples
    peak = _peak(waveform)
    return {
        "duration_sec": num_samples / sample_rate_hz,
        "speech_ratio": float(num_speech) / num_samples,
        "energy_mean": energy_mean,
        "peak_amp": peak,
        "peak_to_rms": peak / math.sqrt(energy_mean) if energy_mean > 0.0 else 0.0,
    }


def peak_normalize(waveform: Waveform) -> Waveform:
    """Scale to a peak of 1; zeros stay zeros."""
    peak = _peak(waveform)
    return waveform / np.float32(peak) if peak > 0.0 else waveform


def cut(waveform: Waveform, sample_rate_hz: int, start_ms: int, end_ms: int, min_sec: float = 0.0) -> Waveform:
    """What the audio has of the span from `start_ms` to `end_ms`; a view.

    Raises:
        Reject: invalid_span (ends before it starts, or lies outside the audio) or too_short (under `min_sec` once cut).
    """
    start_ms = max(0, start_ms)
    if end_ms <= start_ms:
        raise Reject(Reason.INVALID_SPAN, f"from {start_ms} to {end_ms} ms")
    # Rounding both down keeps the length of a span the same wherever it starts.
    start, end = (ms * sample_rate_hz // 1000 for ms in (start_ms, end_ms))
    if start >= len(waveform):
        raise Reject(Reason.INVALID_SPAN, f"starts at {start_ms} ms; the audio ends at {len(waveform) / sample_rate_hz:.3f} s")
    span = waveform[start:end]
    if len(span) < max(1, round(min_sec * sample_rate_hz)):
        raise Reject(Reason.TOO_SHORT, f"{len(span) / sample_rate_hz:.3f} s; at least {min_sec:g} s")
    return span


def cut_call(waveform: Waveform, sample_rate_hz: int, start_ms: int, end_ms: int | None) -> Waveform:
    """The part of a file's audio that a manifest says is the call, where it says so; a view.

    Raises:
        Reject: invalid_span: it ends after the audio does, by more than 0.1 s, or before it starts.
    """
    length_sec = len(waveform) / sample_rate_hz
    end_sec = length_sec if end_ms is None else end_ms / 1000
    if end_sec > length_sec + SLACK_SEC:
        words = f"offset and duration: end at {end_sec:.3f} s, and the audio at {length_sec:.3f} s"
        raise Reject(Reason.INVALID_SPAN, f"{words}; both must be in seconds")
    # A duration is rounded, or of the header: what is left of the file belongs to it.
    if end_sec >= length_sec - SLACK_SEC:
        end_sec = length_sec
        if not start_ms:
            return waveform
    return cut(waveform, sample_rate_hz, start_ms, math.ceil(1000 * end_sec))


def _peak(waveform: Waveform) -> float:
    """Max |y| without a copy; NaN where a sample is NaN."""
    return max(float(waveform.max()), -float(waveform.min()))
