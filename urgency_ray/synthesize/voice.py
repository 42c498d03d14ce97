"""A voice without a person: turns of two speakers on a telephone line, from the source-filter model of speech.

A train of glottal pulses, or noise, passes the resonances of a vocal tract (Fant 1960, Acoustic Theory of Speech Production;
cascade of formant resonators after Klatt 1980, Software for a cascade/parallel formant synthesizer, JASA 67). No word can be
understood; pitch, pace, pauses and loudness are those of speech, and they alone carry the voice cue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from urgency_ray.schema import CALLER, DISPATCHER

SAMPLE_RATE_HZ = 8000
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
HOP = 128
FFT_SAMPLES = 4 * HOP
TELEPHONE_HZ = (300.0, 3400.0)
TELEPHONE_BAND = signal.butter(4, TELEPHONE_HZ, "bandpass", fs=SAMPLE_RATE_HZ, output="sos")

VOWELS_HZ = np.array(
    [
        (740, 1300, 2500, 3400),  # 아
        (600, 1000, 2550, 3400),  # 어
        (450, 850, 2600, 3300),  # 오
        (370, 900, 2400, 3300),  # 우
        (400, 1450, 2450, 3300),  # 으
        (320, 2200, 3000, 3500),  # 이
        (500, 1850, 2600, 3400),  # 에
    ]
)
"""Round formants F1 to F4 of the Korean vowels for an adult man."""
BANDWIDTHS_HZ = (70.0, 100.0, 160.0, 250.0)


class Turn(NamedTuple):
    """One utterance's place in the audio, in whole milliseconds, and its speaker (schema.DISPATCHER or schema.CALLER)."""

    start_ms: int
    end_ms: int
    speaker: int


class Voice(NamedTuple):
    """How one speaker talks."""

    f0_hz: float
    syllables_per_sec: float
    pause_share: float
    """Part of a turn that is silence between syllables."""
    level_spread_db: float
    """Standard deviation of a syllable's level."""
    tilt: float
    """How dull the voice is, 0 to 1: the pole that makes the source fall; effort flattens it (Traunmüller & Eriksson 2000)."""
    tract_scale: float
    """Factor on the formants: a shorter vocal tract sounds higher."""


CALLER_MEANS = (
    Voice(150.0, 3.6, 0.34, 1.5, 0.90, 1.0),
    Voice(190.0, 4.9, 0.18, 3.0, 0.72, 1.0),
    Voice(240.0, 6.6, 0.06, 5.5, 0.35, 1.0),
)
"""The average caller at each voice cue; single callers spread around it, and overlap."""
DISPATCHER_MEAN = Voice(175.0, 5.0, 0.15, 2.0, 0.8, 1.0)
SPREAD = 0.08
"""Standard deviation of log pitch, pace, pauses, level spread and brightness between speakers of one kind."""


class Syllables(NamedTuple):
    """Parallel arrays, one entry a syllable, in order of time over the whole call."""

    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    onset_ms: NDArray[np.int64]
    """Length of the fricative before the vowel; 0 is none."""
    filter: NDArray[np.int64]
    """Row of the voice's vowel in the table of tract filters."""
    f0_hz: NDArray[np.float64]
    level: NDArray[np.float64]


def draw_turns(rng: np.random.Generator, duration_ms: int, fewest: int, most: int) -> list[Turn]:
    """`fewest` to `most` turns, the dispatcher first, with silence around each; they tell nothing of either cue.

    A call too short to give each of `most` turns 1.6 s has at most as many as fit, and never under `fewest`.
    """
    num_turns = int(rng.integers(fewest, min(max(duration_ms // 1600, fewest), most) + 1))
    lengths = rng.uniform(0.8, 1.2, num_turns) * np.where(np.arange(num_turns) % 2 == CALLER, 1.4, 0.6)
    silences = rng.uniform(0.5, 1.5, num_turns + 1)
    silence_share = rng.uniform(0.12, 0.22)
    pieces = np.empty(2 * num_turns + 1)
    pieces[0::2] = silences / silences.sum() * silence_share
    pieces[1::2] = lengths / lengths.sum() * (1 - silence_share)
    edges = (np.cumsum(pieces)[:-1] * duration_ms).astype(int).tolist()
    speakers = (DISPATCHER, CALLER) * -(-num_turns // 2)
    return [Turn(*span) for span in zip(edges[0::2], edges[1::2], speakers, strict=False)]


def draw_voice(rng: np.random.Generator, mean: Voice, is_female: bool) -> Voice:
    """A speaker around `mean`; the sex moves the tract more than the pitch, or it would drown the cue."""
    factors = np.exp(rng.normal(0.0, SPREAD, 5))
    tract_scale = (1.14 if is_female else 1.0) * float(np.exp(rng.normal(0.0, 0.04)))
    f0_hz = mean.f0_hz * factors[0] * (1.05 if is_female else 0.95)
    return Voice(
        f0_hz=f0_hz,
        syllables_per_sec=mean.syllables_per_sec * factors[1],
        pause_share=mean.pause_share * factors[2],
        level_spread_db=mean.level_spread_db * factors[3],
        tilt=1 - (1 - mean.tilt) * factors[4],
        tract_scale=tract_scale,
    )


def draw_moods(rng: np.random.Generator, means: Sequence[Voice], is_female: bool) -> list[Voice]:
    """One speaker around each of `means`: what sets this speaker apart from others is drawn once."""
    state = rng.bit_generator.state
    voices = []
    for mean in means:
        rng.bit_generator.state = state
        voices.append(draw_voice(rng, mean, is_female))
    return voices


def speak(
    rng: np.random.Generator, duration_ms: int, turns: list[Turn], voices: Sequence[Voice], voice_of_turn: Sequence[int]
) -> NDArray[np.int16]:
    """Sound of a call at 8 kHz, int16 (8 * duration_ms,); `voice_of_turn` says which of `voices` each turn is spoken in.

    The line's noise lies 20 to 30 dB below the speech, and the peak 1 to 8 dB below full scale, whatever the cue.
    """
    filters = np.concatenate([tract_filters(voice) for voice in voices])
    parts = [_draw_syllables(rng, turn, number, voices[number]) for turn, number in zip(turns, voice_of_turn, strict=True)]
    syllables = Syllables(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    source, frame_filters = _excite(rng, duration_ms, syllables)
    speech = _filter_frames(source, filters[frame_filters])
    noise = signal.lfilter([1.0], [1.0, -0.7], rng.standard_normal(speech.size))
    speech, noise = (signal.sosfilt(TELEPHONE_BAND, part) for part in (speech, noise))
    noise *= speech.std() / noise.std() * 10 ** (-rng.uniform(20, 30) / 20)
    line = speech + noise
    peak = 32767 * 10 ** (-rng.uniform(1, 8) / 20)
    return np.asarray(np.rint(line * (peak / np.abs(line).max())), dtype=np.int16)


def tract_filters(voice: Voice) -> NDArray[np.complex128]:
    """Frequency responses (8, 257) of a speaker: the vowels of `VOWELS_HZ`, then a fricative; all as loud on a telephone."""
    frequency_hz = fft.rfftfreq(FFT_SAMPLES, 1 / SAMPLE_RATE_HZ)
    delay = np.exp(-2j * np.pi * frequency_hz / SAMPLE_RATE_HZ)
    # The source falls by some 12 dB an octave, of which the lips radiate 6 back; a fricative is noise from a narrow gap.
    vowels = np.tile(1 / (1 - voice.tilt * delay), (len(VOWELS_HZ), 1))
    for formants_hz, bandwidth_hz in zip(VOWELS_HZ.T, BANDWIDTHS_HZ, strict=True):
        vowels *= _resonate(delay, formants_hz * voice.tract_scale, bandwidth_hz)
    fricative = (1 - 0.95 * delay) ** 2 * _resonate(delay, np.array([2900.0]), 600.0)
    filters = np.concatenate([vowels, fricative])
    heard = (frequency_hz >= TELEPHONE_HZ[0]) & (frequency_hz <= TELEPHONE_HZ[1])
    return np.asarray(filters / np.sqrt(np.mean(np.abs(filters[:, heard]) ** 2, axis=1, keepdims=True)))


def _resonate(delay: NDArray[np.complex128], center_hz: NDArray[np.float64], bandwidth_hz: float) -> NDArray[np.complex128]:
    """Klatt's digital resonator with gain 1 at 0 Hz: (len(center_hz), len(delay))."""
    radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
    b = 2 * radius * np.cos(2 * np.pi * np.minimum(center_hz, 3900.0) / SAMPLE_RATE_HZ)[:, None]
    c = -(radius**2)
    return np.asarray((1 - b - c) / (1 - b * delay - c * delay**2))


def _draw_syllables(rng: np.random.Generator, turn: Turn, number: int, voice: Voice) -> Syllables:
    length = turn.end_ms - turn.start_ms
    mean_ms, mean_pause_ms = 1000 / voice.syllables_per_sec, 180.0
    most = int(length / mean_ms * 2) + 4
    voiced = mean_ms * np.exp(rng.normal(0.0, 0.2, most))
    odds = voice.pause_share / (1 - voice.pause_share) * mean_ms / mean_pause_ms
    paused = (rng.random(most) < odds) * rng.uniform(0.5, 1.5, most) * mean_pause_ms
    ends = np.cumsum(voiced + paused)
    starts = ends - voiced - paused
    count = max(int(np.searchsorted(starts, length - 80)), 1)
    starts, stops = starts[:count], (starts + voiced)[:count]
    # The last syllable is drawn out to the end of the turn, as speakers do, so that the label's span is where the voice is.
    stops[-1] = length
    fall = 1.08 - 0.16 * starts / length
    return Syllables(
        start_ms=turn.start_ms + starts.astype(np.int64),
        end_ms=turn.start_ms + stops.astype(np.int64),
        onset_ms=rng.integers(40, 75, count) * (rng.random(count) < 0.45),
        filter=number * (len(VOWELS_HZ) + 1) + rng.permutation(np.arange(count) % len(VOWELS_HZ)),
        f0_hz=voice.f0_hz * fall * np.exp(rng.normal(0.0, 0.06, count)),
        level=10 ** (rng.normal(0.0, voice.level_spread_db, count) / 20),
    )


def _excite(rng: np.random.Generator, duration_ms: int, syllables: Syllables) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The source signal (8 * duration_ms,), and for each frame of `_filter_frames` the row of its tract filter."""
    clock = np.arange(duration_ms)
    current = np.maximum(np.searchsorted(syllables.start_ms, clock, side="right") - 1, 0)
    since, left = clock - syllables.start_ms[current], syllables.end_ms[current] - clock
    onset = syllables.onset_ms[current]
    is_fricative = (since >= 0) & (since < onset)
    edge_ms = np.clip(np.minimum(since - np.where(is_fricative, 0, onset), left), 0, 20)
    envelope = syllables.level[current] * edge_ms / 20

    centers = (syllables.start_ms + syllables.end_ms) / 2
    jitter = 1 + 0.015 * rng.standard_normal(duration_ms)
    f0_hz = np.repeat(np.interp(clock, centers, syllables.f0_hz) * jitter, SAMPLES_PER_MS)
    voiced = np.repeat(np.where(is_fricative, 0.0, envelope), SAMPLES_PER_MS)
    breath = np.repeat(envelope * np.where(is_fricative, 0.5, 0.05), SAMPLES_PER_MS)
    source = voiced * _pulses(f0_hz) + breath * rng.standard_normal(f0_hz.size)

    fricative_row = syllables.filter[current] // (len(VOWELS_HZ) + 1) * (len(VOWELS_HZ) + 1) + len(VOWELS_HZ)
    rows = np.where(is_fricative, fricative_row, syllables.filter[current])
    num_frames = -(-source.size // HOP) + 1
    return source, rows[np.minimum(np.arange(num_frames) * HOP // SAMPLES_PER_MS, duration_ms - 1)]


def _pulses(f0_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Glottal pulses at the instants where the phase of `f0_hz` (N,) completes a cycle, of mean power 1."""
    step = f0_hz / SAMPLE_RATE_HZ
    phase = np.cumsum(step)
    at = np.flatnonzero(np.diff(np.floor(phase)) > 0) + 1
    # A cycle ends between two samples: without sharing the pulse out, high voices would sound rough.
    late = (phase[at] % 1) / step[at]
    height = 1 / np.sqrt(step[at])
    pulses = np.zeros_like(f0_hz)
    pulses[at] = (1 - late) * height
    pulses[at - 1] += late * height
    return pulses


def _filter_frames(source: NDArray[np.float64], responses: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Overlap-add: each 32 ms frame of `source` (N,), one every 16 ms, through its own row of `responses` (frames, 257)."""
    num_frames = len(responses)
    hops = np.zeros((num_frames + 1, HOP))
    hops.reshape(-1)[HOP : HOP + source.size] = source
    frames = np.hstack([hops[:-1], hops[1:]]) * signal.windows.hann(2 * HOP, sym=False)
    shaped = fft.irfft(fft.rfft(frames, FFT_SAMPLES, axis=1) * responses, FFT_SAMPLES, axis=1)
    mixed = np.zeros((num_frames + 3, HOP))
    for part in range(4):
        mixed[part : part + num_frames] += shaped[:, part * HOP : (part + 1) * HOP]
    return mixed.reshape(-1)[HOP : HOP + source.size]
