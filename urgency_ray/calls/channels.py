"""Several channels -> the one waveform that is heard. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from urgency_ray.errors import Reason, Reject

Channel = Literal["mean", "loudest", "left", "right", "caller"]

# Of full scale, from the least sample to the largest: a third of the least step of 16 bits. A constant is no sound either.
_SILENT_RANGE = 1e-5
# Of the loudest channel: what is left of a sum whose channels cancel.
_CANCELLED = 0.1


class Turn(NamedTuple):
    """When somebody speaks, in ms, and whether it is the caller."""

    start_ms: int
    end_ms: int
    is_caller: bool


def is_silent(waveform: NDArray[np.float32]) -> bool:
    """Whether nothing moves in a waveform of at least one sample: zeros, or any other constant."""
    return bool(waveform.max() - waveform.min() < _SILENT_RANGE) if len(waveform) > 1 else not waveform.any()


def pick_channel(samples: NDArray[np.float32], rate_hz: int, channel: Channel, turns: Sequence[Turn]) -> NDArray[np.float32]:
    """What is heard of samples (N, C): float32 (N,).

    `caller` is the channel in which the caller is louder than the operator, by the powers in their `turns`.

    Raises:
        Reject: channels_cancel (their sum has less than a tenth of what the loudest one has, as of a miswired recorder), or
            invalid_label (no turn of the caller's lies in the audio).
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    if channel == "mean":
        mean: NDArray[np.float32] = samples.mean(axis=1)
        _refuse_cancelled(samples, mean)
        return mean
    chosen = {"left": 0, "right": 1}.get(channel)
    if chosen is None:
        chosen = int(np.argmax(_powers(samples) if channel == "loudest" else _callers_share(samples, rate_hz, turns)))
    return np.ascontiguousarray(samples[:, chosen])


def _refuse_cancelled(samples: NDArray[np.float32], mean: NDArray[np.float32]) -> None:
    total, loudest = samples.shape[1] ** 2 * _power(mean), _powers(samples).max()
    if total < _CANCELLED**2 * loudest and not all(is_silent(channel) for channel in samples.T):
        what = "the mean of the channels is silence, and they are not; set data.channel to left or right"
        raise Reject(Reason.CHANNELS_CANCEL, what)


def _callers_share(samples: NDArray[np.float32], rate_hz: int, turns: Sequence[Turn]) -> NDArray[np.float64]:
    """How much of the power in turns is in the caller's, a channel; where nobody else speaks, that power itself."""
    powers = {is_caller: np.zeros(samples.shape[1]) for is_caller in (True, False)}
    num_caller = 0
    for start_ms, end_ms, is_caller in turns:
        start, end = (max(0, ms) * rate_hz // 1000 for ms in (start_ms, end_ms))
        if start < min(end, len(samples)):
            powers[is_caller] += len(samples[start:end]) * _powers(samples[start:end])
            num_caller += is_caller
    if not num_caller:
        what = "utterances: must have startAt, endAt and speaker 1 of the caller's, where data.channel is caller"
        raise Reject(Reason.INVALID_LABEL, what)
    if not powers[False].any():
        return powers[True]
    total = powers[True] + powers[False]
    return np.divide(powers[True], total, out=np.zeros_like(total), where=total > 0)


def _powers(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """That of each channel, (C,)."""
    return np.array([_power(channel) for channel in samples.T])


def _power(waveform: NDArray[np.float32]) -> float:
    """Mean square about the mean."""
    offset = waveform.mean()
    power = float(np.dot(waveform, waveform)) / len(waveform) - float(offset) ** 2
    if power >= float(offset) ** 2:
        return power
    # An offset that is larger than the sound takes the digits of the difference.
    centred = waveform - offset
    return float(np.dot(centred, centred)) / len(waveform)
