"""UrgencyDetect's `KoElectraCrossModal`: a text encoder that is trained inside the classifier, with text querying audio.

Shapes: B rows, L tokens of the longest text, A width of the audio input, H width of the text encoder.
"""

from __future__ import annotations

import json
from typing import Any, Self

import torch
from torch import Tensor, nn

from urgency_ray.config import ModelConfig
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import load_checkpoint, load_pretrained, longest_input


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of `config.text_encoder`, None without one; its `model_max_length` is the most that the classifier reads.

    Raises:
        RequestError: it cannot be loaded, or is not a fast one.
    """
    if config.text_encoder is None:
        return None
    from transformers import AutoConfig, AutoTokenizer

    name, source = config.text_encoder, {"revision": config.text_encoder_revision, "trust_remote_code": False}
    tokenizer = load_pretrained("text encoder", name, lambda: AutoTokenizer.from_pretrained(name, **source))
    architecture = load_pretrained("text encoder", name, lambda: AutoConfig.from_pretrained(name, **source))
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise RequestError(f"model.text_encoder: {name} has no fast tokenizer that pads; give a model like BERT or ELECTRA")
    tokenizer.model_max_length = longest_input(tokenizer, architecture, config.max_tokens)
    return tokenizer


def load_saved_tokenizer(location: str, **source: Any) -> Any:
    """The tokenizer beside a saved classifier in a folder or on the Hub; `source` is what from_pretrained takes."""
    from transformers import PreTrainedTokenizerFast

    # Not AutoTokenizer: config.json there is the classifier's, and of no transformers model.
    return PreTrainedTokenizerFast.from_pretrained(location, **source)


def load_initial_weights(config: ModelConfig) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What training starts from: the architecture of `config.text_encoder` as plain values, and its float32 weights.

    Raises:
        RequestError: it cannot be loaded.
    """
    name, revision = str(config.text_encoder), config.text_encoder_revision
    encoder = _drop_pooler(load_checkpoint("text encoder", name, dtype=torch.float32, revision=revision))
    architecture = json.loads(encoder.config.to_json_string(use_diff=False))
    architecture.pop("_name_or_path", None)
    return architecture, encoder.state_dict()


def _drop_pooler(encoder: Any) -> Any:
    # BERT and RoBERTa end in a pooler that nothing here reads: without gradient, it would stop data-parallel workers.
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


class KoElectraCrossModal(nn.Module):
    """UrgencyDetect's trunk: [CLS] of the text encoder queries the audio, Linear and ReLU; residual, layer norm, dropout.

    With one audio vector a row there is one key, so attention passes the audio value on whole; the residual keeps the text.
    Text alone is [CLS] itself, audio alone the projected audio, without an encoder. A frozen part of the encoder is a fixed
    function: it stays in evaluation mode, without dropout, while the rest trains; dropout elsewhere in the encoder is the
    checkpoint's own.

    Args:
        config: the model section.
        audio_dim: width of the audio input (A).
        architecture: the text encoder's transformers configuration as plain values; its weights are random until loaded.

    Raises:
        RequestError: the heads do not divide the encoder's width, or the encoder has not so many layers, or cannot checkpoint.
    """

    def __init__(self, config: ModelConfig, audio_dim: int, architecture: dict[str, Any] | None) -> None:
        super().__init__()
        self.hears = config.modalities != "text"
        self.reads = config.modalities != "audio"
        self.out_dim = config.hidden_dim
        self.dropout = nn.Dropout(config.dropout)
        self.trained_layers: range | None = None
        if self.reads:
            from transformers import AutoConfig, AutoModel

            assert architecture is not None, "given wherever the text is read"
            from_config: Any = AutoModel.from_config
            self.text_encoder = _drop_pooler(from_config(AutoConfig.for_model(**architecture), dtype=torch.float32))
            self.out_dim = int(self.text_encoder.config.hidden_size)
            self._prepare_encoder(config)
        if self.hears:
            self.project_audio = nn.Linear(audio_dim, self.out_dim)
        if self.hears and self.reads:
            if self.out_dim % config.num_heads:
                wanted = f"must divide {self.out_dim}, the width of {config.text_encoder}"
                raise RequestError(f"model.num_heads: {wanted}, but got {config.num_heads}")
            self.attention = nn.MultiheadAttention(self.out_dim, config.num_heads, batch_first=True)
            self.norm = nn.LayerNorm(self.out_dim)

    def _prepare_encoder(self, config: ModelConfig) -> None:
        if config.gradient_checkpointing:
            if not self.text_encoder.supports_gradient_checkpointing:
                raise RequestError(f"model.gradient_checkpointing: {config.text_encoder} cannot do it; set it to false")
            # The older name is that of transformers 5.0.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            enable = next(getattr(self.text_encoder, name) for name in names if hasattr(self.text_encoder, name))
            enable({"use_reentrant": False})
            self.text_encoder.config.use_cache = False  # a decoder's option, which would warn
            # It also makes the embeddings want gradients, which would run the backward pass through what is frozen.
            self.text_encoder.disable_input_require_grads()
        if config.trainable_layers is None:
            return
        num_layers = len(self._layers())
        if config.trainable_layers > num_layers:
            wanted = f"must be at most {num_layers}, the layers of {config.text_encoder}, or null for all of it"
            raise RequestError(f"model.trainable_layers: {wanted}, but got {config.trainable_layers}")
        self.trained_layers = range(num_layers - config.trainable_layers, num_layers)
        self.text_encoder.requires_grad_(False)
        for index in self.trained_layers:
            self._layers()[index].requires_grad_(True)

    def _layers(self) -> list[nn.Module]:
        size = int(self.text_encoder.config.num_hidden_layers)
        lists = (part for part in self.text_encoder.modules() if isinstance(part, nn.ModuleList) and len(part) == size)
        return list(next(lists, []))

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what is frozen stays in evaluation mode."""
        super().train(mode)
        if mode and self.trained_layers is not None:
            self.text_encoder.eval()
            for index in self.trained_layers:
                self._layers()[index].train()
        return self

    def forward(self, audio: Tensor | None, ids: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, A), token ids (B, L) and their mask (B, L) to (B, H), or (B, hidden_dim) from audio alone."""
        heard = torch.relu(self.project_audio(audio)).unsqueeze(1) if self.hears else None
        if not self.reads:
            hidden: Tensor = self.dropout(heard)
            return hidden[:, 0]
        query = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, :1]
        if heard is not None:
            attended, _ = self.attention(query, heard, heard, need_weights=False)
            query = self.norm(query + self.dropout(attended))
        fused: Tensor = self.dropout(query)
        return fused[:, 0]
