"""What a classifier and an ensemble of them have in common: calibrated probabilities, and one folder that they are saved in."""

# No `from __future__ import annotations`: the Hub's mixin looks at the methods' signatures.
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from urgency_ray.model.batch import Batch
from urgency_ray.model.text_trunk import load_saved_tokenizer
from urgency_ray.model.weights import SOURCE, WEIGHTS_FILE, find_weights, load_weights

TASKS = ("urgency", "sentiment")


class SavedModel(nn.Module):
    """Goes before the Hub's mixin, whose `save_pretrained` and `from_pretrained` call what is here.

    Attributes:
        tokenizer: that of a text encoder that is part of the model, saved beside the weights; None without one.
        temperature: (2,), one for each of `TASKS`: what logits are divided by before they become probabilities, 1 until it is
            fitted on rows that the model has not seen.
    """

    tokenizer: Any = None
    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(len(TASKS)))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.temperature.device

    @property
    def reads_tokens(self) -> bool:
        """Whether a text encoder is part of the model, so that it takes token ids."""
        raise NotImplementedError

    def explain(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        """`forward`'s logits, and of a hierarchical model the weights (R,) of the utterances, which sum to 1 over a call."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits by task: `urgency` (B, 3; of CORN's head, log-probabilities) and, with that head, `sentiment` (B, 4)."""
        return self.explain(batch)[0]

    def probabilities(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Calibrated class probabilities by task, float32 (B, C), of what `forward` gave."""
        temperature = dict(zip(TASKS, self.temperature, strict=True))
        return {task: (values.float() / temperature[task]).softmax(dim=-1) for task, values in logits.items()}

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self, str(save_directory / WEIGHTS_FILE))
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        source = {key: options.pop(key) for key in SOURCE}
        path = find_weights(model_id, **source)
        model = cls(**options)
        load_weights(model, path)
        if model.reads_tokens:
            model.tokenizer = load_saved_tokenizer(model_id, **source)
        return model.eval()
