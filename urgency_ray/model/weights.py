"""Weights of a saved classifier: what is loaded is whole and finite, or refused by name; nothing is left to chance."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model
from torch import nn

from urgency_ray.errors import RequestError, first_line
from urgency_ray.huggingface import describe_damage, name_some

MAY_LACK = {"temperature"}
"""What the first models did not have; its initial value says the same as its absence."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill every parameter and buffer of `model` from a safetensors file.

    Raises:
        RequestError: the file is damaged or no safetensors at all, a tensor is missing, of another shape, unknown to the model,
            or not finite; the text names the file and the tensors.
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
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise RequestError(f"{path.name}: holds NaN or infinite values in {name_some(broken)}; train the model again")
