"""What a saved model needs before it hears new calls."""

from __future__ import annotations

import logging

from urgency_ray.config import Config
from urgency_ray.embedding.transform import Ask, open_arithmetic, pin_arithmetic, repeat_transform
from urgency_ray.model.load import Model

log = logging.getLogger(__name__)


def adopt_transform(model: Model, config: Config) -> Config:
    """`config` with the transform of the model; one of audio alone wants no words.

    Raises:
        RequestError: the transform cannot be repeated here.
    """
    config = repeat_transform(config, model.transform, reads=model.reads)
    if not model.reads:
        config = config.replace({"data.require_text": False})
    if config.transcriber.is_used and not model.transform.get("transcriber"):
        log.warning(
            "warning: the model was trained on words of labels, and reads here what %s hears: extract with transcriber.use "
            "always, and train on that, to know how well it reads it",
            config.transcriber.name,
        )
    return config


def repeat_arithmetic(model: Model, config: Config, num_gpus: int, ask: Ask) -> Config:
    """`config` of `adopt_transform` with an arithmetic that the nodes have; a warning where it is not that of the model.

    Args:
        model: whose embeddings it is about.
        config, num_gpus, ask: as in `pin_arithmetic`.

    Raises:
        RequestError, UnreachableError: as `pin_arithmetic` does.
    """
    pinned = pin_arithmetic(config, num_gpus, ask)
    for key in open_arithmetic(config):
        # A transcriber may be the user's alone.
        made_in, heard_in = (model.transform.get(key) or {}).get("dtype"), getattr(pinned, key).dtype
        if made_in not in (None, heard_in):
            log.warning(
                "warning: %s.dtype: the model learnt from embeddings in %s, and calls are heard in %s: equal but for rounding",
                key,
                made_in,
                heard_in,
            )
    return pinned
