"""Hugging Face models by name or folder: loading, what identifies their weights, their arithmetic."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig, TranscriberConfig
from urgency_ray.encoders.arithmetic import best_arithmetic, recompute_overflows
from urgency_ray.encoders.cpu import pack, quantise, use_front_end
from urgency_ray.huggingface import load_checkpoint, load_pretrained

# Weights and their index, configurations and fast tokenizers; word lists, merges and sentencepiece models of the others.
LOADED_SUFFIXES = {".safetensors", ".bin", ".json", ".txt", ".model", ".codes", ".tiktoken", ".vocab"}
UNREAD = re.compile(
    r"\.|readme|license|requirements|training_args|trainer_state|optimizer|scheduler|(all|train|eval|predict)_results",
    re.IGNORECASE,
)
SAFETENSORS = {"model.safetensors", "model.safetensors.index.json"}


def load_transformer(
    kind: str,
    config: AudioEncoderConfig | TextEncoderConfig | TranscriberConfig,
    device: str,
    architecture: Any = None,
) -> tuple[Any, torch.dtype]:
    """The model of `config` on `device`, ready to work, and the floating type that it computes in.

    Args:
        kind, architecture: as in `load_checkpoint`.
        config: names the model.
        device: torch device.

    Raises:
        RequestError: it cannot be loaded.
    """
    name = best_arithmetic(device).dtype if config.dtype == "auto" else config.dtype
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(name, torch.float32)
    assert config.name is not None
    source: dict[str, Any] = {"dtype": dtype, "revision": config.revision, "architecture": architecture}
    model: Any = load_checkpoint(kind, config.name, **source)
    if device == "cpu":
        use_front_end(model.base_model)
    if name == "int8":
        quantise(model)
    if device == "cpu" and dtype is torch.bfloat16:
        pack(model)
    if dtype is torch.float16 and not model.can_generate():
        recompute_overflows(model)
    return model.to(device).eval(), dtype


def load_processors(kind: str, config: TranscriberConfig) -> tuple[Any, Any]:
    """The feature extractor and the tokenizer of a model that has both.

    Raises:
        RequestError: one of them cannot be loaded.
    """
    name = config.name
    assert name is not None
    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    make_extractor: Any = AutoFeatureExtractor.from_pretrained
    make_tokenizer: Any = AutoTokenizer.from_pretrained
    extractor = load_pretrained(kind, name, lambda: make_extractor(name, **source))
    return extractor, load_pretrained(kind, name, lambda: make_tokenizer(name, **source))


def identify_weights(kind: str, name: str, revision: str | None) -> str:
    """The commit of a Hub model, or a digest of those files of a folder that loading reads.

    Version 0.2.0 digested all files of a folder: where it holds others, too, its models still predict (`load.has_weights`), but
    `extract` takes a run folder of that version for one of other weights.

    Raises:
        RequestError: there is no such model or folder.
    """
    folder = Path(name)
    load_pretrained(kind, name, lambda: AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False))
    if folder.is_dir():
        return digest_files(loaded_files(folder))
    # The Hub's cache keeps what was just loaded below the commit that the name stands for.
    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else revision or "main"


def list_files(folder: Path) -> list[Path]:
    """The files of a folder by name, without those of its subfolders, which no loading reads."""
    return sorted(path for path in folder.iterdir() if path.is_file())


def loaded_files(folder: Path) -> list[Path]:
    """Those files of a checkpoint folder that decide an embedding: weights, configuration, preprocessor, tokenizer.

    By kind and not by a list of names: each tokenizer has names of its own, and a file too many asks for a needless look,
    where one too few would let other weights pass. Left out are documents, what a Trainer leaves, other frameworks' weights
    and, as transformers reads safetensors first, PyTorch's where there are both.
    """
    files = [path for path in list_files(folder) if path.suffix in LOADED_SUFFIXES and not UNREAD.match(path.name)]
    if any(path.name in SAFETENSORS for path in files):
        files = [path for path in files if not path.name.startswith("pytorch_model")]
    return files


def digest_files(files: Iterable[Path]) -> str:
    """`sha256:` and a digest of the names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            digest.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"
