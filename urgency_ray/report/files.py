"""What a run folder holds for the report, each file read once and checked, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from urgency_ray import storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.config import Config, flatten, parse_yaml
from urgency_ray.errors import RequestError
from urgency_ray.run_folder import RunFolder, SearchFolder, read_json
from urgency_ray.schema import URGENCY_KEYS
from urgency_ray.scoring.blocks import Metrics, SearchSummary
from urgency_ray.training.history import EpochRow

Tree = dict[str, Any]
"""A YAML file of sections."""
Row = dict[str, Any]
"""A row of a parquet file, by column."""
View = dict[str, Any]
"""What the template is given, by the names that it knows it by."""
Content = TypeVar("Content")

TRIAL_COLUMNS = ("number", "state", "val_macro_f1", "epochs", "seconds")
"""What every tune/trials.parquet has; beside them a column for each searched field, and what newer searches note."""
EPOCH_COLUMNS = ("trial", "epoch", "best_val_macro_f1")
DEFAULTS: Tree = flatten(Config().model_dump())
"""Of all fields, dotted: an older run's config may lack some."""
PREDICTION_COLUMNS = ("example_id", "call_id", "split", "urgency", "urgency_pred", *(f"prob_{key}" for key in URGENCY_KEYS))


@dataclass(frozen=True)
class SearchFiles:
    """What `tune/` holds; None where a file is missing."""

    config: Tree | None
    trials: list[Row] | None
    history: list[Row] | None
    best: Tree | None
    metrics: SearchSummary | None


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds; None where a file is missing.

    Attributes:
        there: where the files are that were read.
        config: the run folder's own.
        predictions: of the labelled test rows: ids, urgency, urgency_pred and the probabilities.
    """

    there: list[str]
    config: Tree
    ceiling: dict[str, float] | None
    extract: ExtractAccounts | None
    history: list[EpochRow] | None
    metrics: Metrics | None
    predictions: pd.DataFrame | None
    search: SearchFiles


def read_files(run_dir: str) -> RunFiles:
    """Read what a run folder holds so far.

    Raises:
        RequestError: this is no run folder, nothing has been run in it, or one of its files cannot be read.
    """
    folder, there = RunFolder(run_dir), list[str]()

    def read(location: str, reader: Callable[[str], Content]) -> Content | None:
        content = read_part(location, reader)
        if content is not None:
            there.append(location)
        return content

    config = read(folder.config, read_tree)
    if config is None:
        raise RequestError(f"--run-dir {run_dir}: not a run folder (it has no config.yaml)")
    files = RunFiles(
        there=there,
        config=config,
        ceiling=read(folder.ceiling, lambda location: read_json(location, dict[str, float], "run demo again")),
        extract=read(folder.extract, lambda _: ExtractAccounts.read(run_dir)),
        history=read(folder.history, read_history),
        metrics=read(folder.metrics, lambda location: read_json(location, Metrics, "run train again")),
        predictions=read(folder.predictions, _read_predictions),
        search=_read_search(folder.search, read),
    )
    content = (files.extract, files.history, files.metrics, files.predictions, files.search.trials, files.search.metrics)
    if all(part is None for part in content):
        raise RequestError(f"--run-dir {run_dir}: nothing to report yet; extract, import, train or tune first")
    return files


def read_part(location: str, reader: Callable[[str], Content]) -> Content | None:
    """What `reader` makes of a file; None where there is none.

    Raises:
        RequestError: it cannot be read; the text is one line that names it.
    """
    if not storage.exists(location):
        return None
    try:
        return reader(location)
    except RequestError:
        raise
    except (ValueError, OSError, yaml.YAMLError) as error:
        raise RequestError(f"{location}: cannot be read: {' '.join(str(error).split())}") from None


def read_history(location: str) -> list[EpochRow]:
    """history.json."""
    return read_json(location, list[EpochRow], "run train again")


def _read_search(folder: SearchFolder, read: Callable[[str, Callable[[str], Any]], Any]) -> SearchFiles:
    return SearchFiles(
        config=read(folder.config, read_tree),
        trials=read(folder.trials, lambda location: _read_rows(location, TRIAL_COLUMNS)),
        history=read(folder.history, lambda location: _read_rows(location, EPOCH_COLUMNS)),
        best=read(folder.best, read_tree),
        metrics=read(folder.metrics, lambda location: read_json(location, SearchSummary, "run tune again")),
    )


def read_tree(location: str) -> Tree:
    """A YAML file of sections."""
    tree = parse_yaml(storage.read_text(location)) or {}
    if not isinstance(tree, dict):
        raise ValueError("not a mapping of sections")
    return tree


def _read_rows(location: str, needed: Sequence[str]) -> list[Row]:
    rows: list[Row] = read_table(location, needed, others=True).to_pylist()
    return rows


def read_table(location: str, needed: Sequence[str], others: bool = False) -> pa.Table:
    """The needed columns of a parquet file, and all others where wanted; a ValueError says which it lacks."""
    filesystem, path = storage.open_location(location)
    there = pq.read_schema(path, filesystem=filesystem).names
    if missing := [name for name in needed if name not in there]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    columns = None if others else list(needed)
    # A folder above that is named like `key=value` is no partition.
    return pq.read_table(path, filesystem=filesystem, columns=columns, partitioning=None)


def _read_predictions(location: str) -> pd.DataFrame:
    # Only what is shown is read: no word can reach the page from here.
    table = read_table(location, PREDICTION_COLUMNS)
    tested = (pc.field("split") == "test") & pc.field("urgency").is_valid() & pc.field("urgency_pred").is_valid()
    return table.filter(tested).to_pandas()
