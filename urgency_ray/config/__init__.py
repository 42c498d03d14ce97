"""Every knob of urgency_ray, and how it is read from YAML and the command line."""

from urgency_ray.config.embedding_sections import (
    AudioEncoderConfig,
    DataConfig,
    ManifestColumn,
    TextEncoderConfig,
    TranscriberConfig,
)
from urgency_ray.config.search_sections import (
    CategoricalDimension,
    Dimension,
    FloatDimension,
    IntDimension,
    SimplexDimension,
    dimension_fields,
    searched_fields,
)
from urgency_ray.config.sections import (
    ENCODER_SECTIONS,
    Config,
    Language,
    RayConfig,
    ReportConfig,
    SynthesizeConfig,
    fields_of,
    iter_fields,
    load_config,
    parse_config,
    read_field,
)
from urgency_ray.config.training_sections import LossConfig, ModelConfig, SamplerConfig, SplitConfig, TrainConfig
from urgency_ray.config.tree import Role, describe, flatten, parse_yaml

__all__ = [
    "ENCODER_SECTIONS",
    "AudioEncoderConfig",
    "CategoricalDimension",
    "Config",
    "DataConfig",
    "Dimension",
    "FloatDimension",
    "IntDimension",
    "Language",
    "LossConfig",
    "ManifestColumn",
    "ModelConfig",
    "RayConfig",
    "ReportConfig",
    "Role",
    "SamplerConfig",
    "SimplexDimension",
    "SplitConfig",
    "SynthesizeConfig",
    "TextEncoderConfig",
    "TrainConfig",
    "TranscriberConfig",
    "describe",
    "dimension_fields",
    "fields_of",
    "flatten",
    "iter_fields",
    "load_config",
    "parse_config",
    "parse_yaml",
    "read_field",
    "searched_fields",
]
