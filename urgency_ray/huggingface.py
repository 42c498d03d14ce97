"""What extraction and training both ask of Hugging Face models: errors of one line, and how many tokens fit."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from urgency_ray.errors import RequestError

Loaded = TypeVar("Loaded")

UNUSED = re.compile(r"(^|\.)(pooler\.|masked_spec_embed$|mask_token$|position_ids$)")
"""Weights that checkpoints may lack, since nothing here reads them."""
UNUSED_BESIDE_DECODER = re.compile(rf"{UNUSED.pattern}|(^|\.)decoder\.")
"""Likewise of a model with a decoder, whose encoder alone is taken."""
MOST_NAMES = 3
"""Weights that a message names; it counts the rest."""


def load_pretrained(kind: str, name: str, load: Callable[[], Loaded]) -> Loaded:
    """What `load` gives.

    Args:
        kind: what sort of model, for the message: `audio encoder`.
        name: Hugging Face name or folder, for the message.
        load: calls a `from_pretrained`.

    Raises:
        RequestError: there is no such model or folder, or transformers cannot read it, for whatever reason: it is in the files.
    """
    try:
        with _unheard():
            return load()
    except RequestError:
        raise
    except Exception as error:
        if damage := _find_damage(Path(name)):
            raise RequestError(f"{kind} {name}: {damage}") from error
        said, advice = _explain(name, str(error).strip() or type(error).__name__)
        raise RequestError(f"{kind} {name}: cannot be loaded: {said} ({advice})") from error


def _find_damage(folder: Path) -> str | None:
    """Which of a model's files that are JSON is none, and why; None where all are."""
    for path in sorted(folder.glob("*.json")):
        if damage := describe_damage(path):
            return f"{path.name} {damage}"
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return f"{path.name} is no JSON: cut, or another file; copy it again"
    return None


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What transformers warns of is not printed: what is wrong is said here in one line, and other reports concern nobody."""
    from transformers.utils import logging

    quiet: Any = logging
    level = quiet.get_verbosity()
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        quiet.set_verbosity(level)


def _explain(name: str, said: str) -> tuple[str, str]:
    """What is wrong with a model that transformers cannot load, of what that says of it, and what to do."""
    if "trust_remote_code" in said:
        return "it wants to run code of its own, which is never done here", "give a model that transformers itself knows"
    if "weights_only" in said:
        return "its weights are a pickle that could run code, which is never done here", "take its safetensors"
    # transformers takes a SentencePiece model for one of tiktoken's where it cannot read it.
    if "tiktoken" in said and find_spec("sentencepiece") is None and any(Path(name).glob("*.model")):
        return "its tokenizer is a SentencePiece model alone", "pip install sentencepiece, or copy its tokenizer.json, too"
    first = " ".join(said.splitlines()[0].split())
    if Path(name).is_dir():
        return first, "give the folder of a whole model of this kind, with its configuration and its tokenizer or preprocessor"
    return "no such folder" if _means_a_folder(name) else first, "give a local folder, or a name that can be downloaded here"


def _means_a_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def load_checkpoint(kind: str, name: str, *, dtype: Any, revision: str | None, architecture: Any = None) -> Any:
    """A transformers model, or its tower of one kind, with every weight out of the checkpoint.

    transformers fills what a checkpoint lacks at random, without an error: an encoder would be another one in each process.

    Args:
        kind, name: as in `load_pretrained`.
        dtype: torch's floating type.
        revision: of a Hub model.
        architecture: transformers' class whose `from_pretrained` makes it; None makes what encodes, without head or decoder.

    Raises:
        RequestError: there is no such model, a file of it is damaged, a weight that is used is missing, of another shape or not
            finite.
    """
    import torch
    from transformers import AutoModel

    folder = Path(name)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in (".safetensors", ".bin") and (damage := describe_damage(path)):
            raise RequestError(f"{kind} {name}: {path.name} {damage}")
    _refuse_elsewhere(kind, name)
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "trust_remote_code": False, "output_loading_info": True}
    # Named below: transformers' own error points to a report.
    options["ignore_mismatched_sizes"] = True
    make = architecture or AutoModel
    model, found = load_pretrained(kind, name, lambda: make.from_pretrained(name, **options))
    unused = UNUSED
    # A sentence encoder made of a T5 says that it has no decoder, and is loaded with one of random weights.
    has_decoder = kind == "text encoder" and hasattr(model, "encoder") and hasattr(model, "decoder")
    if architecture is None and (model.config.is_encoder_decoder or has_decoder):
        model, unused = model.get_encoder(), UNUSED_BESIDE_DECODER
    if kind == "audio encoder" and hasattr(model, "audio_model"):
        model = model.audio_model
    used = model.state_dict().keys()
    missing = [key for key in found["missing_keys"] if not unused.search(key) and any(key.endswith(name) for name in used)]
    if missing:
        raise RequestError(f"{kind} {name}: its weights lack {name_some(sorted(missing))}; take a whole checkpoint of it")
    if others := sorted({key for key, *_ in found["mismatched_keys"] if any(key.endswith(name) for name in used)}):
        words = f"its config.json describes other shapes than its weights have of {name_some(others)}"
        raise RequestError(f"{kind} {name}: {words}; take both from one model")
    broken = [key for key, value in model.state_dict().items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise RequestError(f"{kind} {name}: its weights hold NaN or infinite values in {name_some(broken)}")
    floats = {key for key, value in model.state_dict().items() if value.is_floating_point()}
    whole = [key for path in sorted(folder.glob("*.safetensors")) for key in whole_numbers(path)]
    if rounded := [key for key in whole if any(key.endswith(name) for name in floats)]:
        raise RequestError(f"{kind} {name}: its weights are whole numbers in {name_some(rounded)}; take another copy of it")
    return model


def _refuse_elsewhere(kind: str, name: str) -> None:
    """Refuse shards that lie elsewhere than in the folder: they are no part of what identifies its weights.

    Raises:
        RequestError: its index names some.
    """
    for path in Path(name).glob("*.index.json"):
        try:
            files = set(json.loads(path.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # transformers says what is wrong with it
        if elsewhere := sorted(file for file in map(str, files) if Path(file).name != file):
            words = f"{path.name} names {name_some(elsewhere)}, outside the folder; put all of a model's files into it"
            raise RequestError(f"{kind} {name}: {words}")


def whole_numbers(path: Path) -> list[str]:
    """Tensors of a safetensors file that are no floats: loaded as floats, they would be other weights."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return [key for key in file.keys() if not file.get_slice(key).get_dtype().startswith(("F", "BF"))]  # noqa: SIM118


def name_some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


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
    """What is wrong with a model's file that can be seen without loading it, and the mend; None where nothing is."""
    with path.open("rb") as stream:
        start = stream.read(64)
    safetensors, what = path.suffix == ".safetensors", "the file" if path.suffix == ".json" else "the weights"
    # A header begins there. Its length, before it, may look like anything: 128 like a pickle, 15392 like a web page.
    if safetensors and start[8:9] == b"{":
        return _describe_safetensors(path, start)
    if not start:
        return "is empty; copy it again"
    if start.startswith(b"version https://git-lfs"):
        return f"is a Git-LFS pointer, not {what}; run `git lfs pull` where it came from, and copy it again"
    if start.lstrip()[:1] == b"<":
        return f"is a web page, not {what}; download it again"
    if safetensors and start.startswith((b"PK", b"\x80")):
        return "is a pickle of PyTorch's, which can run code and is not loaded; save the model as safetensors"
    return _describe_safetensors(path, start) if safetensors else _describe_zip(path, start)


def _describe_zip(path: Path, start: bytes) -> str | None:
    """The same of PyTorch's own format, a zip whose directory is at its end."""
    is_cut = path.suffix == ".bin" and start.startswith(b"PK") and not zipfile.is_zipfile(path)
    return "is cut: it has no end; copy it again" if is_cut else None


def _describe_safetensors(path: Path, start: bytes) -> str | None:
    """The same of a safetensors file: 8 bytes of its header's length, a header in JSON, and as many bytes as that counts.

    See https://huggingface.co/docs/safetensors.
    """
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
