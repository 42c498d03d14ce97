"""Hugging Face encoders by name or folder: loading, what identifies their weights, their arithmetic."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, AutoModel

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig
from urgency_ray.encoders.cpu import quantise, use_front_end
from urgency_ray.huggingface import load_pretrained


def load_model(kind: str, config: AudioEncoderConfig | TextEncoderConfig, device: str) -> tuple[nn.Module, torch.dtype]:
    """The model of `config` on `device`, ready to encode, and the floating type that it computes in.

    Raises:
        RequestError: it cannot be loaded.
    """
    dtype = {"auto": torch.bfloat16 if device.startswith("cuda") else torch.float32, "bfloat16": torch.bfloat16}.get(
        config.dtype, torch.float32
    )
    model: nn.Module = load_pretrained(
        kind, config.name, lambda: AutoModel.from_pretrained(config.name, dtype=dtype, revision=config.revision)
    )
    if device == "cpu":
        use_front_end(model)
    if config.dtype == "int8":
        quantise(model)
    return model.to(device).eval(), dtype


def identify_weights(name: str, revision: str | None) -> str:
    """The commit of a Hub model, or a digest of the files of a folder.

    Raises:
        RequestError: there is no such model or folder.
    """
    folder = Path(name)
    load_pretrained("pretrained", name, lambda: AutoConfig.from_pretrained(name, revision=revision))
    if not folder.is_dir():
        # The Hub's cache keeps what was just loaded below the commit that the name stands for.
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(cached).parent.name if isinstance(cached, str) else revision or "main"
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as stream:
            digest.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"
