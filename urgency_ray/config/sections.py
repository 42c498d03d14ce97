"""Every knob of urgency_ray: name, unit, range, one-line doc and default, in one place.

A config is a frozen tree of sections. It is read from YAML that states only differences from the defaults, then overridden
from the command line (`--train.epochs 5`). An unknown key, a wrong type or a value out of range raises `ConfigError`, whose
text names the field, what it takes and what it got.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import annotated_types
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo


class ConfigError(ValueError):
    """A request that cannot be carried out as stated; the text is one line per fault, fit to show to the user."""


class Section(BaseModel):
    """Base of all sections: immutable, strict about types, closed to unknown keys; field docs are the strings below fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]


class DataConfig(Section):
    root: str | None = None
    """Folder or URI that holds the archives, or WAV and JSON files, in any nesting."""
    unit: Literal["call", "utterance"] = "call"
    """What a row stands for: a whole call, or one utterance of it."""
    speakers: Literal["all", "caller"] = "all"
    """Whose words make the transcript, and whose utterances are rows."""
    require_urgency: bool = True
    """Reject calls without an urgency label; false keeps them with a null label (predict does)."""
    min_utterance_sec: NonNegativeFloat = 0.5
    """Shortest utterance that becomes a row, in seconds."""
    max_call_sec: PositiveFloat = 7200.0
    """Longest call that is decoded, in seconds; bounds the memory that one file can take."""


class AudioEncoderConfig(Section):
    name: str = "spectral"
    """`spectral` (built in, no download), or a Hugging Face model name or folder."""
    revision: str | None = None
    """Hugging Face revision (branch, tag or commit); null is the repository's default."""
    pooling: Literal["mean", "cls"] = "mean"
    """How frames become one vector: mean over time, or the first token (AST)."""
    window_sec: Annotated[float, Field(ge=0.5, le=600.0)] | None = 8.0
    """Longest stretch that a transformer hears at once, in seconds; null is the whole call, as in the recipes."""
    peak_normalize: bool = True
    """Scale each waveform to a peak of 1 before encoding."""
    l2_normalize: bool = True
    """Scale each embedding to unit length."""
    batch_size: PositiveInt | None = None
    """Windows in one forward pass; null is 8 on a CPU and 64 on a GPU."""
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Arithmetic of the encoder; auto is bfloat16 on a GPU and float32 on a CPU, int8 (CPU only) is faster and nearly equal."""


class TextEncoderConfig(Section):
    name: str = "hashing"
    """`hashing` (built in, no download), or a Hugging Face model name or folder."""
    revision: str | None = None
    """Hugging Face revision (branch, tag or commit); null is the repository's default."""
    pooling: Literal["cls", "mean"] = "cls"
    """How tokens become one vector: the first token, or the mean over the tokens."""
    layer_norm: bool = True
    """Apply a layer norm without affine parameters to the pooled vector."""
    l2_normalize: bool = True
    """Scale each embedding to unit length."""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 384
    """Longest text that the encoder reads at once, in tokens."""
    overflow: Literal["truncate", "window"] = "truncate"
    """Longer texts are cut, as in the recipe, which extract.json counts; or read in windows whose vectors are averaged."""
    batch_size: PositiveInt = 32
    """Texts in one forward pass."""
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Arithmetic of the encoder; auto is bfloat16 on a GPU and float32 on a CPU, int8 (CPU only) is faster and nearly equal."""
    hashing_dim: Annotated[int, Field(ge=16, le=8192)] = 512
    """Width of the hashing encoder's embedding."""


class ExtractConfig(Section):
    rows_per_block: PositiveInt = 32
    """Calls in one Ray Data block, the unit of parallel work and of writing."""
    batch_size: PositiveInt = 8
    """Calls handed to an encoder actor at once."""
    decode_cpus: Annotated[float, Field(gt=0.0, le=64.0)] = 0.25
    """Logical CPUs of one decode task."""
    num_audio_encoders: PositiveInt | None = None
    """Audio encoder actors; null is one per GPU, or what fits the CPUs."""
    num_text_encoders: PositiveInt | None = None
    """Text encoder actors; null is one per GPU, or one for four audio encoders."""
    use_gpu: bool | None = None
    """Run the encoders on GPUs; null uses them where the cluster has some."""


class SplitConfig(Section):
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the split; the split is a pure function of the rows and this number."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the calls that picks the best epoch and the best trial."""
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the calls that is scored once, where the provider's Validation part does not serve as the test split."""
    use_provider_test: bool = True
    """Take the provider's Validation archives as the test split when present."""
    allow_missing_classes: bool = False
    """Go on when an urgency class has no rows in a split."""

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError("val_fraction + test_fraction must be below 1")
        return self


class ModelConfig(Section):
    name: Literal["cross_attention", "concat", "cross_modal", "hierarchical"] = "cross_attention"
    """UrgencySense's transformer over both modalities, plain concatenation, UrgencyDetect's text-queries-audio attention, or
    UrgencySense's transformer over each utterance of a call and attention over the utterances (wants data.unit utterance)."""
    modalities: Literal["fused", "audio", "text"] = "fused"
    """What the classifier may use; audio and text alone run through the same trunk."""
    standardize_embeddings: bool = False
    """Standardise each embedding dimension with the training split's statistics; wanted by the built-in encoders."""
    acoustic_features: bool = True
    """Append the five acoustic features, standardised with the training split's statistics, to the audio embedding."""
    hidden_dim: Annotated[int, Field(ge=8, le=8192)] = 768
    """Width of each modality's token."""
    num_layers: Annotated[int, Field(ge=1, le=48)] = 3
    """Transformer encoder layers over the tokens."""
    num_heads: Annotated[int, Field(ge=1, le=64)] = 8
    """Attention heads; must divide hidden_dim."""
    feedforward_dim: Annotated[int, Field(ge=8, le=32768)] = 2048
    """Width of the transformer's feed-forward layers."""
    dropout: Fraction = 0.4
    """Dropout of the projections and of the head."""
    encoder_dropout: Fraction = 0.2
    """Dropout inside the transformer."""
    head_dim: Annotated[int, Field(ge=4, le=8192)] = 512
    """Width of the classification head's hidden layer."""
    urgency_head: Literal["softmax", "corn"] = "softmax"
    """A logit for each urgency class, or CORN's conditional logits of being more urgent than each class but the last."""
    text_encoder: str | None = None
    """Hugging Face model name or folder to train on the transcripts, inside a cross_modal classifier that takes its width
    (UrgencyDetect's); null takes the run's text embeddings."""
    text_encoder_revision: str | None = None
    """Hugging Face revision (branch, tag or commit) of text_encoder; null is the repository's default."""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 512
    """Longest text that text_encoder reads, in tokens; what is cut is counted in the log."""
    trainable_layers: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Last layers of text_encoder that are trained, the rest of it frozen and without dropout; null trains all of it."""
    gradient_checkpointing: bool = False
    """Compute text_encoder's activations again in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _encoder_has_its_trunk(self) -> Self:
        if self.text_encoder is not None and self.name != "cross_modal":
            raise ValueError(f"text_encoder {self.text_encoder} needs name cross_modal but got name {self.name}")
        needy = ("text_encoder_revision", "trainable_layers", "gradient_checkpointing")
        unmet = [name for name in needy if getattr(self, name) not in (None, False)]
        if self.text_encoder is None and unmet:
            raise ValueError(f"{unmet[0]} needs text_encoder, the model that it is about, but that is null")
        return self

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        # A text encoder brings its own width, which is checked once it is loaded.
        if self.text_encoder is None and self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of num_heads {self.num_heads}")
        return self


class LossConfig(Section):
    mode: Literal["stochastic", "expected"] = "stochastic"
    """Draw one of the losses at each step with the weights as probabilities, or take their weighted sum."""
    kl_weight: NonNegativeFloat = 0.25
    """Weight of the KL divergence to ordinal soft labels."""
    focal_weight: NonNegativeFloat = 0.40
    """Weight of the ordinal focal loss."""
    cross_entropy_weight: NonNegativeFloat = 0.35
    """Weight of the class-weighted cross-entropy."""
    corn_weight: NonNegativeFloat = 0.0
    """Weight of CORN's conditional binary cross-entropies; needs model.urgency_head corn."""
    emd_weight: NonNegativeFloat = 0.0
    """Weight of the squared earth mover's distance, which punishes by distance as quadratic kappa does."""
    focal_gamma: NonNegativeFloat = 2.0
    """Exponent of the focal loss."""
    soft_label_mass: Fraction = 0.2
    """Probability mass that ordinal soft labels move to the neighbouring classes."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Class weights of the focal loss and the cross-entropy: N / (3 n_c) over the training split, or 1."""
    sentiment_weight: Fraction = 0.0
    """Share of a second head's class-weighted cross-entropy on the caller's sentiment; 0 builds no such head."""

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if self.kl_weight + self.focal_weight + self.cross_entropy_weight + self.corn_weight + self.emd_weight <= 0:
            raise ValueError("one of kl_weight, focal_weight, cross_entropy_weight, corn_weight, emd_weight must be above 0")
        return self


class SamplerConfig(Section):
    name: Literal["weighted", "none"] = "weighted"
    """Draw rows with replacement by class weight, or shuffle and visit each once."""
    power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Weight of a class is (N / (3 n_c)) ** power: 0 is uniform, 1 inverse frequency."""


class TrainConfig(Section):
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Most epochs to train."""
    batch_size: PositiveInt = 32
    """Rows per step and worker."""
    learning_rate: PositiveFloat = 3e-5
    """Peak learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of AdamW."""
    schedule: Literal["cosine_warm_restarts", "cosine", "constant"] = "cosine_warm_restarts"
    """Learning rate schedule, stepped each epoch."""
    restart_epochs: PositiveInt = 10
    """T_0 of the warm restarts, in epochs."""
    restart_factor: PositiveInt = 2
    """T_mult of the warm restarts."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Floor of the cosine schedules (eta_min)."""
    early_stop_epochs: PositiveInt | None = 10
    """Stop after this many epochs without a better one by select_by; null never stops early."""
    clip_norm: PositiveFloat | None = 1.0
    """Largest gradient norm; null does not clip."""
    num_workers: PositiveInt = 1
    """Ray Train workers."""
    cpus_per_worker: Annotated[float, Field(gt=0.0, le=256.0)] | None = None
    """Logical CPUs, and threads, of one worker; null shares the cluster's CPUs among the workers."""
    use_gpu: bool | None = None
    """Train on GPUs; null uses them where the cluster has one for each worker."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """Times that the worker group is restarted from its last checkpoint before the run fails."""
    checkpoint_epochs: PositiveInt = 5
    """A checkpoint is written when an epoch is the best by select_by, every so many epochs, and at the end."""
    keep_checkpoints: PositiveInt = 1
    """Checkpoints kept: the best epoch's, then those of the epochs that were the best before it; and always the latest."""
    select_by: Literal["urgency_macro_f1", "mean_of_tasks"] = "urgency_macro_f1"
    """What picks the best epoch on validation: urgency's macro-F1, or its mean with sentiment's (UrgencyDetect)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass, by autocast; auto is bfloat16 where a text encoder is trained on a GPU, else float32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, dropout, sampler and loss draws."""
    ablation: bool = False
    """Also train audio-only and text-only models with the same trunk and put all three into metrics.json."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Also cross-validate: as many models, each scored on its fold of the rows outside the provider's test; null does not."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples behind each 95 % interval."""


class DimensionBase(Section):
    when: dict[str, str | int | float | bool] = {}
    """Other dimensions and the value that each must have for this one to be searched; else the config's own value holds."""


class FloatDimension(DimensionBase):
    type: Literal["float"]
    low: float
    """Least value."""
    high: float
    """Largest value."""
    log: bool = False
    """Search on a logarithmic scale."""


class IntDimension(DimensionBase):
    type: Literal["int"]
    low: int
    """Least value."""
    high: int
    """Largest value."""
    log: bool = False
    """Search on a logarithmic scale."""


class CategoricalDimension(DimensionBase):
    type: Literal["categorical"]
    choices: list[str | int | float | bool] = Field(min_length=1)
    """Values to choose from."""


class SimplexDimension(DimensionBase):
    type: Literal["simplex"]
    fields: list[str] = Field(min_length=2)
    """Config fields that share a total of 1, uniformly over the simplex."""


Dimension = Annotated[FloatDimension | IntDimension | CategoricalDimension | SimplexDimension, Field(discriminator="type")]


class TuneConfig(Section):
    num_trials: PositiveInt = 30
    """Trials to run."""
    time_budget_sec: PositiveFloat | None = None
    """Longest search in seconds, over all its resumptions; the winner's training comes after. null is as long as it takes."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Score each trial by its mean over so many folds of the train and val rows; null scores it on the val split alone."""
    repeats: PositiveInt = 1
    """Score each trial by its mean over so many seeds: train.seed and those that follow it."""
    max_concurrent: PositiveInt | None = None
    """Most trials at once; null is what fits the cluster."""
    workers_per_trial: PositiveInt = 1
    """Above 1, each trial is a Ray Train job of so many workers, which takes 10 s or so to start."""
    cpus_per_trial: Annotated[float, Field(gt=0.0, le=256.0)] = 1.0
    """Logical CPUs of one trial, or of each of its workers."""
    gpus_per_trial: Annotated[float, Field(ge=0.0, le=8.0)] = 0.0
    """GPUs of one trial, or of each of its workers; 0.25 lets four share one, 0 trains on the CPU."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Times that a trial whose process or node is lost starts again before it counts as failed."""
    startup_trials: PositiveInt = 10
    """Random trials before TPE takes over."""
    grace_epochs: PositiveInt = 5
    """Epochs that ASHA lets every trial run."""
    reduction_factor: Annotated[int, Field(ge=2, le=16)] = 3
    """ASHA keeps one in this many at each rung."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the search; reproducible at one trial at a time."""
    space: dict[str, Dimension] = {}
    """Search space: config field (a free name for a simplex) to its dimension."""

    @model_validator(mode="after")
    def _shares_gpus_as_ray_does(self) -> Self:
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial must be at most 1 or a whole number but got {self.gpus_per_trial:g}")
        return self


class RayConfig(Section):
    address: str | None = None
    """Ray cluster to join; null takes RAY_ADDRESS (set inside a Ray job) or starts a private local one."""
    num_cpus: PositiveInt | None = None
    """Logical CPUs of the private local cluster; null is what the machine has."""


class SynthesizeConfig(Section):
    num_calls: Annotated[int, Field(ge=30)] = 1000
    """Calls to make; a fifth of them becomes the provider's Validation part."""
    min_call_sec: Annotated[float, Field(ge=4.0)] = 6.0
    """Shortest call, in seconds."""
    max_call_sec: Annotated[float, Field(ge=4.0)] = 14.0
    """Longest call, in seconds."""
    flaw_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.02
    """Share of the Training calls given a flaw that must be rejected (unpaired, truncated, unlabelled, not audio)."""
    cues: Literal["call", "utterance"] = "call"
    """Where the cues to the urgency are: in all that a caller says, or in one utterance among others that mislead."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the corpus."""

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.min_call_sec > self.max_call_sec:
            raise ValueError("min_call_sec must not be above max_call_sec")
        return self


ENCODERS = ("audio_encoder", "text_encoder")
"""The sections that say what makes the embeddings."""


class Config(Section):
    """The whole configuration; `config.yaml` of a run folder holds one in full."""

    data: DataConfig = DataConfig()
    audio_encoder: AudioEncoderConfig = AudioEncoderConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    extract: ExtractConfig = ExtractConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    sampler: SamplerConfig = SamplerConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    ray: RayConfig = RayConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()

    @model_validator(mode="after")
    def _selects_by_what_it_learns(self) -> Self:
        if self.train.select_by == "mean_of_tasks" and not self.loss.sentiment_weight:
            raise ValueError("train.select_by mean_of_tasks needs loss.sentiment_weight above 0: without it there is one task")
        return self

    @model_validator(mode="after")
    def _corn_loss_has_its_head(self) -> Self:
        if self.loss.corn_weight > 0 and self.model.urgency_head != "corn":
            raise ValueError(
                f"loss.corn_weight: {self.loss.corn_weight:g} needs model.urgency_head corn but got {self.model.urgency_head}"
            )
        return self

    @model_validator(mode="after")
    def _search_space_names_fields(self) -> Self:
        known = {name for name, _ in iter_fields()}
        for name in searched_fields(self.tune.space):
            if name not in known:
                raise ValueError(f"tune.space: {_unknown(name, known)}")
        return self

    def replace(self, overrides: Mapping[str, Any]) -> Config:
        """A new config with dotted fields replaced, validated afresh: `config.replace({"train.epochs": 5})`.

        Raises:
            ConfigError: a field is unknown or its value refused.
        """
        tree = self.model_dump()
        for dotted, value in overrides.items():
            _put(tree, dotted, value)
        return parse_config(tree)

    def to_yaml(self) -> str:
        """The full config as YAML that `load_config` reads back to an equal config."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2: its floats (PyYAML's YAML 1.1 reads `3e-5` as a string), and no key twice (PyYAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as the base class makes it."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def searched_fields(space: Mapping[str, Dimension]) -> list[str]:
    """The config fields that a search space varies, each once."""
    return list(dict.fromkeys(field for name, dimension in space.items() for field in dimension_fields(name, dimension)))


def dimension_fields(name: str, dimension: Dimension) -> list[str]:
    """The config fields that a dimension varies: its own name, or all fields of a simplex."""
    return list(dimension.fields) if isinstance(dimension, SimplexDimension) else [name]


def parse_yaml(text: str) -> Any:
    """A YAML document as plain values, with the numbers of YAML 1.2."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def iter_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every field as (`section.field`, its pydantic FieldInfo), in the order of the sections."""
    for section_name, section in Config.model_fields.items():
        section_type = section.annotation
        assert isinstance(section_type, type) and issubclass(section_type, Section)
        for field_name, field in section_type.model_fields.items():
            yield f"{section_name}.{field_name}", field


def describe(field: FieldInfo) -> str:
    """What a field takes, in words: `an integer >= 1, or null`."""
    return _describe(field.annotation, field.metadata)


def _describe(annotation: Any, metadata: list[Any]) -> str:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extra = typing.get_args(annotation)
        nested = [m for e in extra for m in (e.metadata if isinstance(e, FieldInfo) else [e])]
        return _describe(inner, [*nested, *metadata])
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(_describe(part, metadata if part is not type(None) else []) for part in typing.get_args(annotation))
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    bounds = []
    for bound in metadata:
        for sign, kind in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if isinstance(bound, getattr(annotated_types, kind.capitalize())):
                bounds.append(f"{sign} {getattr(bound, kind):g}")
    return " ".join([words.get(annotation, "a mapping"), " and ".join(bounds)]).strip()


def parse_config(tree: Any, source: str = "config") -> Config:
    """Validate a tree of plain values as a `Config`.

    Raises:
        ConfigError: with a line for each fault: field, what it takes, what it got.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: must be a mapping of sections but got {type(tree).__name__}")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = dict.fromkeys(_fault(dict(fault)) for fault in error.errors())
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def load_config(
    path: str | Path | None,
    overrides: Mapping[str, str] | None = None,
    base: dict[str, Any] | None = None,
    *,
    read: Callable[[str], str] | None = None,
) -> Config:
    """Defaults, then the tree `base` or the YAML file at `path`, then `overrides` (`{"train.epochs": "5"}`, values in YAML).

    Args:
        path: a local file, or whatever `read` takes.
        overrides: texts by dotted field.
        base: sections, instead of a file.
        read: gives the text at `path`, where that is no local file.

    Raises:
        ConfigError: the file is missing or not YAML, or a field is unknown or refused.
    """
    tree: Any = dict(base or {})
    if path is not None:
        try:
            text = read(str(path)) if read is not None else Path(path).read_text(encoding="utf-8")
            tree = parse_yaml(text) or {}
        except UnicodeDecodeError:
            raise ConfigError(f"--config {path}: not UTF-8 text") from None
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror or ' '.join(str(error).split())}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
        parse_config(tree, source=str(path))
    known = dict(iter_fields())
    for dotted, text in (overrides or {}).items():
        # A text is taken as it is: in YAML, a path with " #" would end there, and a commit such as 12e4567 be a number.
        is_text = dotted in known and known[dotted].annotation in (str, str | None)
        try:
            value = text if is_text and text != "null" else parse_yaml(text)
        except yaml.YAMLError:
            value = text
        _put(tree, dotted, value)
    return parse_config(tree, source="command line" if overrides else str(path))


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    known = dict(iter_fields())
    if dotted not in known:
        raise ConfigError(_unknown(dotted, known))
    section, field = dotted.split(".")
    tree[section] = {**(tree.get(section) or {}), field: value}


def _unknown(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{name}: no such field" + (f"; did you mean {near[0]}?" if near else "; --help lists the fields")


def _fault(fault: dict[str, Any]) -> str:
    path = [str(part) for part in fault["loc"]]
    dotted = ".".join(path[:2])
    fields = dict(iter_fields())
    sections = list(Config.model_fields)
    if fault["type"] == "extra_forbidden":
        if len(path) == 1:
            near = difflib.get_close_matches(path[0], sections, n=1)
            return f"{path[0]}: no such section" + (f"; did you mean {near[0]}?" if near else f"; one of {', '.join(sections)}")
        return _unknown(".".join(path), fields)
    if len(path) == 1 and path[0] in sections and fault["type"] in ("model_type", "dict_type"):
        return f"{path[0]}: must be a mapping of fields but got {fault['input']!r}"
    if fault["type"] == "value_error":
        return ": ".join(part for part in (".".join(path), str(fault["ctx"]["error"])) if part)
    if dotted in fields and dotted != "tune.space":
        return f"{dotted}: must be {describe(fields[dotted])} but got {fault['input']!r}"
    return f"{'.'.join(path)}: {fault['msg']} (got {fault['input']!r})"
