"""What a saved model needs before it hears new calls."""

from __future__ import annotations

from urgency_ray.config import Config
from urgency_ray.embedding.transform import repeat_transform
from urgency_ray.encoders.probe import probe_encoders
from urgency_ray.model.load import Model


def prepare(model: Model, config: Config) -> Config:
    """`config` with the transform of the model, whose encoders have proved themselves; one of audio alone wants no words.

    Raises:
        RequestError: the transform cannot be repeated here, or an encoder cannot be used.
    """
    config = repeat_transform(config, model.transform)
    if not model.reads:
        config = config.replace({"data.require_text": False})
    probe_encoders(config)
    return config
