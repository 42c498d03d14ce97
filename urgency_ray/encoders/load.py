"""From the section of an encoder, or of the transcriber, to what it stands for, or to what identifies its weights."""

from __future__ import annotations

from pathlib import Path

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig, TranscriberConfig
from urgency_ray.config.embedding_sections import BUILT_IN_AUDIO, BUILT_IN_TEXT
from urgency_ray.encoders.base import AudioEncoder, TextEncoder, Transcriber
from urgency_ray.errors import RequestError

_KINDS = {AudioEncoderConfig: "audio encoder", TextEncoderConfig: "text encoder", TranscriberConfig: "transcriber"}


def is_built_in(config: AudioEncoderConfig | TextEncoderConfig | TranscriberConfig) -> bool:
    """Whether the encoder comes with urgency_ray: it has no weights, one thread is enough for it, and a GPU is no use to it."""
    return config.name == (BUILT_IN_AUDIO if isinstance(config, AudioEncoderConfig) else BUILT_IN_TEXT)


def describe_model(config: AudioEncoderConfig | TextEncoderConfig | TranscriberConfig) -> str:
    """Its kind and name, as messages begin."""
    return f"{_KINDS[type(config)]} {config.name}"


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


def load_transcriber(config: TranscriberConfig, device: str = "cpu") -> Transcriber:
    """The transcriber that `config.name` stands for, on `device` (`cpu`, `cuda`).

    Raises:
        RequestError: the name is no speech recognizer that transformers can load.
    """
    from urgency_ray.encoders.transcribers import open_transcriber

    return open_transcriber(config, device)


def resolve_weights(config: AudioEncoderConfig | TextEncoderConfig | TranscriberConfig) -> str:
    """What identifies a model's weights: a commit on the Hub, a digest of a local folder, or `built-in`.

    Raises:
        RequestError: the name is neither built in nor a model that transformers can find, or a folder with a revision.
    """
    if is_built_in(config):
        return "built-in"
    from urgency_ray.encoders.hub import identify_weights

    assert config.name is not None
    kind = _KINDS[type(config)]
    if config.revision is not None and Path(config.name).is_dir():
        section = kind.replace(" ", "_")
        raise RequestError(f"{section}.revision: {config.revision}, but {config.name} is a folder, which has no revisions")
    return identify_weights(kind, config.name, config.revision)


def has_weights(config: AudioEncoderConfig | TextEncoderConfig | TranscriberConfig, known: str) -> bool:
    """Whether the model's weights are those that `known` identifies, of this version or of 0.2.0.

    Version 0.2.0 digested every file of a folder. Where the folder holds more than loading reads, a README say, its digest is
    another one, and holds as long as all of the files are as they were.

    Raises:
        RequestError: the name is neither built in nor a model that transformers can find.
    """
    if known == resolve_weights(config):
        return True
    folder = Path(config.name or "")
    if is_built_in(config) or not folder.is_dir():
        return False
    from urgency_ray.encoders.hub import digest_files, list_files

    return known == digest_files(list_files(folder))
