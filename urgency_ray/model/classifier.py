"""The classifiers over embeddings: forward, save, load.

Shapes: B examples, R embedding rows (one an example, or one an utterance of a call), A audio_dim, T text_dim, H hidden_dim, M
modalities in use (1 or 2), C classes.
"""

# No `from __future__ import annotations`: the Hub's mixin reads the types of __init__ to decode config.json.
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from urgency_ray import __version__
from urgency_ray.config import ModelConfig
from urgency_ray.model.batch import Batch
from urgency_ray.model.call_attention import CallAttention, Turns, mean_over_calls
from urgency_ray.model.layer_weights import LayerChoice, LayerWeights
from urgency_ray.model.layers import FewTokensLayer, SixteenBitDropout
from urgency_ray.model.saved import SavedModel
from urgency_ray.model.score_surface import ScoreSurface
from urgency_ray.model.text_trunk import KoElectraCrossModal
from urgency_ray.schema import ACOUSTIC_FEATURES, SENTIMENT_LABELS, URGENCY_LABELS


class Standardize(nn.Module):
    """(x - mean) / std with statistics of the training split, which are saved with the model; missing values become 0."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def set_statistics(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Take the statistics of the training split, both (D,)."""
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(std))

    def forward(self, values: Tensor) -> Tensor:
        """(R, D) to (R, D)."""
        return torch.nan_to_num((values - self.mean) / self.std, nan=0.0)


def _project(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim), nn.GELU(), SixteenBitDropout(dropout))


class CrossAttention(nn.Module):
    """UrgencySense's `CrossAttentionFusionOrdinal` trunk: the modalities' tokens attend to each other, then meet.

    (R, M, H) through a transformer encoder; two tokens a, t leave as concat(a, t, |a - t|, a * t), a single one as it is.
    """

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        layer = FewTokensLayer(config.hidden_dim, config.num_heads, config.feedforward_dim, config.encoder_dropout)
        self.encoder = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.out_dim = config.hidden_dim * (4 if num_tokens == 2 else 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, M, H) to (R, 4 H) or (R, H)."""
        tokens = self.encoder(tokens)
        if tokens.shape[1] == 1:
            return tokens[:, 0]
        audio, text = tokens[:, 0], tokens[:, 1]
        return torch.cat([audio, text, (audio - text).abs(), audio * text], dim=-1)


class Concat(nn.Module):
    """The baseline's late fusion: the modalities side by side."""

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        self.out_dim = config.hidden_dim * num_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, M, H) to (R, M H)."""
        return tokens.flatten(1)


class CrossModal(nn.Module):
    """UrgencyDetect's fusion on frozen embeddings: text queries audio, residual, layer norm, dropout.

    With one audio vector a call there is one key, so attention passes the audio value on whole; the residual keeps the text.
    """

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.hidden_dim, config.num_heads, config.encoder_dropout, batch_first=True)
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.dropout = SixteenBitDropout(config.dropout)
        self.out_dim = config.hidden_dim

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, M, H) to (R, H)."""
        query, audio = tokens[:, -1:], tokens[:, :1]
        heard, _ = self.attention(query, audio, audio, need_weights=False)
        fused: Tensor = self.dropout(self.norm(query + heard))
        return fused[:, 0]


TRUNKS: dict[str, type[CrossAttention] | type[Concat] | type[CrossModal]] = {
    "cross_attention": CrossAttention,
    "concat": Concat,
    "cross_modal": CrossModal,
    "hierarchical": CrossAttention,
}


class CornHead(nn.Linear):
    """CORN's head for C ordered classes (Shi, Cao and Raschka 2021, arXiv:2111.08851), as log-probabilities of the classes.

    The linear layer gives f_k = logit P(y > k | y >= k) for k < C - 1; the chain rule makes of them log P(y = k) =
    log P(y <= k | y >= k) + sum over j < k of log P(y > j | y >= j). A softmax leaves log-probabilities as they are, so losses
    and predictions take them for logits. The class called is the most probable one, as everywhere here, where the paper counts
    the P(y > k) above 1/2 (the median).
    """

    def __init__(self, in_dim: int, num_classes: int) -> None:
        super().__init__(in_dim, num_classes - 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, in_dim) to (B, C)."""
        return self.chain(super().forward(hidden))

    @staticmethod
    def chain(conditional: Tensor) -> Tensor:
        """The linear layer's f_k (..., C - 1) to log-probabilities (..., C)."""
        conditional = conditional.float()
        beyond = nn.functional.logsigmoid(conditional).cumsum(dim=-1)
        # The last class has no task of its own: whoever is beyond all others is there.
        return nn.functional.pad(nn.functional.logsigmoid(-conditional), (0, 1)) + nn.functional.pad(beyond, (1, 0))


class UrgencyClassifier(
    SavedModel,
    ModelHubMixin,
    library_name="urgency_ray",
    coders={ModelConfig: (lambda config: config.model_dump(), ModelConfig.model_validate)},
):
    """Projects each modality, fuses them in a trunk and classifies; the Hub's mixin gives `save_pretrained`, `from_pretrained`.

    Args:
        model: sizes, trunk and modalities.
        audio_dim: width of the audio embeddings (A).
        text_dim: width of the text embeddings (T).
        with_sentiment: add the second head.
        transform: what made the embeddings (data and encoder sections, fingerprint), kept in config.json so that new calls get
            exactly the same.
        architecture: of the text encoder that is part of the model, where `model` names one: its transformers configuration as
            plain values, so that neither loading nor use needs the checkpoint that training started from.
        num_layers: of each encoder (`audio`, `text`), whose vectors lie side by side in a row; None is one of each. The widths
            are those of whole rows.
        urgency_ray_version: the version that made the model; it is only kept.
    """

    def __init__(
        self,
        model: ModelConfig,
        audio_dim: int,
        text_dim: int,
        with_sentiment: bool = False,
        transform: dict[str, Any] | None = None,
        *,
        architecture: dict[str, Any] | None = None,
        num_layers: dict[str, int] | None = None,
        urgency_ray_version: str = __version__,
    ) -> None:
        super().__init__()
        # `model` is its name in config.json; here it would be a model that is none.
        self.config = model
        self.transform = transform or {}
        self.architecture = architecture
        self.standardize_audio = Standardize(audio_dim)
        self.standardize_text = Standardize(text_dim)
        self.standardize_acoustic = Standardize(len(ACOUSTIC_FEATURES))
        self.hears = model.modalities != "text"
        self.reads = model.modalities != "audio"
        self.num_layers = {"audio": 1, "text": 1} | (num_layers or {})
        # What is fitted at once is not trained: nothing would learn these weights.
        choices = {"audio": model.audio_layers, "text": model.text_layers}
        fixed: dict[str, LayerChoice] = {
            name: "mean" if choice == "weighted" and model.is_fitted else choice for name, choice in choices.items()
        }
        self.mix_audio = LayerWeights(self.num_layers["audio"] if self.hears else 1, fixed["audio"])
        # A text encoder that is part of the model reads the words themselves.
        uses_text = self.reads and model.text_encoder is None
        self.mix_text = LayerWeights(self.num_layers["text"] if uses_text else 1, fixed["text"])
        audio_dim, text_dim = audio_dim // self.num_layers["audio"], text_dim // self.num_layers["text"]
        in_dim = audio_dim + (len(ACOUSTIC_FEATURES) if model.acoustic_features else 0)
        self.trunk: KoElectraCrossModal | CrossAttention | Concat | CrossModal | None = None
        if model.is_linear:
            self.head: nn.Module = nn.Identity()
            width = self.hears * in_dim + self.reads * text_dim
        elif model.name == "stacked":
            surface = ScoreSurface([in_dim] * self.hears + [text_dim] * self.reads)
            self.head, width = surface, surface.out_dim
        elif model.text_encoder is not None:
            self.trunk = KoElectraCrossModal(model, in_dim, architecture)
            self.head = nn.Identity()
            width = self.trunk.out_dim
        else:
            if self.hears:
                self.project_audio = _project(in_dim, model.hidden_dim, model.dropout)
            if self.reads:
                self.project_text = _project(text_dim, model.hidden_dim, model.dropout)
            self.trunk = TRUNKS[model.name](model, num_tokens=self.hears + self.reads)
            self.head, width = nn.Identity(), self.trunk.out_dim
            if model.head_dim is not None:
                self.head, width = _project(self.trunk.out_dim, model.head_dim, model.dropout), model.head_dim
        self.attention = None
        if model.name == "hierarchical" and self.trunk is not None:
            self.attention = CallAttention(model, self.trunk.out_dim)
        self.urgency = (CornHead if model.urgency_head == "corn" else nn.Linear)(width, len(URGENCY_LABELS))
        self.sentiment = nn.Linear(width, len(SENTIMENT_LABELS)) if with_sentiment else None

    @property
    def reads_tokens(self) -> bool:
        """Whether a text encoder is part of the model, so that it takes token ids."""
        return isinstance(self.trunk, KoElectraCrossModal) and self.reads

    @property
    def width(self) -> int:
        """Of each modality's token; a text encoder that is part of the model brings its own."""
        return self.trunk.out_dim if isinstance(self.trunk, KoElectraCrossModal) else self.config.hidden_dim

    @property
    def widths(self) -> dict[str, int]:
        """Of the embeddings that it takes: `audio` (A) and `text` (T)."""
        return {"audio": len(self.standardize_audio.mean), "text": len(self.standardize_text.mean)}

    @property
    def layer_weights(self) -> dict[str, list[float]]:
        """What each layer of an encoder weighs, `audio` and `text`, of those that it uses and that have several."""
        mixes = {"audio": self.mix_audio, "text": self.mix_text}
        return {name: mix.weights().tolist() for name, mix in mixes.items() if mix.num_layers > 1}

    @property
    def takes_calls(self) -> bool:
        """Whether an example is a call of several utterances."""
        return self.attention is not None

    def explain(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        """`forward`'s logits, and of a hierarchical model the weights (R,) of the utterances, which sum to 1 over a call."""
        return self.decide(self._fuse(batch), batch.turns)

    def decide(self, fused: Tensor, turns: Turns | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """What `explain` gives, of the trunk's output or, where there is none, of the inputs side by side (R, D)."""
        weights = None
        if self.attention is not None:
            assert turns is not None, "a hierarchical model takes the utterances of calls"
            fused, weights = self.attention(fused, turns)
        elif turns is not None:
            fused, weights = mean_over_calls(fused, turns)
        hidden = self.head(fused)
        logits = {"urgency": self.urgency(hidden)}
        if self.sentiment is not None:
            logits["sentiment"] = self.sentiment(hidden)
        return logits, weights

    def linear_inputs(self, batch: Batch) -> Tensor:
        """Of a model without a trunk: the standardised inputs side by side, (B, D), their mean over the rows of a call."""
        inputs = self._fuse(batch)
        return inputs if batch.turns is None else mean_over_calls(inputs, batch.turns)[0]

    def _fuse(self, batch: Batch) -> Any:
        audio = self.mix_audio(self.standardize_audio(batch.audio)) if self.hears else None
        if audio is not None and self.config.acoustic_features:
            audio = torch.cat([audio, self.standardize_acoustic(batch.acoustic)], dim=-1)
        if isinstance(self.trunk, KoElectraCrossModal):
            return self.trunk(audio, batch.token_ids, batch.token_mask)
        if self.trunk is None:
            text = [self.mix_text(self.standardize_text(batch.text))] if self.reads else []
            return torch.cat([*([] if audio is None else [audio]), *text], dim=-1)
        tokens = [self.project_audio(audio)] if self.hears else []
        if self.reads:
            tokens.append(self.project_text(self.mix_text(self.standardize_text(batch.text))))
        return self.trunk(torch.stack(tokens, dim=1))
