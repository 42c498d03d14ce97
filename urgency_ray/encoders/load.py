"""Audio and text encoders: load once, encode a batch, pool. They know no Ray; extract.py puts them into actors."""

from __future__ import annotations

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig
from urgency_ray.encoders.base import AudioEncoder, TextEncoder

BUILT_IN_AUDIO = "spectral"
BUILT_IN_TEXT = "hashing"


def is_built_in(config: AudioEncoderConfig | TextEncoderConfig) -> bool:
    """Whether the encoder comes with urgency_ray: it has no weights, one thread is enough for it, and a GPU is no use to it."""
    return config.name == (BUILT_IN_AUDIO if isinstance(config, AudioEncoderConfig) else BUILT_IN_TEXT)


def load_audio_encoder(config: AudioEncoderConfig, device: str = "cpu") -> AudioEncoder:
    """The audio encoder that `config.name` stands for, on `device` (`cpu`, `cuda`).

    Raises:
        RequestError: the name is neither built in nor a model that transformers can load.
    """
    # The heavy imports wait until an encoder is really wanted: the command line and training never pay for them.
    if is_built_in(config):
        from urgency_ray.encoders.spectral import SpectralEncoder

        return SpectralEncoder(config)
    from urgency_ray.encoders.pretrained_audio import PretrainedAudioEncoder

    return PretrainedAudioEncoder(config, device)


def load_text_encoder(config: TextEncoderConfig, device: str = "cpu") -> TextEncoder:
    """The text encoder that `config.name` stands for, on `device` (`cpu`, `cuda`).

    Raises:
        RequestError: the name is neither built in nor a model that transformers can load.
    """
    if is_built_in(config):
        from urgency_ray.encoders.hashing import HashingEncoder

        return HashingEncoder(config)
    from urgency_ray.encoders.pretrained_text import PretrainedTextEncoder

    return PretrainedTextEncoder(config, device)


def resolve_weights(config: AudioEncoderConfig | TextEncoderConfig) -> str:
    """What identifies an encoder's weights: a commit on the Hub, a digest of a local folder, or `built-in`.

    Raises:
        RequestError: the name is neither built in nor a model that transformers can find.
    """
    if is_built_in(config):
        return "built-in"
    from urgency_ray.encoders.hub import identify_weights

    return identify_weights(config.name, config.revision)
