"""Decoding against librosa and the wave module, features against librosa, cuts by hand; every way a recording can be broken."""

import contextlib
import io
import math
import struct
import wave
from typing import Any

import hypothesis
import hypothesis.strategies as st
import librosa
import numpy as np
import pytest
import soundfile

from urgency_ray.calls.audio import acoustic_features, cut, decode_audio, peak_normalize
from urgency_ray.calls.channels import Turn
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
    data: bytes = b"\x01\x00\xff\xff" * 400,
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
        decode_audio(content, RATE_HZ, max_sec)
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
    decoded = decode_audio(content, RATE_HZ, 100.0).waveform
    assert decoded.dtype == np.float32
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [1000, 8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("num_samples", [1, 2, 7, 3001])
def test_every_rate_and_length_resamples_as_librosa_does(rate_hz: int, num_samples: int) -> None:
    content = wav(speech_like(num_samples), rate_hz, subtype="FLOAT")
    expected, _ = librosa.load(io.BytesIO(content), sr=RATE_HZ, mono=True)
    decoded = decode_audio(content, RATE_HZ, 100.0).waveform
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)


def test_gsm_of_telephone_recorders_decodes_though_it_cannot_seek() -> None:
    content = wav(speech_like(3200), subtype="GSM610")
    assert len(decode_audio(content, 8000, 100.0).waveform) == 3200


def test_pcm16_samples_are_those_of_the_wave_module_over_32768() -> None:
    samples = (speech_like(500)[:, 0] * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    np.testing.assert_array_equal(decode_audio(file.getvalue(), 8000, 100.0).waveform, samples / np.float32(32768))


def test_stereo_is_the_mean_of_its_channels() -> None:
    content = wav(np.tile(np.array([[0.5, -0.25], [0.5, 0.0]], np.float32), (50, 1)), subtype="FLOAT")
    expected = np.tile(np.array([0.125, 0.25], np.float32), 50)
    np.testing.assert_array_equal(decode_audio(content, 8000, 100.0).waveform, expected)


SOUND = b"\x01\x00\x02\x00\xff\xff\xfe\xff" * 2000
"""A second at 8 kHz, or half of one in two channels."""
LIST_17 = b"LIST\x11\x00\x00\x00INFOISFT\x05\x00\x00\x00Lavf\x00"


@pytest.mark.parametrize(
    "size",
    [
        *(0, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFDB, 0x80000000, 0x80000024),
        *(0x7FFFFFFF, 0x7FFFFFDA, 0x7FFFFF00, 0x7FFFF000, 0x7FFFEFFF, 0x7FFFF000 // 65 * 65),
    ],
)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_size_that_was_never_filled_in_means_all_that_there_is(size: int, num_channels: int) -> None:
    decoded = decode_audio(riff(SOUND, data_size=size, num_channels=num_channels), 8000, 100.0)
    assert len(decoded.waveform) == 8000 // num_channels
    assert decoded.note is None


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610"])
@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_size_that_was_never_filled_in_is_one_in_any_encoding(subtype: str, size: int) -> None:
    whole = wav(speech_like(6400), subtype=subtype)
    start = whole.index(b"data") + 4
    streamed = whole[:start] + struct.pack("<I", size) + whole[start + 4 :]
    expected = decode_audio(whole, 8000, 100.0).waveform
    np.testing.assert_array_equal(decode_audio(streamed, 8000, 100.0).waveform[: len(expected)], expected)


@pytest.mark.parametrize(
    "content",
    [
        riff(before=b"junk\x03\x00\x00\x00abc\x00"),  # a chunk of odd size, padded
        riff(before=b"junk\x03\x00\x00\x00abc"),  # and not
        riff(before=b"made\x03\x00\x00\x00abc" + b"up  \x02\x00\x00\x00ab"),
        riff(before=LIST_17),
        riff(before=LIST_17 + b"\x00"),
        riff(before=b"cue \x04\x00\x00\x001234" * 1000),
        riff(after=b"LIST\x04\x00\x00\x00INFO"),
        riff(after=b"LIST\xff\x00\x00\x00INFO"),  # cut off, but behind the samples
        riff(after=b"TAG" + b"x" * 125),
        riff(after=b"APETAGEX" + bytes(3000)),
        riff(after=bytes(5000)),
        riff()[:4] + b"\x00\x00\x00\x00" + riff()[8:],  # no size of the whole file
        riff()[:4] + b"\xff\xff\xff\xff" + riff()[8:],
        b"ID3\x03\x00\x00\x00\x00\x01\x02" + bytes(130) + riff(),
        riff()[:12] + riff()[36:] + riff()[12:36],  # the format after the samples
        wav(np.tile([1, -1], 400) / np.float32(32768), container="RF64"),
        b"BW64" + wav(np.tile([1, -1], 400) / np.float32(32768), container="RF64")[4:],
    ],
)
def test_chunks_and_tags_around_the_samples_do_not_matter(content: Any) -> None:
    np.testing.assert_array_equal(decode_audio(content, 8000, 100.0).waveform, decode_audio(riff(), 8000, 100.0).waveform)


def test_zeros_are_samples_too_where_no_size_was_filled_in() -> None:
    assert reason_of(riff(bytes(8000), data_size=0)) == Reason.SILENT_AUDIO
    assert len(decode_audio(riff(bytes(8000) + SOUND, data_size=0), 8000, 100.0).waveform) == 12_000


def test_samples_behind_the_declared_ones_are_read_and_said() -> None:
    half = riff(SOUND, data_size=8000)
    decoded = decode_audio(half, 8000, 100.0)
    assert len(decoded.waveform) == 8000
    assert decoded.note == "the header declares 0.5 s and samples follow: all 1.0 s are read"
    assert len(decode_audio(riff(SOUND, data_size=15_000), 8000, 100.0).waveform) == 7500  # less than 0.1 s is no loss
    joined = decode_audio(riff(SOUND[:8000], after=b"data" + struct.pack("<I", 8000) + SOUND[8000:]), 8000, 100.0)
    assert (len(joined.waveform), joined.note) == (8000, "several data chunks, joined")
    twice = decode_audio(riff() + riff(), 8000, 100.0)
    assert (len(twice.waveform), twice.note) == (800, "another WAV file follows the first, and is not read")


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_byte_order_is_read(order: str) -> None:
    little = riff(SOUND)
    fmt = struct.pack(f"{order}IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16)
    data = np.frombuffer(SOUND, "<i2").astype(f"{order}i2").tobytes()
    mark = b"RIFF" if order == "<" else b"RIFX"
    for size in (len(data), 0):
        content = mark + struct.pack(f"{order}I", 36 + len(data)) + b"WAVEfmt " + fmt + b"data" + struct.pack(f"{order}I", size)
        np.testing.assert_array_equal(
            decode_audio(content + data, 8000, 100.0).waveform, decode_audio(little, 8000, 100.0).waveform
        )


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
        b"RIFF\x00\x10\x00\x00WAVE" + b"junk\x00\x00\x00\x00" * 70_000 + riff()[12:],
        b"fLaC" + SOUND,
        b"OggS" + SOUND,
        SOUND,
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


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU"])
def test_a_tenth_of_a_second_may_be_missing_and_no_more(container: str) -> None:
    content = wav(speech_like(4000), container=container)
    for num_missing in (1, 1598):
        assert len(decode_audio(content[:-num_missing], 8000, 100.0).waveform) == 4000 - math.ceil(num_missing / 2)
    with pytest.raises(Reject) as caught:
        decode_audio(content[:-1700], 8000, 100.0)
    assert (caught.value.reason, caught.value.detail) == (Reason.TRUNCATED_AUDIO, "6300 of 8000 bytes of samples")


OTHERS = [
    *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    *(("AIFF", "PCM_24"), ("AU", "ULAW"), ("W64", "FLOAT")),
]


@pytest.mark.parametrize(("container", "subtype"), OTHERS)
def test_other_containers_decode_as_librosa_does_whatever_their_name(container: str, subtype: str) -> None:
    content = wav(speech_like(24_000, 2), 8000, container, subtype)
    expected, _ = librosa.load(io.BytesIO(content), sr=RATE_HZ, mono=True)
    decoded = decode_audio(content, RATE_HZ, 100.0, name="a.wav").waveform
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)
    tagged = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + content
    np.testing.assert_array_equal(decode_audio(tagged, RATE_HZ, 100.0).waveform, decoded)
    assert reason_of(content, max_sec=2.0) == Reason.TOO_LONG
    assert reason_of(content[: len(content) // 2]) == Reason.TRUNCATED_AUDIO
    assert reason_of(wav(np.zeros((8000, 1)), 8000, container, subtype)) == Reason.SILENT_AUDIO


def test_a_flac_whose_length_was_never_filled_in_is_read_to_its_end() -> None:
    content = bytearray(wav(speech_like(24_000), container="FLAC"))
    expected = decode_audio(bytes(content), 8000, 100.0).waveform
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    np.testing.assert_array_equal(decode_audio(bytes(content), 8000, 100.0).waveform, expected)
    assert reason_of(bytes(content), max_sec=2.0) == Reason.TOO_LONG


def test_what_is_compressed_gives_no_more_samples_than_a_wav_could() -> None:
    content = bytearray(wav(np.zeros((4096, 8)), 192_000, "FLAC"))
    content[22:26] = struct.pack(">I", 99 * 192_000)
    assert reason_of(bytes(content), max_sec=100.0) == Reason.TOO_LONG


def test_samples_without_a_header_are_read_at_the_rate_that_is_said() -> None:
    expected = decode_audio(riff(SOUND, rate_hz=16_000), RATE_HZ, 100.0).waveform
    for name in ("a.pcm", "a.PCM", "a.raw"):
        np.testing.assert_array_equal(decode_audio(SOUND, RATE_HZ, 100.0, name=name, pcm_rate_hz=16_000).waveform, expected)
    assert len(decode_audio(SOUND[:-1], RATE_HZ, 100.0, name="a.pcm", pcm_rate_hz=16_000).waveform) == 7999
    # That begins as an MP3 would.
    assert len(decode_audio(SOUND[4:], RATE_HZ, 100.0, name="a.pcm", pcm_rate_hz=16_000).waveform) == 7998
    with pytest.raises(Reject, match=r"a\.pcm: has no header; set data\.pcm_rate_hz") as caught:
        decode_audio(SOUND, RATE_HZ, 100.0, name="a.pcm")
    assert caught.value.reason == Reason.NOT_AUDIO
    with pytest.raises(Reject, match="no RIFF/WAVE header"):
        decode_audio(SOUND, RATE_HZ, 100.0, name="a.wav", pcm_rate_hz=16_000)
    for content, reason in ((b"", Reason.EMPTY_AUDIO), (bytes(8000), Reason.SILENT_AUDIO), (SOUND * 201, Reason.TOO_LONG)):
        with pytest.raises(Reject) as caught:
            decode_audio(content, RATE_HZ, 100.0, name="a.pcm", pcm_rate_hz=16_000)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a b.m4a", b"\0\0\0 ftypM4A " + SOUND, "MPEG-4 (M4A)"),
        ("a b.wav", b"\0\0\0 ftypisom" + SOUND, "MPEG-4 (M4A)"),
        ("a b.aac", b"\xff\xf1\x50\x80" + SOUND, "AAC"),
        ("a b.amr", b"#!AMR\n" + SOUND, "AMR"),
        ("a b.wma", b"0&\xb2\x75\x8e\x66\xcf\x11" + SOUND, "Windows Media"),
        ("a b.vox", SOUND, ".vox"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(name: str, content: bytes, kind: str) -> None:
    with pytest.raises(Reject) as caught:
        decode_audio(content, RATE_HZ, 100.0, name=name)
    assert caught.value.reason == Reason.NOT_AUDIO
    target = "a b.wav" if name != "a b.wav" else "a b.converted.wav"
    assert caught.value.detail == f"{name}: {kind} is not read; convert it: ffmpeg -i '{name}' '{target}'"


def test_too_long_is_told_from_the_header_and_the_limit_itself_passes() -> None:
    assert reason_of(riff(), max_sec=0.0999) == Reason.TOO_LONG
    assert len(decode_audio(riff(), RATE_HZ, 0.1).waveform) == 1600


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_invalid(bad: Any, num_channels: int) -> None:
    samples = speech_like(1000, num_channels)
    samples[500] = [bad, -bad][:num_channels]
    assert reason_of(wav(samples, subtype="FLOAT")) == Reason.INVALID_SAMPLES


@pytest.mark.parametrize("value", [0.0, 0.25, -1.0, 1 / 32768])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_what_never_moves_is_silent_audio(value: float, num_channels: int) -> None:
    assert reason_of(wav(np.full((1000, num_channels), value, np.float32), subtype="FLOAT")) == Reason.SILENT_AUDIO


@pytest.mark.parametrize(("subtype", "byte"), [("ULAW", b"\xff"), ("ALAW", b"\xd5"), ("PCM_U8", b"\x80"), ("PCM_U8", b"\x7f")])
def test_the_silence_of_any_encoding_is_silent_audio(subtype: str, byte: bytes) -> None:
    content = wav(speech_like(1000), subtype=subtype)
    start = content.index(b"data") + 8
    assert reason_of(content[:start] + byte * 1000 + content[start + 1000 :]) == Reason.SILENT_AUDIO


def test_noise_of_the_least_bit_is_heard_and_an_offset_stays() -> None:
    noise = np.tile(np.array([0.0, 1.0, 0.0, -1.0], np.float32) / 32768, 1000)
    np.testing.assert_array_equal(decode_audio(wav(noise), 8000, 100.0).waveform, noise)
    np.testing.assert_array_equal(decode_audio(wav(noise + 0.5), 8000, 100.0).waveform, noise + 0.5)
    assert reason_of(wav(noise * 1e-3, subtype="FLOAT")) == Reason.SILENT_AUDIO


LEFT, RIGHT = speech_like(8000, seed=1)[:, 0] / 4, speech_like(8000, seed=2)[:, 0] / 2


def heard(left: np.ndarray, right: np.ndarray, channel: Any, turns: Any = ()) -> np.ndarray:
    content = wav(np.stack([left, right], axis=1), subtype="FLOAT")
    return decode_audio(content, 8000, 100.0, channel=channel, turns=turns).waveform


def test_one_channel_can_be_heard() -> None:
    np.testing.assert_array_equal(heard(LEFT, RIGHT, "mean"), (LEFT + RIGHT) / 2)
    np.testing.assert_array_equal(heard(LEFT, RIGHT, "left"), LEFT)
    np.testing.assert_array_equal(heard(LEFT, RIGHT, "right"), RIGHT)
    np.testing.assert_array_equal(heard(0.1 * LEFT, RIGHT, "loudest"), RIGHT)
    np.testing.assert_array_equal(heard(LEFT, 0.9 + 0.01 * RIGHT, "loudest"), LEFT)  # an offset is no sound
    mono = wav(LEFT, subtype="FLOAT")
    for channel in ("left", "right", "loudest", "caller"):
        np.testing.assert_array_equal(decode_audio(mono, 8000, 100.0, channel=channel).waveform, LEFT)


def test_a_channel_that_is_chosen_and_silent_is_a_reject() -> None:
    with pytest.raises(Reject) as caught:
        heard(LEFT, 0 * RIGHT, "right")
    assert caught.value.reason == Reason.SILENT_AUDIO


@pytest.mark.parametrize("share", [1.0, 0.999, 0.95])
def test_channels_that_cancel_are_no_silence(share: float) -> None:
    for offset in (0.0, 0.3):
        with pytest.raises(Reject, match=r"data\.channel") as caught:
            heard(LEFT + np.float32(offset), np.float32(-share) * LEFT, "mean")
        assert caught.value.reason == Reason.CHANNELS_CANCEL
    np.testing.assert_array_equal(heard(LEFT, -LEFT, "left"), LEFT)


def test_a_dead_channel_cancels_nothing() -> None:
    many = np.zeros((8000, 16), np.float32)
    many[:, 3] = LEFT
    decoded = decode_audio(wav(many, subtype="FLOAT"), 8000, 100.0).waveform
    np.testing.assert_allclose(decoded, LEFT / 16, rtol=1e-6)


def test_the_caller_s_channel_is_told_by_the_turns() -> None:
    caller = np.concatenate([0.1 * LEFT[:4000], 0.02 * LEFT[4000:]])
    operator = np.concatenate([0.01 * RIGHT[:4000], RIGHT[4000:]])
    turns = [Turn(-9, 500, True), Turn(500, 9000, False), Turn(20_000, 30_000, True)]
    np.testing.assert_array_equal(heard(operator, caller, "caller", turns), caller)
    np.testing.assert_array_equal(heard(caller, operator, "caller", turns), caller)
    np.testing.assert_array_equal(heard(caller, operator, "caller", turns[:1]), caller)
    for useless in ([], turns[1:]):
        with pytest.raises(Reject, match=r"data\.channel is caller") as caught:
            heard(caller, operator, "caller", useless)
        assert caught.value.reason == Reason.INVALID_LABEL


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(
    kind=st.sampled_from([*(("WAV", subtype) for subtype in ("PCM_16", "FLOAT", "ULAW", "MS_ADPCM", "GSM610")), *OTHERS]),
    edits=st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=8)), max_size=6),
    keep=st.integers(0, 10_000),
)
def test_any_mutated_recording_decodes_or_is_rejected(kind: Any, edits: Any, keep: Any) -> None:
    content = bytearray(wav(speech_like(1000), 8000, *kind))
    for start, new in edits:
        content[start : start + len(new)] = new
    try:
        decoded = decode_audio(bytes(content[:keep]), RATE_HZ, 60.0).waveform
    except Reject:
        return
    assert np.isfinite(decoded).all()
    assert 0 < len(decoded) <= 60 * RATE_HZ


@hypothesis.given(st.binary(max_size=300).flatmap(lambda tail: st.sampled_from([tail, b"RIFF\0\0\0\0WAVE" + tail])))
def test_any_bytes_decode_or_are_rejected(content: Any) -> None:
    with contextlib.suppress(Reject):
        decode_audio(content, RATE_HZ, 60.0)


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
