"""The bytes of a text, a label file or a manifest, in the encodings that Korean files come in -> UTF-8."""

from __future__ import annotations

import codecs
import json

_ASCII = bytes(range(128))


class EncodingError(ValueError):
    """A text in no encoding that is read, or a damaged one; says where, and quotes nothing."""


def to_utf8(content: bytes) -> bytes:
    """A text in UTF-8, of one in UTF-8, UTF-16 or -32 (by their marks, or the zeros of ASCII's first letters), or cp949.

    Marks at its start are left out. A text most of which is UTF-8 is damaged where it is not: as cp949, which has a letter for
    nearly every pair of bytes, all of it would be other, wrong words.

    Raises:
        EncodingError: it is none of them, or damaged.
    """
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        try:
            return content.decode(encoding).lstrip("\ufeff").encode()
        except UnicodeError:
            raise EncodingError(f"{encoding.upper()} that is damaged, or cut off") from None
    while content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return _from_cp949(content, error.start)
    return content


def _from_cp949(content: bytes, start: int) -> bytes:
    """What is UTF-8 up to `start` alone, as UTF-8."""
    if not _is_mostly_utf8(content):
        try:
            return content.decode("cp949").encode()
        except UnicodeDecodeError:
            pass
    line, line_start = content.count(b"\n", 0, start) + 1, content.rfind(b"\n", 0, start) + 1
    place = f"line {line} column {len(content[line_start:start].decode()) + 1}"
    raise EncodingError(f"{place}: neither UTF-8 nor another encoding that is read (UTF-16, cp949)")


def _is_mostly_utf8(content: bytes) -> bool:
    """Whether that holds of most of what is not ASCII."""
    whole = content.decode("utf-8", "ignore").encode()
    return 2 * len(whole.translate(None, _ASCII)) > len(content.translate(None, _ASCII))
