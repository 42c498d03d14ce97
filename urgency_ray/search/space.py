"""What a search may vary: an Optuna define-by-run space over config fields, checked against the config's types and ranges."""

from __future__ import annotations

import difflib
import graphlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import optuna

from urgency_ray.config import (
    CategoricalDimension,
    Config,
    Dimension,
    FloatDimension,
    IntDimension,
    Role,
    SimplexDimension,
    dimension_fields,
    fields_of,
    read_field,
    searched_fields,
)
from urgency_ray.errors import RequestError

LEAST_UNIFORM = 1e-6
NUM_PROBES = 50


@dataclass(frozen=True)
class SearchSpace:
    """An Optuna define-by-run space over config fields: called with a trial, gives {config field: value}.

    A simplex of k fields takes k uniforms u_i and gives p_i = log u_i / sum_j log u_j: exponentials over their sum are uniform
    on the simplex (Devroye 1986, ch. XI), so no corner is favoured.
    """

    space: dict[str, Dimension]

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw a value for each field whose condition holds; also keeps them as user attributes, for the study's reader."""
        fields: dict[str, Any] = {}
        for name in parents_first(self.space):
            dimension = self.space[name]
            if not _holds(dimension, fields):
                continue
            if isinstance(dimension, SimplexDimension):
                draws = [trial.suggest_float(f"{name}.{field}", LEAST_UNIFORM, 1.0) for field in dimension.fields]
                logs = [-math.log(draw) for draw in draws]
                total = sum(logs) or 1.0
                fields |= {field: value / total for field, value in zip(dimension.fields, logs, strict=True)}
            elif isinstance(dimension, CategoricalDimension):
                fields[name] = trial.suggest_categorical(name, dimension.choices)
            elif dimension.type == "int":
                fields[name] = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
            else:
                fields[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        trial.set_user_attr("fields", fields)
        return fields

    def locate(self, config: Config) -> dict[str, Any]:
        """The point of this space that stands for a config's own values.

        Raises:
            ValueError: one lies outside.
        """
        tree = config.model_dump()
        point: dict[str, Any] = {}
        for name in parents_first(self.space):
            dimension = self.space[name]
            if not _holds(dimension, point):
                continue
            if isinstance(dimension, SimplexDimension):
                values = [read_field(tree, field) for field in dimension.fields]
                total = sum(values)
                if total <= 0:
                    raise ValueError(f"{' + '.join(dimension.fields)} is 0")
                draws = (math.exp(-value / total) for value in values)
                point |= {f"{name}.{field}": draw for field, draw in zip(dimension.fields, draws, strict=True)}
                continue
            value = read_field(tree, name)
            inside = (
                value in dimension.choices
                if isinstance(dimension, CategoricalDimension)
                else value is not None and dimension.low <= value <= dimension.high
            )
            if not inside:
                raise ValueError(f"{name} {value} lies outside tune.space")
            point[name] = value
        return point


def _holds(dimension: Dimension, fields: dict[str, Any]) -> bool:
    return all(parent in fields and fields[parent] == value for parent, value in dimension.when.items())


def parents_first(space: Mapping[str, Dimension]) -> list[str]:
    """The names of the dimensions, each after those that its `when` names.

    Raises:
        RequestError: a `when` names no dimension, a value that it never has, or leads back to its own dimension.
    """
    for name, dimension in space.items():
        for parent, value in dimension.when.items():
            _check_condition(space, name, parent, value)
    graph = {name: list(dimension.when) for name, dimension in space.items()}
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise RequestError(f"tune.space: when goes round in a circle: {' -> '.join(reversed(error.args[1]))}") from None


def _check_condition(space: Mapping[str, Dimension], name: str, parent: str, value: Any) -> None:
    where = f"tune.space.{name}.when"
    if parent not in space:
        near = difflib.get_close_matches(parent, list(space), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; search that field too, or leave the condition out"
        raise RequestError(f"{where}: {parent} is no dimension of the space{hint}")
    dimension = space[parent]
    if isinstance(dimension, CategoricalDimension):
        # True == 1 in Python, not in a config.
        if not any(type(choice) is type(value) and choice == value for choice in dimension.choices):
            choices = ", ".join(str(choice) for choice in dimension.choices)
            raise RequestError(f"{where}: {parent} must be one of {choices} but got {value!r}")
    elif isinstance(dimension, IntDimension):
        if type(value) is not int or not dimension.low <= value <= dimension.high:
            raise RequestError(
                f"{where}: {parent} must be an integer from {dimension.low} to {dimension.high} but got {value!r}"
            )
    else:
        raise RequestError(f"{where}: {parent} must be categorical or int to have values but is {dimension.type}")


def check_space(config: Config) -> None:
    """Try random points, and the ends, of every dimension on the config, so that no trial meets a value that it refuses.

    Raises:
        RequestError: the space is empty, names a field that a trial cannot change, or holds a value out of the field's range.
    """
    space = config.tune.space
    if not space:
        raise RequestError("tune.space: is empty; state what to search, as configs/tune_fusion.yaml does")
    searchable = fields_of(Role.RECIPE)
    for field in searched_fields(space):
        if field not in searchable:
            shared = "one set of tokens" if field.startswith("model.") else "one split, one seed and one budget"
            raise RequestError(f"tune.space: {field} cannot be searched: trials share {shared}")
    in_order = parents_first(space)
    _refuse_overlaps(space)
    for name in in_order:
        dimension = space[name]
        if isinstance(dimension, FloatDimension | IntDimension):
            if dimension.low > dimension.high:
                raise RequestError(f"tune.space.{name}: low {dimension.low} is above high {dimension.high}")
            if dimension.log and dimension.low <= 0:
                raise RequestError(f"tune.space.{name}: a logarithmic scale needs low above 0 but got {dimension.low}")
        kinds = {
            choice == "hierarchical" for choice in (config.model.name, *(_ends(dimension) if name == "model.name" else []))
        }
        if len(kinds) > 1:
            raise RequestError(
                "tune.space.model.name: hierarchical takes calls, the others rows: state which, and search within it"
            )
        for end in _ends(dimension):
            _try(config, {**_conditions(space, name), name: end})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(NUM_PROBES):
        _try(config, SearchSpace(space)(study.ask()))


def _conditions(space: Mapping[str, Dimension], name: str) -> dict[str, Any]:
    """The values of a dimension's parents, of their parents and so on, under which it is searched."""
    conditions = dict(space[name].when)
    for parent in space[name].when:
        for field, value in _conditions(space, parent).items():
            if conditions.setdefault(field, value) != value:
                raise RequestError(
                    f"tune.space.{name}: is never searched: it needs {field} {conditions[field]}, its parent {parent} {value}"
                )
    return conditions


def _refuse_overlaps(space: Mapping[str, Dimension]) -> None:
    owners: dict[str, list[str]] = {}
    for name, dimension in space.items():
        for field in dimension_fields(name, dimension):
            owners.setdefault(field, []).append(name)
    for field, names in owners.items():
        for first, second in combinations(names, 2):
            former, latter = _conditions(space, first), _conditions(space, second)
            if all(latter.get(parent, value) == value for parent, value in former.items()):
                where = first if first == second else f"{first} and {second}"
                raise RequestError(
                    f"tune.space: {field} is searched twice, by {where}; leave one out, or give them different `when`"
                )


def _ends(dimension: Dimension) -> list[Any]:
    if isinstance(dimension, SimplexDimension):
        return []
    return list(dimension.choices) if isinstance(dimension, CategoricalDimension) else [dimension.low, dimension.high]


def _try(config: Config, fields: dict[str, Any]) -> None:
    try:
        config.replace(fields)
    except RequestError as error:
        raise RequestError(f"tune.space: {error}") from None
