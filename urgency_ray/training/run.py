"""Opening a run folder to train on: config, examples, splits and transcripts. It knows no Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from urgency_ray.config import ENCODER_SECTIONS, Config, Role, fields_of
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import Examples, Splits, load_examples, load_transcripts
from urgency_ray.examples.leaks import leak_warnings
from urgency_ray.examples.splits import split_examples
from urgency_ray.examples.tokens import describe_cut, tokenize
from urgency_ray.examples.warnings import embedding_warnings
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.patience import patiently

log = logging.getLogger(__name__)

Keep = Callable[[str, Any], Any]
"""Takes what is large, by name, and gives back what is to stand for it (`shared.SharedInputs.keep`)."""


def open_run(config: Config, run_dir: str, keep: Keep | None = None) -> tuple[Config, Examples, Splits]:
    """Config, embeddings and splits of a run folder; the config takes over how the embeddings were made (data, arithmetic).

    Args:
        config: the whole config.
        run_dir: run folder.
        keep: where the embeddings are to be kept; None keeps them in this process.

    Raises:
        RequestError: no usable embeddings, or those of other encoders than the config's.
    """
    by_call, group_by = config.model.name == "hierarchical", config.split.group_by
    examples = patiently(run_dir, lambda: load_examples(run_dir, by_call=by_call, keep=keep, group_by=group_by))
    if examples.fingerprint is not None:
        config = _take_over(config, examples.fingerprint, run_dir)
    else:  # imported rows are vectors, whatever the config says that encoders make
        config = config.replace({f"{name}.layers": "last" for name in ENCODER_SECTIONS})
    return config, examples, split_examples(examples, config.split)


def _take_over(config: Config, fingerprint: Fingerprint, run_dir: str) -> Config:
    """`config` with what a recipe need not say again, and `predict` must have: which commit, what `auto` stood for, which rows.

    Raises:
        RequestError: the config names other encoders, or other settings of them.
    """
    made_with = fingerprint.settings()
    taken: dict[str, Any] = {}
    for dotted in fields_of(Role.EMBEDDING):
        section, field = dotted.split(".")
        # Those of the data section stand at the top; an older version may lack a field.
        found = made_with if section == "data" else made_with.get(section, {"name": None})
        if field not in found:
            continue
        wanted = getattr(getattr(config, section), field)
        stated = section in config.making_sections and field != "dtype" and not (field == "revision" and wanted is None)
        stated = stated and not _is_open(getattr(config, section).model_dump(), field)
        if stated and found[field] != wanted:
            raise RequestError(
                f"--run-dir {run_dir}: its embeddings were made with {dotted} {found[field]}, not {wanted}; "
                f"say --{dotted} {'null' if found[field] is None else found[field]}, or extract into another folder"
            )
        taken[dotted] = found[field]
    return config.replace(taken)


def _is_open(section: dict[str, Any], field: str) -> bool:
    """Whether an encoder section leaves a field to what the encoder has, or says of itself."""
    if section.get("pooling") == "auto" and field in ("pooling", "max_tokens"):
        return True
    return field == "layers" and section["layers"] == "all"


def places_read(config: Config) -> dict[str, str]:
    """What each process reads that trains, by the option that says where: a text encoder that lies in a folder."""
    name = config.model.text_encoder
    return {"--model.text_encoder": name} if name is not None and Path(name).is_dir() else {}


def check_examples(config: Config, examples: Examples, splits: Splits) -> list[str]:
    """What is suspicious about the rows and their splits, a line each, said in the log as well.

    Raises:
        RequestError: no model of this config can be trained on them.
    """
    lines = [*embedding_warnings(examples, standardized=config.model.standardizes), *leak_warnings(examples, splits)]
    for line in lines:
        log.warning("warning: %s", line)
    return lines


def read_transcripts(examples: Examples, run_dir: str, tokenizer: Any, keep: Keep | None = None) -> Examples:
    """The examples of a run with the tokens of their transcripts (kept by `keep`), or as they are without a tokenizer."""
    if tokenizer is None:
        return examples
    tokens, num_cut = tokenize(tokenizer, patiently(run_dir, lambda: load_transcripts(run_dir)))
    log.info("%s", describe_cut(num_cut))
    return replace(examples, tokens=tokens if keep is None else keep("tokens", tokens))
