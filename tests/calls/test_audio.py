"""Decoding against librosa and the wave module, features against librosa, cuts by hand, and every way a WAV can be broken."""

import contextlib
import io
import struct
import wave
from typing import Any

import hypothesis
import hypothesis.strategies as st
import librosa
import numpy as np
import pytest
import soundfile

from urgency_ray.calls.audio import acoustic_features, cut, decode_wav, peak_normalize
from urgency_ray.errors import Reason, Reject
from urgency_ray.schema import ACOUSTIC_FEATURES

# librosa.load imports audioread, which imports modules that Python 3.13 drops.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:audioread")

RATE_HZ = 16_000


def speech_like(num_samples: int, num_channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise in bursts of very different level, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    level = np.repeat(10.0 ** rng.uniform(-4, -0.3, num_samples // 1500 + 1), 1500)[:num_samples]
    return (rng.uniform(-1, 1, (num_samples, num_channels)) * level[:, None]).astype(np.float32)


def wav(samples: np.ndarray, rate_hz: int = 8000, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def riff(
    data: bytes = b"\x01\x00" * 800,
    *,
    rate_hz: int = 8000,
    num_channels: int = 1,
    data_size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PCM16 WAV by hand, so that its header can lie."""
    frame = 2 * num_channels
    fmt = struct.pack("<HHIIHH", 1, num_channels, rate_hz, (rate_hz * frame) & 0xFFFFFFFF, frame, 16)
    size = len(data) if data_size is None else data_size
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + data + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def reason_of(content: bytes, max_sec: float = 100.0) -> Reason:
    with pytest.raises(Reject) as caught:
        decode_wav(content, RATE_HZ, max_sec)
    return caught.value.reason


FORMATS = [
    *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")),
    *(("WAV", subtype) for subtype in ("IMA_ADPCM", "MS_ADPCM")),
    *(("WAVEX", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "ULAW")),
    *(("RF64", subtype) for subtype in ("PCM_16", "FLOAT")),
]


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_every_format_decodes_as_librosa_does(container: Any, subtype: Any, num_channels: int) -> None:
    content = wav(speech_like(4001, num_channels), 8000, container, subtype)
    expected, _ = librosa.load(io.BytesIO(content), sr=RATE_HZ, mono=True)
    decoded = decode_wav(content, RATE_HZ, 100.0)
    assert decoded.dtype == np.float32
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [1000, 8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("num_samples", [1, 2, 7, 3001])
def test_every_rate_and_length_resamples_as_librosa_does(rate_hz: int, num_samples: int) -> None:
    content = wav(speech_like(num_samples), rate_hz, subtype="FLOAT")
    expected, _ = librosa.load(io.BytesIO(content), sr=RATE_HZ, mono=True)
    decoded = decode_wav(content, RATE_HZ, 100.0)
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)


def test_gsm_of_telephone_recorders_decodes_though_it_cannot_seek() -> None:
    content = wav(speech_like(3200), subtype="GSM610")
    assert len(decode_wav(content, 8000, 100.0)) == 3200


def test_pcm16_samples_are_those_of_the_wave_module_over_32768() -> None:
    samples = (speech_like(500)[:, 0] * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    np.testing.assert_array_equal(decode_wav(file.getvalue(), 8000, 100.0), samples / np.float32(32768))


def test_stereo_is_the_mean_of_its_channels() -> None:
    content = wav(np.tile(np.array([[0.5, -0.25]], np.float32), (100, 1)), subtype="FLOAT")
    np.testing.assert_array_equal(decode_wav(content, 8000, 100.0), np.full(100, 0.125, np.float32))


@pytest.mark.parametrize(
    "content",
    [
        riff(data_size=0xFFFFFFFF),  # ffmpeg to a pipe
        riff(data_size=0x7FFFF000),  # sox to a pipe
        riff(before=b"junk\x03\x00\x00\x00abc\x00"),  # a chunk of odd size, padded
        riff(after=b"LIST\x04\x00\x00\x00INFO"),
        riff(after=b"LIST\xff\x00\x00\x00INFO"),  # cut off, but behind the samples
        riff()[:4] + b"\x00\x00\x00\x00" + riff()[8:],  # no size of the whole file
        riff()[:4] + b"\xff\xff\xff\xff" + riff()[8:],
    ],
)
def test_sizes_that_do_not_concern_the_samples_may_be_wrong(content: Any) -> None:
    assert len(decode_wav(content, 8000, 100.0)) == 800


@pytest.mark.parametrize(
    "content", [b"", riff(b""), riff(b"", after=b"LIST\x04\x00\x00\x00INFO"), riff()[:36], riff()[:40], riff()[:44]]
)
def test_no_samples_is_empty_audio(content: Any) -> None:
    assert reason_of(content) == Reason.EMPTY_AUDIO


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"ID3\x04" + bytes(100),
        b"\xff\xfb\x90\x00" + bytes(400),
        b"RIFF",
        b"RIFF\x04\x00\x00\x00AVI " + bytes(100),
        b"RIFF\x04\x00\x00\x00WAVE",
        b"RIFF\x00\x10\x00\x00WAVE" + b"junk\x00\x00\x00\x00" * 300 + riff()[12:],
        b"RIFX" + riff()[4:],
        wav(speech_like(100), container="FLAC"),
        wav(speech_like(100), container="AIFF"),
        riff(rate_hz=0),
        riff(rate_hz=999),
        riff(rate_hz=384_001),
        riff(rate_hz=4_000_000_000),
        riff(num_channels=0),
        riff(bytes(34 * 10), num_channels=17),
        riff()[:20] + b"\x55\x00" + riff()[22:],  # an MP3 in a WAV
    ],
)
def test_what_is_no_wav_is_not_audio(content: Any) -> None:
    assert reason_of(content) == Reason.NOT_AUDIO


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW", "IMA_ADPCM"])
def test_fewer_samples_than_promised_is_truncated_audio(subtype: str) -> None:
    content = wav(speech_like(4000), subtype=subtype)
    assert reason_of(content[: len(content) // 3]) == Reason.TRUNCATED_AUDIO


def test_one_missing_byte_is_truncated_audio() -> None:
    assert reason_of(riff()[:-1]) == Reason.TRUNCATED_AUDIO
    assert reason_of(wav(speech_like(4000), container="RF64")[:-1]) == Reason.TRUNCATED_AUDIO


def test_too_long_is_told_from_the_header_and_the_limit_itself_passes() -> None:
    assert reason_of(riff(), max_sec=0.0999) == Reason.TOO_LONG
    assert len(decode_wav(riff(), RATE_HZ, 0.1)) == 1600


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_invalid(bad: Any, num_channels: int) -> None:
    samples = speech_like(1000, num_channels)
    samples[500] = [bad, -bad][:num_channels]
    assert reason_of(wav(samples, subtype="FLOAT")) == Reason.INVALID_SAMPLES


def test_zeros_are_silent_audio_also_where_the_channels_cancel() -> None:
    assert reason_of(riff(bytes(1600))) == Reason.SILENT_AUDIO
    assert reason_of(wav(np.tile(np.array([[0.5, -0.5]], np.float32), (100, 1)))) == Reason.SILENT_AUDIO


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(
    subtype=st.sampled_from(["PCM_16", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"]),
    edits=st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=8)), max_size=6),
    keep=st.integers(0, 10_000),
)
def test_any_mutated_wav_decodes_or_is_rejected(subtype: Any, edits: Any, keep: Any) -> None:
    content = bytearray(wav(speech_like(1000), subtype=subtype))
    for start, new in edits:
        content[start : start + len(new)] = new
    try:
        decoded = decode_wav(bytes(content[:keep]), RATE_HZ, 60.0)
    except Reject:
        return
    assert np.isfinite(decoded).all()
    assert 0 < len(decoded) <= 60 * RATE_HZ


@hypothesis.given(st.binary(max_size=300).flatmap(lambda tail: st.sampled_from([tail, b"RIFF\0\0\0\0WAVE" + tail])))
def test_any_bytes_decode_or_are_rejected(content: Any) -> None:
    with contextlib.suppress(Reject):
        decode_wav(content, RATE_HZ, 60.0)


def by_librosa(waveform: np.ndarray) -> dict[str, float]:
    """The recipe's own way."""
    spans = librosa.effects.split(waveform, top_db=25)
    energy = np.mean(waveform.astype(np.float64) ** 2)
    peak = np.max(np.abs(waveform))
    return {
        "duration_sec": librosa.get_duration(y=waveform, sr=RATE_HZ),
        "speech_ratio": sum(end - start for start, end in spans) / len(waveform),
        "energy_mean": energy,
        "peak_amp": peak,
        "peak_to_rms": peak / np.sqrt(energy),
    }


@pytest.mark.parametrize("num_samples", [1, 300, 511, 512, 513, 1024, 2048, 2049, 30_000, 100_003])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_features_are_those_of_librosa(num_samples: int, scale: float) -> None:
    waveform = speech_like(num_samples, seed=num_samples)[:, 0] * np.float32(scale)
    features = acoustic_features(waveform, RATE_HZ)
    assert tuple(features) == ACOUSTIC_FEATURES
    assert features == pytest.approx(by_librosa(waveform), rel=1e-4)


def test_features_of_bursts_in_digital_silence_are_those_of_librosa() -> None:
    waveform = np.zeros(5 * RATE_HZ, np.float32)
    for start in (0, 20_000, 50_123, 79_500):
        waveform[start : start + 6000] = speech_like(6000, seed=start)[: len(waveform) - start, 0]
    features = acoustic_features(waveform, RATE_HZ)
    assert 0.1 < features["speech_ratio"] < 0.4
    assert features == pytest.approx(by_librosa(waveform), rel=1e-4)


def test_features_of_a_square_wave_by_hand() -> None:
    waveform = np.tile(np.array([0.5, -0.5], np.float32), 4000)
    expected = {"duration_sec": 0.5, "speech_ratio": 1.0, "energy_mean": 0.25, "peak_amp": 0.5, "peak_to_rms": 1.0}
    assert acoustic_features(waveform, RATE_HZ) == pytest.approx(expected)


def test_features_of_a_silent_cut_are_finite() -> None:
    features = acoustic_features(np.zeros(1000, np.float32), RATE_HZ)
    assert (features["energy_mean"], features["peak_amp"], features["peak_to_rms"]) == (0.0, 0.0, 0.0)


def test_peak_normalize_scales_to_one_and_leaves_zeros() -> None:
    normalized = peak_normalize(np.array([0.1, -0.2], np.float32))
    np.testing.assert_array_equal(normalized, np.array([0.5, -1.0], np.float32))
    assert peak_normalize(np.array([0.1], np.float32)).dtype == np.float32
    np.testing.assert_array_equal(peak_normalize(np.zeros(3, np.float32)), np.zeros(3))


SECOND = np.arange(RATE_HZ, dtype=np.float32)


def test_a_cut_is_the_span_in_milliseconds() -> None:
    np.testing.assert_array_equal(cut(SECOND, RATE_HZ, 250, 500), SECOND[4000:8000])


def test_a_cut_is_within_the_audio() -> None:
    np.testing.assert_array_equal(cut(SECOND, RATE_HZ, -1, 250), SECOND[:4000])
    np.testing.assert_array_equal(cut(SECOND, RATE_HZ, 250, 60_000, min_sec=0.75), SECOND[4000:])


@pytest.mark.parametrize(("start_ms", "end_ms"), [(500, 500), (500, 400), (1000, 2000), (-500, 0), (10**15, 10**16)])
def test_a_span_that_is_none_is_invalid(start_ms: Any, end_ms: Any) -> None:
    with pytest.raises(Reject) as caught:
        cut(SECOND, RATE_HZ, start_ms, end_ms)
    assert caught.value.reason == Reason.INVALID_SPAN


def test_too_short_counts_what_is_left_after_the_cut() -> None:
    with pytest.raises(Reject) as caught:
        cut(SECOND, RATE_HZ, 501, 2000, min_sec=0.5)
    assert caught.value.reason == Reason.TOO_SHORT
    assert len(cut(SECOND, RATE_HZ, 500, 2000, min_sec=0.5)) == 8000


@pytest.mark.parametrize("start_ms", range(0, 40, 3))
def test_a_span_of_just_the_minimum_passes_wherever_it_starts(start_ms: Any) -> None:
    waveform = np.ones(44_100, np.float32)
    assert len(cut(waveform, 44_100, start_ms, start_ms + 500, min_sec=0.5)) == 22_050


def test_a_span_between_two_samples_is_too_short_not_empty() -> None:
    with pytest.raises(Reject) as caught:
        cut(np.ones(800, np.float32), 100, 11, 12)
    assert caught.value.reason == Reason.TOO_SHORT
