"""What a checkpoint says of itself: how many layers it has, and how sentence-transformers would pool its tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from urgency_ray.config import ENCODER_SECTIONS, AudioEncoderConfig, Config, TextEncoderConfig
from urgency_ray.encoders.load import is_built_in
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import load_pretrained

AnyEncoderConfig = TypeVar("AnyEncoderConfig", AudioEncoderConfig, TextEncoderConfig)

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last",
}
"""sentence-transformers' names of poolings, older and newer, and ours; it has others, which we have not."""
HARMLESS = {"Transformer", "Pooling", "Normalize"}
"""Modules of a sentence-transformers model that need no weights of their own: our encoder, pooling and L2."""


class SentenceSettings(NamedTuple):
    """What a sentence-transformers model says: its pooling and most tokens, or None where it does not, and other modules."""

    pooling: str | None
    max_tokens: int | None
    others: list[str]


def pin_settings(config: Config) -> Config:
    """`config` with what `layers: all` and `pooling: auto` stand for, so that a row's shape can be read off the fingerprint.

    Raises:
        RequestError: an encoder has not such layers, does not say how many it has, or how it pools.
    """
    sections = {name: getattr(config, name) for name in ENCODER_SECTIONS}
    settled = {name: settle(section) for name, section in sections.items()}
    changes = {
        f"{name}.{field}": getattr(settled[name], field)
        for name, section in sections.items()
        for field in ("layers", "pooling", "max_tokens")
        if getattr(settled[name], field, None) != getattr(section, field, None)
    }
    return config.replace(changes) if changes else config


def settle(config: AnyEncoderConfig) -> AnyEncoderConfig:
    """An encoder section with numbers for `layers: all`, and a pooling for `auto`.

    Raises:
        RequestError: as `pin_settings`.
    """
    if is_built_in(config):
        return config
    changes: dict[str, Any] = {}
    if config.layers != "last":
        changes["layers"] = _number_layers(config, _read_architecture(config))
    if isinstance(config, TextEncoderConfig) and config.pooling == "auto":
        changes |= _settle_pooling(config)
    return config.model_copy(update=changes)


def _kind(config: AudioEncoderConfig | TextEncoderConfig) -> str:
    return "audio" if isinstance(config, AudioEncoderConfig) else "text"


def _read_architecture(config: AudioEncoderConfig | TextEncoderConfig) -> Any:
    from transformers import AutoConfig

    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    return load_pretrained(f"{_kind(config)} encoder", config.name, lambda: AutoConfig.from_pretrained(config.name, **source))


def _number_layers(config: AudioEncoderConfig | TextEncoderConfig, architecture: Any) -> list[int]:
    field = f"{_kind(config)}_encoder.layers"
    # A model with a decoder counts its encoder's here; one of several towers, of different widths, has no such count.
    num_layers = None if hasattr(architecture, "audio_config") else getattr(architecture, "num_hidden_layers", None)
    if num_layers is None:
        raise RequestError(f"{field}: must be last for {config.name}, whose layers are not of one width; got {config.layers}")
    if config.layers == "all":
        return list(range(num_layers + 1))
    beyond = [number for number in config.layers if isinstance(number, int) and number > num_layers]
    if beyond:
        raise RequestError(
            f"{field}: {config.name} has layers 0 (what goes into the first) to {num_layers}, but got {beyond[0]}"
        )
    return list(config.layers) if isinstance(config.layers, list) else []


def _settle_pooling(config: TextEncoderConfig) -> dict[str, Any]:
    said = read_sentence_settings(config)
    advice = "say cls, mean or last"
    if said.pooling is None:
        raise RequestError(f"text_encoder.pooling: auto, but {config.name} says no pooling that we have; {advice}")
    if said.others:
        raise RequestError(
            f"text_encoder.pooling: auto, but {config.name} ends in {', '.join(said.others)}, which is not taken; {advice}"
        )
    return {"pooling": said.pooling, "max_tokens": min(config.max_tokens, said.max_tokens or config.max_tokens)}


def read_sentence_settings(config: TextEncoderConfig) -> SentenceSettings:
    """What the files of a sentence-transformers model say, in a folder or on the Hub; nothing of any other model.

    Its files: https://sbert.net/docs/sentence_transformer/usage/custom_models.html
    """
    modules = _read_json(config, "modules.json") or []
    kinds = {str(module.get("type", "")).rpartition(".")[2]: str(module.get("path", "")) for module in modules}
    pooling = _read_json(config, f"{kinds.get('Pooling') or '1_Pooling'}/config.json") or {}
    limit = (_read_json(config, "sentence_bert_config.json") or {}).get("max_seq_length")
    return SentenceSettings(_name_pooling(pooling), limit, [kind for kind in kinds if kind not in HARMLESS])


def _name_pooling(said: Mapping[str, Any]) -> str | None:
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    if isinstance(said.get("pooling_mode"), str):
        modes = [said["pooling_mode"]]
    # Several are put side by side there, which no row here is.
    return POOLINGS.get(modes[0]) if len(modes) == 1 else None


def _read_json(config: TextEncoderConfig, name: str) -> Any:
    """The content of a JSON file of a checkpoint, or None where it has none, or none that can be read."""
    from transformers.utils.hub import cached_file

    path = Path(config.name, name)
    try:
        if not Path(config.name).is_dir():
            path = Path(str(cached_file(config.name, name, revision=config.revision)))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
