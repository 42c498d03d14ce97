"""Several layers of an encoder as one vector.

Shapes: R rows, L layers, D width of a layer's vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

LayerChoice = Literal["weighted", "mean", "last"]


class LayerWeights(nn.Module):
    """The layers of a row as their mean, weighted by a softmax over one learned number for each layer.

    s3prl's Featurizer (Yang et al. 2021, SUPERB, arXiv:2105.01051), after ELMo (Peters et al. 2018,
    arXiv:1802.05365, equation 1). It starts at the plain mean.

    Args:
        num_layers: layers side by side in a row (L).
        choice: `mean` leaves the weights even, `last` takes the last layer alone; neither learns anything.
    """

    def __init__(self, num_layers: int, choice: LayerChoice) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.choice = choice
        self.scores = nn.Parameter(torch.zeros(num_layers)) if choice == "weighted" and num_layers > 1 else None

    def weights(self) -> Tensor:
        """Of each layer (L,), which sum to 1."""
        if self.scores is not None:
            return self.scores.float().softmax(dim=0)
        if self.choice == "last":
            return torch.eye(self.num_layers)[-1]
        return torch.full((self.num_layers,), 1 / self.num_layers)

    def forward(self, values: Tensor) -> Tensor:
        """(R, L D) to (R, D)."""
        if self.num_layers == 1:
            return values
        layers = values.view(len(values), self.num_layers, -1)
        if self.scores is not None:
            mixed: Tensor = torch.einsum("l,rld->rd", self.weights().to(layers.dtype), layers)
        else:
            mixed = layers[:, -1] if self.choice == "last" else layers.mean(dim=1)
        return mixed


def name_weights(weights: Mapping[str, Sequence[float]], transform: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The weights of a model's layers by the numbers that its encoders have for them, `{"audio": {"6": 0.3, "9": 0.7}}`.

    Args:
        weights: `layer_weights` of a classifier or an ensemble.
        transform: what made its embeddings, `fingerprint.Transform` as plain values.
    """
    named = {}
    for name, values in weights.items():
        numbers = transform[f"{name}_encoder"]["layers"]
        named[name] = {str(number): round(value, 4) for number, value in zip(numbers, values, strict=True)}
    return named
