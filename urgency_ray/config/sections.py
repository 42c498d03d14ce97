"""Every knob of urgency_ray: name, unit, range, one-line doc and default, in one place.

A config is a frozen tree of sections. It is read from YAML that states only differences from the defaults, then overridden
from the command line (`--train.epochs 5`); `tree` says what is wrong with it. Here are the sections of the
cluster, of the report and of the synthetic corpus, and the whole `Config`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from urgency_ray import __version__
from urgency_ray.config import tree
from urgency_ray.config.embedding_sections import (
    AudioEncoderConfig,
    DataConfig,
    ExtractConfig,
    TextEncoderConfig,
    TranscriberConfig,
)
from urgency_ray.config.search_sections import TuneConfig, searched_fields
from urgency_ray.config.training_sections import LossConfig, ModelConfig, SamplerConfig, SplitConfig, TrainConfig
from urgency_ray.config.tree import PositiveFloat, PositiveInt, Role, Section, Seed


class RayConfig(Section):
    address: Annotated[str | None, Role.PLACE] = None
    """Ray cluster to join; null takes RAY_ADDRESS (set inside a Ray job) or starts a private local one."""
    num_cpus: Annotated[PositiveInt | None, Role.SPEED] = None
    """Logical CPUs of the private local cluster; null is what the machine has."""
    wait_sec: Annotated[PositiveFloat | None, Role.SPEED] = None
    """Longest wait, in seconds, for CPUs or GPUs that others hold, or that are not there (any more); null waits on, and says so
    each minute."""
    min_cpus: Annotated[PositiveInt, Role.SPEED] = 1
    """Logical CPUs that a cluster must have before the work is planned: its autoscaler is asked for them, and they are waited
    for."""
    min_gpus: Annotated[int, Field(ge=0), Role.SPEED] = 0
    """Likewise GPUs, lest a cluster whose GPU nodes still start be planned for CPUs."""


class TrackConfig(Section, role=Role.PLACE):
    mlflow_uri: str | None = None
    """MLflow tracking server (http://HOST:5000) that train and tune tell of their runs; null tells none. Wants the extra
    mlflow."""
    mlflow_experiment: str = "urgency_ray"
    """MLflow experiment of the runs; it is made where there is none."""
    wandb_project: str | None = None
    """Weights & Biases project of the runs, likewise; who and where is W&B's own matter (WANDB_API_KEY, WANDB_MODE=offline).
    Wants the extra wandb."""

    @model_validator(mode="after")
    def _holds_no_key(self) -> Self:
        uri = self.mlflow_uri or ""
        if uri.startswith(("http://", "https://")) and ("@" in uri or "?" in uri):
            raise ValueError(
                "mlflow_uri must be http://HOST:PORT alone: it is kept in files that others read; give user, password or token "
                "by MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
            )
        return self


Language = Literal["en", "ko"]


class ReportConfig(Section, role=Role.REPORT):
    language: Language = "en"
    """Language of report.html and compare.html: English or Korean."""
    show_text: bool = False
    """Show the transcripts of the calls that report.html lists as the costliest errors; others may read it then."""


class SynthesizeConfig(Section, role=Role.CORPUS):
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
    seed: Seed = 0
    """Seed of the corpus."""

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.min_call_sec > self.max_call_sec:
            raise ValueError("min_call_sec must not be above max_call_sec")
        return self


ENCODER_SECTIONS = ("audio_encoder", "text_encoder")
"""The sections that say what makes the embeddings."""


class Config(Section):
    """The whole configuration; `config.yaml` of a run folder holds one in full."""

    data: DataConfig = DataConfig()
    audio_encoder: AudioEncoderConfig = AudioEncoderConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    transcriber: TranscriberConfig = TranscriberConfig()
    extract: ExtractConfig = ExtractConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    sampler: SamplerConfig = SamplerConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    ray: RayConfig = RayConfig()
    track: TrackConfig = TrackConfig()
    report: ReportConfig = ReportConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()

    @model_validator(mode="after")
    def _transcribes_what_makes_a_row(self) -> Self:
        if self.transcriber.is_used and self.data.speakers == "caller" and self.data.unit == "call":
            raise ValueError(
                "transcriber: writes down all who speak in a call, and data.speakers caller wants one of them: set "
                "data.speakers to all, or data.unit to utterance"
            )
        return self

    @model_validator(mode="after")
    def _selects_by_what_it_learns(self) -> Self:
        if self.train.select_by == "mean_of_tasks" and not self.loss.sentiment_weight:
            raise ValueError("train.select_by mean_of_tasks needs loss.sentiment_weight above 0: without it there is one task")
        return self

    @model_validator(mode="after")
    def _fitted_learns_urgency_alone(self) -> Self:
        if self.model.is_fitted and self.loss.sentiment_weight > 0:
            weight = f"{self.loss.sentiment_weight:g}"
            raise ValueError(
                f"loss.sentiment_weight: {weight}, but model.name {self.model.name} learns urgency alone: set it to 0"
            )
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
                raise ValueError(f"tune.space: {tree.describe_unknown(name, known)}")
        return self

    @property
    def making_sections(self) -> tuple[str, ...]:
        """The sections that say what makes the embeddings: those of the encoders, and the transcriber's where it is used."""
        return (*ENCODER_SECTIONS, *(["transcriber"] if self.transcriber.is_used else []))

    @property
    def reading(self) -> DataConfig:
        """The data section as calls are planned and decoded by: words that are written down later need not be there."""
        return self.data.model_copy(update={"require_text": False}) if self.transcriber.is_used else self.data

    def replace(self, overrides: Mapping[str, Any]) -> Config:
        """A new config with dotted fields replaced, validated afresh: `config.replace({"train.epochs": 5})`.

        Raises:
            RequestError: a field is unknown or its value refused.
        """
        values = self.model_dump()
        for dotted, value in overrides.items():
            tree.put(Config, values, dotted, value)
        return parse_config(values)

    def to_yaml(self) -> str:
        """The full config as YAML that `load_config` reads back to an equal config."""
        return tree.VERSION_LINE.format(__version__) + yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def iter_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every field as (`section.field`, its pydantic FieldInfo), in the order of the sections."""
    return tree.iter_fields(Config)


def fields_of(*roles: Role) -> list[str]:
    """The fields of some roles, dotted, in the order of the sections."""
    sections = tree.iter_sections(Config)
    return [
        f"{name}.{field}" for name, section in sections for field in section.model_fields if section.role_of(field) in roles
    ]


def read_field(tree: dict[str, Any], dotted: str) -> Any:
    """The value of a field, `train.epochs` say, in a config as a tree."""
    section, field = dotted.split(".")
    return tree[section][field]


def parse_config(values: Any, source: str = "config") -> Config:
    """Validate a tree of plain values as a `Config`.

    Raises:
        RequestError: with a line for each fault: field, what it takes, what it got.
    """
    return tree.parse(Config, values, source)


def load_config(
    path: str | Path | None,
    overrides: Mapping[str, str] | None = None,
    base: dict[str, Any] | None = None,
    *,
    read: Callable[[str], str] | None = None,
) -> Config:
    """Defaults, then the sections of `base` or of the YAML file at `path`, then `overrides`; see `tree.load`."""
    return tree.load(Config, path, overrides, base, read=read)
