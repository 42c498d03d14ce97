"""What made an embedding, and how a model has it made again for new calls."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urgency_ray import __version__, storage
from urgency_ray.config import ENCODER_SECTIONS, Config
from urgency_ray.encoders.load import has_weights, is_built_in, resolve_weights
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint, Transform

if TYPE_CHECKING:
    # It brings PyTorch, which a run of built-in encoders never needs here.
    from urgency_ray.encoders.arithmetic import Arithmetic

log = logging.getLogger(__name__)

Ask = Callable[..., "list[Arithmetic]"]
"""`cluster.ask_nodes` of a question about arithmetic."""

COMMIT = re.compile("[0-9a-f]{40}")
ROUNDED = ("bfloat16", "float16")
"""Arithmetics that are float32's but for rounding; not every machine has them."""
OF_THE_CALLS = ("data.require_urgency", "data.pcm_rate_hz")
"""Fields that say what calls are like: new ones may be otherwise than those that a model was trained on."""


def pin_revisions(config: Config) -> Config:
    """`config` with the commits that its models' names stand for today, so that every actor, and `predict`, loads the same.

    Raises:
        RequestError: a name stands for nothing that can be loaded, or for a folder, and a revision is named.
    """
    sections = {key: getattr(config, key) for key in config.making_sections}
    # A folder is its content, which is read later, but for one that is asked for a revision.
    asked = [key for key, section in sections.items() if section.revision is not None or not Path(section.name).is_dir()]
    weights = {key: resolve_weights(sections[key]) for key in asked}
    commits = {f"{key}.revision": value for key, value in weights.items() if COMMIT.fullmatch(value)}
    return config.replace(commits) if commits else config


def places_read(config: Config) -> dict[str, str]:
    """The calls, and the encoders that lie in folders, by the option that says where: what each process reads that embeds."""
    calls = {"--data.root": config.data.root, "--data.manifest": config.data.manifest}
    places = {name: storage.absolute(place) for name, place in calls.items() if place is not None}
    names = {f"--{key}.name": getattr(config, key).name for key in config.making_sections}
    # As it is written: a process looks for it where it works.
    return places | {option: name for option, name in names.items() if Path(name).is_dir()}


def open_arithmetic(config: Config) -> list[str]:
    """The sections whose arithmetic is `auto` still: that of a built-in encoder does not matter."""
    sections = {key: getattr(config, key) for key in config.making_sections}
    return [key for key, section in sections.items() if section.dtype == "auto" and not is_built_in(section)]


def pin_arithmetic(config: Config, num_gpus: int, ask: Ask) -> Config:
    """`config` with what `auto` stands for on a cluster of `num_gpus` GPUs: what all nodes can, so that arithmetics do not mix.

    Args:
        config: the whole config.
        num_gpus: GPUs of the cluster.
        ask: `cluster.ask_nodes`.

    Raises:
        RequestError: there is no GPU, and the config wants one.
        UnreachableError: a node gives no answer.
    """
    on_gpus = encoders_on_gpus(config, num_gpus)
    fields: dict[str, str] = {}
    chosen: dict[str, Arithmetic] = {}
    for key in open_arithmetic(config):
        from urgency_ray.encoders.arithmetic import best_arithmetic, most_exact

        device = "cuda" if key in on_gpus else "cpu"
        if device not in chosen:
            chosen[device] = most_exact(ask(functools.partial(best_arithmetic, device), on_gpu=device == "cuda"))
        dtype, reason = chosen[device]
        log.info("%s %s computes in %s: %s", key.replace("_", " "), getattr(config, key).name, dtype, reason)
        fields[f"{key}.dtype"] = dtype
    return config.replace(fields)


def encoders_on_gpus(config: Config, num_gpus: int) -> list[str]:
    """The sections whose encoders, or transcriber, run on GPUs where a cluster has `num_gpus` of them: each decides for itself.

    Raises:
        RequestError: there is no GPU, and the config wants one, or an encoder there would compute in what GPUs do not have.
    """
    wanted = config.extract.use_gpu if config.extract.use_gpu is not None else num_gpus > 0
    if wanted and not num_gpus:
        raise RequestError("extract.use_gpu: true, but the cluster has no GPU; set it to false or null")
    chosen = [key for key in config.making_sections if wanted and not is_built_in(getattr(config, key))]
    for key in chosen:
        if getattr(config, key).dtype == "int8":
            raise RequestError(f"{key}.dtype: int8 runs on CPUs; choose auto, or set extract.use_gpu to false")
    return chosen


def make_fingerprint(config: Config) -> Fingerprint:
    """That of the embeddings that `config` makes here and now.

    Raises:
        RequestError: the name of an encoder, or of the transcriber, stands for nothing that can be loaded.
    """
    weights = {key: resolve_weights(getattr(config, key)) for key in config.making_sections}
    return Fingerprint.of(config, weights, __version__)


def repeat_transform(config: Config, kept: dict[str, Any], *, reads: bool = True) -> Config:
    """`config` with the encoders, transcriber and call handling of a model's transform; unlabelled calls are welcome.

    A transcriber of the user's stands where the model has none: its calls had words. One that wrote down what calls lacked may
    be done without, `transcriber.use: never`.

    Args:
        config: the user's: where calls and encoders lie, and how much is done at once.
        kept: `UrgencyClassifier.transform`.
        reads: whether the model takes words; else nothing is transcribed for it.

    Raises:
        RequestError: the model does not say what made its embeddings (it was trained on imported ones), its encoder's weights
            are not the ones found here, or `config` asks for another transform.
    """
    if kept.get("fingerprint") is None:
        raise RequestError(
            "--model: was trained on imported embeddings and does not know what made them; it cannot hear new calls"
        )
    transform = Transform.of_model(kept)
    if not reads:
        config = config.replace({"transcriber.use": "never"})
    if config.transcriber.use == "never" and (not reads or transform.transcriber.get("use") == "missing"):
        transform = transform.without_transcriber()
    fields, named = _repeat_fields(config, transform)
    # They were the choice of a processor that has them, and one without takes float32: the same transform but for rounding.
    made_by = [*ENCODER_SECTIONS, *(["transcriber"] if transform.transcriber else [])]
    by_device = [key for key in made_by if getattr(transform, key)["dtype"] in ROUNDED]
    fields |= {f"{key}.dtype": "auto" for key in by_device}
    config = config.replace(fields | {"data.require_urgency": False})
    ignored = {
        *(field.removeprefix("data.") for field in OF_THE_CALLS),
        *(f"{key}.name" for key in named),
        *(f"{key}.dtype" for key in by_device),
    }
    assert transform.fingerprint is not None
    weights = {key: transform.fingerprint.weights(key) for key in made_by}
    for key in made_by:
        if key not in named:
            _refuse_missing_folder(config, key, weights[key])
    made_here = make_fingerprint(config)
    differences = transform.fingerprint.differences(made_here if transform.transcriber else made_here.without_transcriber())
    for key in made_by:
        if f"{key}.weights" in differences and has_weights(getattr(config, key), weights[key]):
            ignored.add(f"{key}.weights")
    if lines := [f"{field}: {words}" for field, words in differences.items() if field not in ignored]:
        raise RequestError(f"--model: its transform cannot be repeated here: {'; '.join(lines)}")
    return config


def _repeat_fields(config: Config, transform: Transform) -> tuple[dict[str, Any], list[str]]:
    """The fields of a transform that `config` leaves to it, and the sections whose models `config` names otherwise."""
    given, default = config.model_dump(), Config().model_dump()
    fields: dict[str, Any] = {}
    named: list[str] = []
    for dotted, value in transform.fields().items():
        section, field = dotted.split(".")
        wanted = given[section][field]
        if dotted == "data.require_urgency" or wanted == value:
            continue
        if wanted == default[section][field]:
            fields[dotted] = value
        elif dotted in OF_THE_CALLS:
            continue
        elif field == "name":
            # The same weights may lie elsewhere here: their digest decides.
            named.append(section)
        else:
            raise RequestError(
                f"--{dotted}: {wanted}, but the model's embeddings were made with {value}, and predict repeats what made them; "
                "leave it out"
            )
    return fields, named


def _refuse_missing_folder(config: Config, key: str, weights: str) -> None:
    # Of a model that was trained on another machine: what its name stood for there was a folder, if its weights have a digest.
    section = getattr(config, key)
    if weights.startswith("sha256:") and not is_built_in(section) and not Path(section.name).is_dir():
        raise RequestError(
            f"--model: its {key.replace('_', ' ')} was the folder {section.name}, which is not here; give --{key}.name "
            "a folder of the same weights"
        )
