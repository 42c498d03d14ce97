"""What extraction and training both ask of Hugging Face models: errors of one line, and how many tokens fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from urgency_ray.errors import RequestError

Loaded = TypeVar("Loaded")


def load_pretrained(kind: str, name: str, load: Callable[[], Loaded]) -> Loaded:
    """What `load` gives.

    Args:
        kind: what sort of encoder, for the message: `audio`, `text`.
        name: Hugging Face name or folder, for the message.
        load: calls a `from_pretrained`.

    Raises:
        RequestError: there is no such model or folder, or transformers cannot read it.
    """
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = "give a local folder, or a name that can be downloaded here"
        raise RequestError(f"{kind} encoder {name}: cannot be loaded: {first_line} ({advice})") from error


def longest_input(tokenizer: Any, architecture: Any, wanted: int) -> int:
    """Tokens that a text encoder reads at most, special ones included: what is wanted, as far as the model goes.

    Args:
        tokenizer: a transformers tokenizer.
        architecture: the model's transformers configuration.
        wanted: the config's limit.
    """
    positions = int(getattr(architecture, "max_position_embeddings", wanted))
    # RoBERTa counts its positions from the padding index + 1.
    offset = architecture.pad_token_id + 1 if "roberta" in architecture.model_type else 0
    return min(wanted, int(tokenizer.model_max_length), positions - offset)


def describe_damage(path: Path) -> str | None:
    """What is wrong with a file of weights that can be seen without loading it, and the mend; None where nothing is."""
    with path.open("rb") as stream:
        start = stream.read(64)
    if not start:
        return "is empty; copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git-LFS pointer, not the weights; run `git lfs pull` where it came from, and copy it again"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not the weights; download it again"
    return _describe_safetensors(path, start) if path.suffix == ".safetensors" else None


def _describe_safetensors(path: Path, start: bytes) -> str | None:
    """The same of a safetensors file: 8 bytes of its header's length, a header in JSON, and as many bytes as that counts.

    See https://huggingface.co/docs/safetensors.
    """
    if start.startswith((b"PK", b"\x80")):
        return "is a pickle of PyTorch's, which can run code and is not loaded; save the model as safetensors"
    size, length = path.stat().st_size, int.from_bytes(start[:8], "little")
    if length > size - 8:
        return f"is cut, or no safetensors file: its header should have {length:,} bytes, and the whole file has {size:,}"
    with path.open("rb") as stream:
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
            ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "is no safetensors file: its header cannot be read"
    end = 8 + length + max(ends, default=0)
    return f"is cut: {size:,} of {end:,} bytes; copy it again" if size < end else None
