"""An encoder proves itself, once, before the work: what looks like an encoder can give every call the same vector.

A folder without tokenizer files, a head without a body, a causal model whose first token sees nothing of the text: each of them
loads, and each of them fills a run folder with vectors that say nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urgency_ray.config import AudioEncoderConfig, Config, TextEncoderConfig, TranscriberConfig
from urgency_ray.encoders.base import SAMPLE_RATE_HZ, AudioEncoder, TextEncoder, Transcriber
from urgency_ray.encoders.load import describe_model, is_built_in, load_audio_encoder, load_text_encoder, load_transcriber
from urgency_ray.encoders.settings import read_sentence_settings
from urgency_ray.errors import RequestError

log = logging.getLogger(__name__)

# Two that begin alike, and differ in what matters, and one of another length.
TEXTS = (
    "119입니다 건물에 불이 났어요",
    "119입니다 사람이 쓰러졌어요",
    "문이 안 열려서 그런데 급하지는 않아요 천천히 오셔도 돼요",
)
LEAST_DIFFERENCE = 1e-4
"""Between vectors of different inputs, as a share of their length: much more than rounding, much less than any meaning."""
ROUNDING = {"float32": 1e-2, "bfloat16": 5e-2, "float16": 5e-2, "int8": 5e-2, "auto": 5e-2}
"""Between the vectors that an input gets alone and in a batch, as a share of their length. Padding may move the last digits."""
MOST_UNKNOWN, SOME_UNKNOWN = 0.5, 0.1
"""Shares of a corpus' tokens that the vocabulary does not know: from the first on it is refused, from the second on told."""

SHORT_WINDOW = 0.7
"""Share of the window that an encoder fills up with silence, below which a user is told what that costs."""
MOST_LETTERS = 160
"""Of what an encoder's own code says of a fault."""


def probe_encoders(config: Config) -> None:
    """Load and try both encoders of a config, and its transcriber; built-in ones need no proof.

    They are tried on a GPU where this process sees one and may use it. A CPU without the instructions for bfloat16 or
    float16, which the nodes may have, tries float32 instead: it would take minutes.

    Raises:
        RequestError: as `probe_audio_encoder`, `probe_text_encoder` and `probe_transcriber` do.
    """
    if all(is_built_in(getattr(config, key)) for key in config.making_sections):
        return
    import torch

    device = "cuda" if config.extract.use_gpu is not False and torch.cuda.is_available() else "cpu"
    if device == "cpu":
        from urgency_ray.encoders.arithmetic import best_arithmetic

        here = best_arithmetic(device).dtype
        dtypes = {key: getattr(config, key).dtype for key in config.making_sections}
        half = [key for key, dtype in dtypes.items() if dtype in ("bfloat16", "float16") and dtype != here]
        config = config.replace({f"{key}.dtype": "float32" for key in half})
    probe_audio_encoder(config.audio_encoder, device)
    probe_text_encoder(config.text_encoder, device)
    probe_transcriber(config.transcriber, device)


def probe_audio_encoder(config: AudioEncoderConfig, device: str = "cpu") -> None:
    """Load the audio encoder, and hear three sounds with it; a built-in one needs no proof.

    Raises:
        RequestError: it cannot be loaded, hears another sample rate, or its vectors are not finite, not of its width, the same
            for all sounds, or others in a batch.
    """
    if is_built_in(config):
        return
    with blamed(config):
        encoder = load_audio_encoder(config, device)
    prove_audio_encoder(config, encoder)


def prove_audio_encoder(config: AudioEncoderConfig, encoder: AudioEncoder) -> None:
    """As `probe_audio_encoder`, with one that is loaded."""
    if is_built_in(config):
        return
    name = describe_model(config)
    with blamed(config):
        _refuse_other_rate(name, encoder.sample_rate_hz)
        _check(name, config.dtype, encoder.dim, _sounds(), lambda sounds: encoder.encode(sounds).vectors)
    _tell_silence(config, encoder)


def probe_text_encoder(config: TextEncoderConfig, device: str = "cpu") -> None:
    """Load the text encoder, and read three texts with it; a built-in one needs no proof.

    Raises:
        RequestError: it cannot be loaded, or its vectors are not finite, not of its width, the same for all texts, or others in
            a batch.
    """
    if is_built_in(config):
        return
    with blamed(config):
        encoder = load_text_encoder(config, device)
    prove_text_encoder(config, encoder)


def prove_text_encoder(config: TextEncoderConfig, encoder: TextEncoder) -> None:
    """As `probe_text_encoder`, with one that is loaded."""
    if is_built_in(config):
        return
    name = describe_model(config)
    with blamed(config):
        _check(name, config.dtype, encoder.dim, TEXTS, lambda texts: encoder.encode(texts).vectors)
    if others := _sentence_settings(config):
        words = "as a sentence-transformers model it says %s, which is not taken; --text_encoder.pooling auto takes it"
        log.warning(f"warning: %s: {words}", name, ", ".join(others))


def probe_transcriber(config: TranscriberConfig, device: str = "cpu") -> None:
    """Load the transcriber, where one is used, and hear two sounds with it, whatever it makes of them.

    Raises:
        RequestError: it cannot be loaded, hears another sample rate, or computes no finite values.
    """
    if not config.is_used:
        return
    with blamed(config):
        transcriber = load_transcriber(config, device)
    prove_transcriber(config, transcriber)


def prove_transcriber(config: TranscriberConfig, transcriber: Transcriber) -> None:
    """As `probe_transcriber`, with one that is loaded."""
    name = describe_model(config)
    with blamed(config):
        _refuse_other_rate(name, transcriber.sample_rate_hz)
        if None in transcriber.transcribe(_sounds()[:2]):
            raise RequestError(
                f"{name}: gives NaN or infinite values; set its dtype to float32, or take a whole checkpoint of it"
            )


def check_vocabulary(config: TextEncoderConfig, texts: Sequence[str]) -> None:
    """Look for words that the text encoder's tokenizer has no tokens for.

    Args:
        config: the text encoder, no built-in one: that reads all.
        texts: some transcripts of the corpus.

    Raises:
        RequestError: most of the tokens are unknown.
    """
    from urgency_ray.encoders.text_windows import load_tokenizer

    tokenizer = load_tokenizer(config)
    ids = [token for text in texts for token in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
    share = sum(token == tokenizer.unk_token_id for token in ids) / max(1, len(ids))
    words = f"text encoder {config.name}: its vocabulary does not know {share:.0%} of the tokens of these transcripts"
    if share >= MOST_UNKNOWN:
        raise RequestError(f"{words}; choose a model of Korean, or copy its tokenizer files, too")
    if share >= SOME_UNKNOWN:
        log.warning("warning: %s", words)


def _refuse_other_rate(name: str, sample_rate_hz: int) -> None:
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise RequestError(f"{name}: hears {sample_rate_hz} Hz, calls are decoded to {SAMPLE_RATE_HZ} Hz; choose another")


@contextlib.contextmanager
def blamed(config: AudioEncoderConfig | TextEncoderConfig | TranscriberConfig) -> Iterator[None]:
    """What goes wrong in an encoder's own code is a fact about the encoder that was asked for, whatever its type."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()).partition(". ")[0]
        fault = f"cannot be used: {type(error).__name__}: {said[:MOST_LETTERS]}; choose another"
        raise RequestError(f"{describe_model(config)}: {fault}") from error


def _tell_silence(config: AudioEncoderConfig, encoder: AudioEncoder) -> None:
    """Say that a model which fills windows up with silence is given short ones."""
    longest_sec = getattr(encoder, "fixed_window_sec", None)
    if longest_sec is not None and config.window_sec is not None and config.window_sec < SHORT_WINDOW * longest_sec:
        log.warning(
            "warning: audio encoder %s: hears %g s at a time, mostly silence where audio_encoder.window_sec is %g: "
            "--audio_encoder.window_sec %g is %.1f times as fast",
            config.name,
            longest_sec,
            config.window_sec,
            longest_sec,
            longest_sec / config.window_sec,
        )


def _sentence_settings(config: TextEncoderConfig) -> list[str]:
    """The options, each with its value, that a sentence-transformers folder says otherwise than `config`."""
    if config.pooling == "auto" or not Path(config.name).is_dir():
        return []
    said = read_sentence_settings(config)
    wanted = {"pooling": said.pooling or config.pooling, "max_tokens": said.max_tokens or config.max_tokens}
    taken = {"pooling": config.pooling, "max_tokens": config.max_tokens}
    return [f"--text_encoder.{name} {value}" for name, value in wanted.items() if value != taken[name]]


def _sounds() -> list[NDArray[np.float32]]:
    """Two of 1 s, a rising tone and noise that comes and goes, and a longer one."""
    time_sec = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * time_sec) * time_sec)
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ) * (np.sin(2 * np.pi * 3 * time_sec) > 0)
    return [sound.astype(np.float32) for sound in (tone, noise, np.concatenate([noise, tone]))]


def _check(
    name: str, dtype: str, dim: int, inputs: Sequence[Any], encode: Callable[[Sequence[Any]], NDArray[np.float32]]
) -> None:
    together = encode(inputs)
    alone = np.concatenate([encode([each]) for each in inputs])
    if together.shape != (len(inputs), dim):
        raise RequestError(f"{name}: gives vectors of {together.shape[-1]} numbers where its config says {dim}; choose another")
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        raise RequestError(f"{name}: gives NaN or infinite values; set its dtype to float32, or take a whole checkpoint of it")
    length = float(np.linalg.norm(alone, axis=1).max())
    nearest = min(np.linalg.norm(alone[a] - alone[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    if nearest <= LEAST_DIFFERENCE * length:
        raise RequestError(
            f"{name}: gives different inputs the same vector; is its tokenizer or preprocessor missing, or does its pooling "
            "look where nothing is (cls of a causal model)? choose pooling mean or last, or another model"
        )
    apart = float(np.linalg.norm(together - alone, axis=1).max())
    if apart > ROUNDING[dtype] * length:
        raise RequestError(
            f"{name}: gives an input another vector in a batch than alone (off by {apart / length:.0%}); choose another"
        )
