"""Weights of a saved classifier: what is loaded is whole and finite, or refused by name; nothing is left to chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_model
from torch import nn

from urgency_ray.errors import RequestError, first_line
from urgency_ray.huggingface import describe_damage, name_some, whole_numbers

WEIGHTS_FILE = "model.safetensors"
SOURCE = ("revision", "cache_dir", "force_download", "local_files_only", "token")
"""What the Hub's mixin hands on to a download."""
MAY_LACK = {"temperature"}
"""What the first models did not have; its initial value says the same as its absence."""


def find_weights(model_id: str, **source: Any) -> Path:
    """The weights' file of a saved model: a folder, or a repository of the Hub, which is downloaded from as `SOURCE` says."""
    folder = Path(model_id)
    return folder / WEIGHTS_FILE if folder.is_dir() else Path(hf_hub_download(model_id, WEIGHTS_FILE, **source))


def _is_divisor(name: str) -> bool:
    """Whether a buffer is one that inputs or logits are divided by."""
    return name.rpartition(".")[2] in {"std", "temperature"}


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill every parameter and buffer of `model` from a safetensors file.

    Raises:
        RequestError: the file is damaged or no safetensors at all, a tensor is missing, of another shape, unknown to the model,
            of whole numbers, or not finite; the text names the file and the tensors.
    """
    if damage := describe_damage(path):
        raise RequestError(f"{path.name}: {damage}")
    try:
        missing, unexpected = load_model(model, path, strict=False)
    except Exception as error:
        raise RequestError(f"{path.name}: does not fit the model that config.json describes: {first_line(error)}") from error
    for names, words in ((set(missing) - MAY_LACK, "lacks"), (unexpected, "holds, and the model does not know,")):
        if names:
            raise RequestError(
                f"{path.name}: {words} {name_some(sorted(names))}; save the model again, or take another copy of it"
            )
    whole = set(whole_numbers(path))
    floats = [name for name, value in model.state_dict().items() if value.is_floating_point()]
    if rounded := [name for name in floats if name in whole]:
        raise RequestError(f"{path.name}: holds whole numbers in {name_some(rounded)}, which are none; take another copy of it")
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise RequestError(f"{path.name}: holds NaN or infinite values in {name_some(broken)}; train the model again")
    flat = [name for name, value in model.named_buffers() if _is_divisor(name) and not (value > 0).all()]
    if flat:
        raise RequestError(f"{path.name}: holds values that are not above 0 in {name_some(flat)}; train the model again")
