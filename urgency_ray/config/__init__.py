"""Every knob of urgency_ray, and how it is read from YAML and the command line."""

from urgency_ray.config.embedding_sections import AudioEncoderConfig, DataConfig, ManifestColumn, TextEncoderConfig
from urgency_ray.config.sections import (
    ENCODER_SECTIONS,
    CategoricalDimension,
    Config,
    Dimension,
    FloatDimension,
    IntDimension,
    RayConfig,
    SimplexDimension,
    SynthesizeConfig,
    dimension_fields,
    fields_of,
    iter_fields,
    load_config,
    parse_config,
    read_field,
    searched_fields,
)
from urgency_ray.config.training_sections import LossConfig, ModelConfig, SamplerConfig, SplitConfig, TrainConfig
from urgency_ray.config.tree import Role, describe, parse_yaml

__all__ = [
    "ENCODER_SECTIONS",
    "AudioEncoderConfig",
    "CategoricalDimension",
    "Config",
    "DataConfig",
    "Dimension",
    "FloatDimension",
    "IntDimension",
    "LossConfig",
    "ManifestColumn",
    "ModelConfig",
    "RayConfig",
    "Role",
    "SamplerConfig",
    "SimplexDimension",
    "SplitConfig",
    "SynthesizeConfig",
    "TextEncoderConfig",
    "TrainConfig",
    "describe",
    "dimension_fields",
    "fields_of",
    "iter_fields",
    "load_config",
    "parse_config",
    "parse_yaml",
    "read_field",
    "searched_fields",
]
