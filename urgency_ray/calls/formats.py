"""Which files are taken for recordings, by their names; which are one, and of what kind, by their first bytes."""

from __future__ import annotations

import posixpath
import shlex

from urgency_ray.calls.foreign import describe_head
from urgency_ray.errors import Reason, Reject

LABEL_SUFFIX = ".json"
HEADERLESS_SUFFIXES = (".pcm", ".raw")
_LOSSLESS_SUFFIXES = (".wav", ".wave", ".rf64", ".w64", ".flac", ".aif", ".aiff", ".aifc", ".au", ".snd")
_LOSSY_SUFFIXES = (".ogg", ".oga", ".opus", ".mp3")
# Not read, but known as audio: their calls are rejected with what to do, and not passed over.
_UNREAD_SUFFIXES = (".m4a", ".mp4", ".aac", ".3gp", ".amr", ".awb", ".wma", ".webm", ".mka", ".caf", ".gsm", ".vox", ".g729")
AUDIO_SUFFIXES = (*_LOSSLESS_SUFFIXES, *HEADERLESS_SUFFIXES, *_LOSSY_SUFFIXES, *_UNREAD_SUFFIXES)
"""Lower-case suffixes of recordings; of several of the same stem, that whose suffix comes first is the one to use."""

W64_MARK = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_READ = {
    b"RIFF": "riff",
    b"RIFX": "riff",
    b"RF64": "riff",
    b"BW64": "riff",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"FORM": "aiff",
    b".snd": "au",
}
_UNREAD = {
    b"#!AMR": "AMR",
    b"0&\xb2u": "Windows Media",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"caff": "Core Audio",
    b"NIST_1A": "NIST SPHERE",
    b"ADIF": "AAC",
}


def format_of(content: bytes, start: int) -> str | None:
    """What a file is: `riff`, `w64`, `flac`, `ogg`, `aiff`, `au` or `mp3`; None where its first bytes do not say.

    Args:
        content: the whole file.
        start: where it begins, behind an ID3v2 tag.
    """
    if content[start : start + 16] == W64_MARK:
        return "w64"
    return _READ.get(content[start : start + 4]) or ("mp3" if start or _is_mpeg(content[:2]) else None)


def skip_id3(content: bytes) -> int:
    """Length of the ID3v2 tag that a file begins with, or 0."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size


def refuse_unknown(content: bytes, name: str) -> Reject:
    """The reject of a file that is of none of the formats that are read; what it is, as far as that can be known.

    Args:
        content: the whole file.
        name: its name, which the advice shows.
    """
    stem, suffix = posixpath.splitext(name)
    target = f"{stem}.converted.wav" if suffix.lower() == ".wav" else f"{stem}.wav"
    advice = f"is not read; convert it: ffmpeg -i {shlex.quote(name)} {shlex.quote(target)}"
    known = next((kind for mark, kind in _UNREAD.items() if content.startswith(mark)), None)
    if content[4:8] == b"ftyp":
        known = "MPEG-4 (M4A)"
    elif known is None and len(content) > 1 and content[0] == 0xFF and content[1] & 0xF6 == 0xF0:
        known = "AAC"
    if known is not None:
        return Reject(Reason.NOT_AUDIO, f"{name}: {known} {advice}")
    if suffix.lower() in HEADERLESS_SUFFIXES:
        return Reject(Reason.NOT_AUDIO, f"{name}: has no header; set data.pcm_rate_hz to its sample rate")
    if mistaken := describe_head(content):
        return Reject(Reason.NOT_AUDIO, f"{name}: {mistaken}")
    if suffix.lower() in _UNREAD_SUFFIXES:
        return Reject(Reason.NOT_AUDIO, f"{name}: {suffix} {advice}")
    what = "no RIFF/WAVE header, nor that of FLAC, OGG, MP3, AIFF, AU or W64"
    return Reject(Reason.NOT_AUDIO, f"{what}; samples without one are read from .pcm files")


def _is_mpeg(content: bytes) -> bool:
    # Eleven bits of synchronisation, and a layer: 00 is that of AAC.
    return len(content) == 2 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0 and content[1] & 0x06 != 0
