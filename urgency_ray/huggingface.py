"""What extraction and training both ask of Hugging Face models: errors of one line, and how many tokens fit."""

from __future__ import annotations

from collections.abc import Callable
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
