"""The knobs of the search: its extent, how trials are scored, and the space that it searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from urgency_ray.config.tree import Cpus, Folds, PositiveFloat, PositiveInt, Role, Section, Seed


class DimensionBase(Section):
    when: dict[str, str | int | float | bool] = Field(default_factory=dict)
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
    """Values to choose from, each once."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        # 1 and 1.0 and true are equal, and not the same.
        written = [repr(choice) for choice in self.choices]
        if twice := [choice for choice in dict.fromkeys(written) if written.count(choice) > 1]:
            raise ValueError(f"choices: {', '.join(twice)} stands there more than once: list each once")
        return self


class SimplexDimension(DimensionBase):
    type: Literal["simplex"]
    fields: list[str] = Field(min_length=2)
    """Config fields that share a total of 1, uniformly over the simplex."""


Dimension = Annotated[FloatDimension | IntDimension | CategoricalDimension | SimplexDimension, Field(discriminator="type")]


def searched_fields(space: Mapping[str, Dimension]) -> list[str]:
    """The config fields that a search space varies, each once."""
    return list(dict.fromkeys(field for name, dimension in space.items() for field in dimension_fields(name, dimension)))


def dimension_fields(name: str, dimension: Dimension) -> list[str]:
    """The config fields that a dimension varies: its own name, or all fields of a simplex."""
    return list(dimension.fields) if isinstance(dimension, SimplexDimension) else [name]


class TuneConfig(Section):
    num_trials: Annotated[PositiveInt, Role.EXTENT] = 30
    """Trials to run."""
    time_budget_sec: Annotated[PositiveFloat | None, Role.EXTENT] = None
    """Longest search in seconds, over all its resumptions; the winner's training comes after. null is as long as it takes."""
    folds: Annotated[Folds | None, Role.SEARCH] = None
    """Score each trial by its mean over so many folds of the train and val rows; null scores it on the val split alone."""
    repeats: Annotated[PositiveInt, Role.SEARCH] = 1
    """Score each trial by its mean over so many seeds: train.seed and those that follow it."""
    max_concurrent: Annotated[PositiveInt | None, Role.SPEED] = None
    """Most trials at once; null is what fits the cluster."""
    workers_per_trial: Annotated[PositiveInt, Role.SPEED] = 1
    """Above 1, each trial is a Ray Train job of so many workers, which takes 10 s or so to start."""
    cpus_per_trial: Annotated[Cpus, Role.SPEED] = 1.0
    """Logical CPUs of one trial, or of each of its workers."""
    gpus_per_trial: Annotated[float, Field(ge=0.0, le=8.0), Role.SPEED] = 0.0
    """GPUs of one trial, or of each of its workers; 0.25 lets four share one, 0 trains on the CPU."""
    max_failures: Annotated[int, Field(ge=0), Role.SPEED] = 2
    """Times that a trial whose process or node is lost starts again before it counts as failed."""
    startup_trials: Annotated[PositiveInt, Role.SEARCH] = 10
    """Random trials before TPE takes over."""
    grace_epochs: Annotated[PositiveInt, Role.SEARCH] = 5
    """Epochs that ASHA lets every trial run."""
    reduction_factor: Annotated[int, Field(ge=2, le=16), Role.SEARCH] = 3
    """ASHA keeps one in this many at each rung."""
    seed: Annotated[Seed, Role.SEARCH] = 0
    """Seed of the search; reproducible at one trial at a time."""
    ensemble: Annotated[PositiveInt | None, Role.REPORT] = None
    """Also mix the members of so many of the best trials, of the config's own values and the linear ones, each as often as it
    helps on rows that it has not seen; tune/model is that ensemble where it is better there beyond noise. It takes
    train.members."""
    space: Annotated[dict[str, Dimension], Role.SEARCH] = Field(default_factory=dict)
    """Search space: config field (a free name for a simplex) to its dimension."""

    @model_validator(mode="after")
    def _shares_gpus_as_ray_does(self) -> Self:
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial must be at most 1 or a whole number but got {self.gpus_per_trial:g}")
        return self
