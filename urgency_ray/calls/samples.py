"""Recordings as recorders leave them -> as libsndfile wants them, and how much of one is missing.

One rule for the size that a header declares: 0, or larger than any call, was never filled in, and means all that there is. Less
than there is, and behind it no chunk, tag or padding: the recorder went on after its last word on the size. More than there is:
cut off, which the caller of this judges.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from urgency_ray.errors import Reason, Reject

# What writers that cannot seek back leave: 0xFFFFFFFF less a header, 0x80000000, 0x7FFFF000 rounded down to frames, and such.
_NEVER_FILLED_IN = 0x7FFF0000
_MAX_SIZE = 0xFFFFFFFF
# A hostile file can hold millions of chunks; a real one a dozen.
_MAX_CHUNKS = 1 << 16
# As many chunks before the samples are no trouble to libsndfile.
_FEW_CHUNKS = 100
_MAX_FMT_BYTES = 4096
_KNOWN = (b"data", b"fmt ", b"fact", b"LIST", b"bext", b"cue ", b"JUNK", b"junk", b"PAD ", b"FLLR", b"smpl", b"iXML")
_TAGS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICSBEGIN", b"RIFF")

SLACK_SEC = 0.1
"""Recorders that are cut off, or write in blocks, lose as much at the end; more is a loss."""


@dataclass
class Samples:
    """Where the samples of a file are.

    Attributes:
        content: a file for libsndfile: the one given, or where that is odd, another of the same samples.
        available: bytes of samples that are there.
        missing: bytes that the header declares beyond them.
        is_open: whether the end of the file is not marked as such, where its format marks it.
        note: what was decided that a user should know; None of an ordinary file.
    """

    content: bytes
    available: int
    missing: int = 0
    is_open: bool = False
    note: str | None = None


@dataclass
class _Walk:
    """What the chunks of a file say."""

    order: str
    fmt: bytes | None = None
    long_size: int = _MAX_SIZE
    spans: list[tuple[int, int]] = field(default_factory=list)  # of samples, start and end
    missing: int = 0
    note: str | None = None
    is_odd: bool = False


def find_samples(content: bytes, kind: str, start: int) -> Samples:
    """Find the samples of a file, by its header.

    Args:
        content: the whole file.
        kind: what it is, see `formats.format_of`.
        start: where it begins, behind an ID3v2 tag.

    Raises:
        Reject: not_audio, empty_audio or truncated_audio (before the samples).
    """
    if kind == "riff":
        return _find_in_wav(content, start)
    if kind != "mp3":
        content = content[start:]
    if kind == "ogg":
        return Samples(content, len(content), is_open=_is_open(content))
    body, declared = _FINDERS[kind](content) if kind in _FINDERS else (0, 0)
    available = max(0, len(content) - body)
    return Samples(content, available, max(0, declared - available) if declared < _NEVER_FILLED_IN else 0)


def _find_in_wav(content: bytes, start: int) -> Samples:
    if content[start + 8 : start + 12] != b"WAVE":
        raise Reject(Reason.NOT_AUDIO, "no RIFF/WAVE header")
    mark = content[start : start + 4]
    walk = _Walk(order=">" if mark == b"RIFX" else "<", is_odd=start > 0 or mark == b"BW64")
    _walk_chunks(content, start + 12, walk)
    if walk.fmt is None:
        raise Reject(Reason.NOT_AUDIO, "no format chunk")
    if not walk.spans:
        raise Reject(Reason.EMPTY_AUDIO, "no data chunk")
    available = sum(end - begin for begin, end in walk.spans)
    if not available:
        raise Reject(Reason.EMPTY_AUDIO, "a header without samples")
    return Samples(_rebuild(content, walk) if walk.is_odd else content, available, walk.missing, note=walk.note)


def _walk_chunks(content: bytes, start: int, walk: _Walk) -> None:
    for number in range(_MAX_CHUNKS):
        if start + 8 > len(content):
            return
        name = content[start : start + 4]
        (size,) = struct.unpack_from(f"{walk.order}I", content, start + 4)
        start += 8
        if name == b"data":
            walk.is_odd |= walk.fmt is None or number > _FEW_CHUNKS
            size = _take_data(content, start, size, walk)
            if not _is_chunk(content, _next_chunk(content, start, size, walk.order), walk.order):
                return
        elif name == b"ds64" and start + 16 <= len(content):
            (walk.long_size,) = struct.unpack_from("<Q", content, start + 8)
        elif name == b"fmt " and walk.fmt is None:
            walk.fmt = content[start : start + min(size, _MAX_FMT_BYTES)]
        elif name == b"RIFF" and walk.spans:
            walk.is_odd, walk.note = True, "another WAV file follows the first, and is not read"
        if not walk.spans and start + size > len(content) and walk.fmt is not None:
            raise Reject(Reason.TRUNCATED_AUDIO, f"{len(content) - start} of {size} bytes of a chunk, and no samples")
        following = _next_chunk(content, start, size, walk.order)
        walk.is_odd |= not walk.spans and following != start + size + size % 2
        start = following
    if not walk.spans:
        raise Reject(Reason.NOT_AUDIO, f"more than {_MAX_CHUNKS} chunks before the samples")


def _take_data(content: bytes, start: int, declared: int, walk: _Walk) -> int:
    """Note the samples of a data chunk whose body is at `start`; return the size that it turns out to have."""
    size = walk.long_size if declared in (0, _MAX_SIZE) and walk.long_size != _MAX_SIZE else declared
    available = len(content) - start
    if size > available and size < _NEVER_FILLED_IN:
        walk.missing, size = size - available, available
    elif size > available or (size == 0 and not _is_tag(content, start, walk.order)):
        # libsndfile takes 0xFFFFFFFF by itself for all that there is.
        walk.is_odd |= size != _MAX_SIZE
        size = available
    elif 0 < size < available and not walk.spans:
        size = _unless_samples_follow(content, start, size, walk)
    if walk.spans:
        walk.is_odd, walk.note = True, "several data chunks, joined"
    walk.spans.append((start, start + size))
    return size


def _unless_samples_follow(content: bytes, start: int, size: int, walk: _Walk) -> int:
    """The size of a data chunk that declares less than there is: all of it, where more samples follow."""
    fmt = walk.fmt or b""
    bytes_per_sec = struct.unpack_from(f"{walk.order}I", fmt, 8)[0] if len(fmt) >= 12 else 0
    rest, end = len(content) - start - size, _next_chunk(content, start, size, walk.order)
    if not bytes_per_sec or rest <= SLACK_SEC * bytes_per_sec or _is_tag(content, end, walk.order):
        return size
    if content.count(b"\0", end) == len(content) - end:  # padding
        return size
    declared, whole = size / bytes_per_sec, (size + rest) / bytes_per_sec
    walk.is_odd, walk.note = True, f"the header declares {declared:.1f} s and samples follow: all {whole:.1f} s are read"
    return size + rest


def _next_chunk(content: bytes, start: int, size: int, order: str) -> int:
    """Where the chunk after that of `size` bytes at `start` begins: some writers leave the pad byte of odd sizes out."""
    end = start + size
    if size % 2 == 0 or content[end : end + 4] in _KNOWN:
        return end
    return end if _is_chunk(content, end, order) and not _is_chunk(content, end + 1, order) else end + 1


def _is_chunk(content: bytes, start: int, order: str) -> bool:
    name = content[start : start + 4]
    if len(content) < start + 8 or not all(32 <= byte < 127 for byte in name):
        return False
    return name in _KNOWN or start + 8 + int(struct.unpack_from(f"{order}I", content, start + 4)[0]) <= len(content)


def _is_tag(content: bytes, start: int, order: str) -> bool:
    """Whether what is at `start` are no samples: a chunk, a tag of another standard, or next to nothing."""
    return len(content) < start + 8 or content.startswith(_TAGS, start) or _is_chunk(content, start, order)


def _rebuild(content: bytes, walk: _Walk) -> bytes:
    """The same samples behind the plainest header."""
    assert walk.fmt is not None
    parts = [content[begin:end] for begin, end in walk.spans]
    size = min(sum(map(len, parts)), _MAX_SIZE)
    fmt = walk.fmt + b"\0" * (len(walk.fmt) % 2)
    sizes = [struct.pack(f"{walk.order}I", number) for number in (min(size + 20 + len(fmt), _MAX_SIZE), len(walk.fmt), size)]
    form = b"RIFX" if walk.order == ">" else b"RIFF"
    return b"".join((form, sizes[0], b"WAVEfmt ", sizes[1], fmt, b"data", sizes[2], *parts))


# Where samples start, and their declared size.
def _find_in_au(content: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", content, 4) if len(content) >= 12 else (0, 0)


def _find_in_aiff(content: bytes) -> tuple[int, int]:
    start = 12
    for _ in range(_MAX_CHUNKS):
        if start + 16 > len(content):
            break
        name, size = struct.unpack_from(">4sI", content, start)
        if name == b"SSND":
            return start + 16, max(0, size - 8)
        start += 8 + size + size % 2
    return 0, 0


def _find_in_w64(content: bytes) -> tuple[int, int]:
    start = 40
    for _ in range(_MAX_CHUNKS):
        if start + 24 > len(content):
            break
        name, size = struct.unpack_from("<16sQ", content, start)
        if name[:4] == b"data":
            return start + 24, max(0, size - 24)
        start += max(24, size + -size % 8)
    return 0, 0


_FINDERS = {"au": _find_in_au, "aiff": _find_in_aiff, "w64": _find_in_w64}


def _is_open(content: bytes) -> bool:
    """Whether the last page of an OGG file is not whole, or not marked as such: nothing else says how long it should be."""
    last = content.rfind(b"OggS")
    lengths = content[last + 27 : last + 27 + content[last + 26]] if last + 27 <= len(content) else b""
    return not lengths or not content[last + 5] & 4 or last + 27 + len(lengths) + sum(lengths) > len(content)
