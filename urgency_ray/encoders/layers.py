"""Hidden states of a transformers model, of one layer or several, in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from urgency_ray.errors import RequestError


def hidden_states(model: Any, inputs: Mapping[str, Tensor], layers: Sequence[int] | None) -> list[Tensor]:
    """The hidden states (B, T, D) of some layers, float32.

    Args:
        model: a transformers model.
        inputs: its keyword arguments.
        layers: numbers as its `hidden_states` count them: 0 is what goes into the first layer. None is its
            `last_hidden_state`, which most models give as the last of them, too.

    Raises:
        RequestError: the layers are not of one width and one rate, or the model does not show them.
    """
    if layers is None:
        return [model(**inputs).last_hidden_state.float()]
    output = model(**inputs, output_hidden_states=True)
    shown, last = output.hidden_states or (), output.last_hidden_state
    if max(layers) >= len(shown) or any(shown[number].shape != last.shape for number in layers):
        kind = model.config.model_type
        raise RequestError(f"layers must be last for a {kind} model, whose layers are not of one width and one rate")
    return [shown[number].float() for number in layers]
