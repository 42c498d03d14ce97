"""Hugging Face speech recognizers by name or folder: which of the kinds that are known here one is."""

from __future__ import annotations

from typing import Any

from transformers import MODEL_FOR_CTC_MAPPING, AutoConfig

from urgency_ray.config import TranscriberConfig
from urgency_ray.encoders.base import Transcriber
from urgency_ray.encoders.ctc import CtcTranscriber
from urgency_ray.encoders.whisper import WhisperTranscriber
from urgency_ray.errors import RequestError
from urgency_ray.huggingface import load_pretrained


def open_transcriber(config: TranscriberConfig, device: str) -> Transcriber:
    """The transcriber of a section that names one, on a torch device.

    Raises:
        RequestError: it cannot be loaded, or is of another kind.
    """
    name = config.name
    assert name is not None
    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    architecture = load_pretrained("transcriber", name, lambda: AutoConfig.from_pretrained(name, **source))
    if architecture.model_type == "whisper":
        return WhisperTranscriber(config, device)
    if type(architecture) in MODEL_FOR_CTC_MAPPING and hasattr(architecture, "conv_stride"):
        return CtcTranscriber(config, device)
    raise RequestError(
        f"transcriber {name}: a {architecture.model_type} model; choose a CTC model of the wav2vec 2.0 family (wav2vec2, "
        "HuBERT, WavLM, data2vec-audio, ...) or a Whisper"
    )
