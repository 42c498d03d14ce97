"""A run folder as one self-contained page: what was read, how well the classifier does, what the search found.

The page holds counts and figures only: no transcript, no address, no call id. It needs no network and no script.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
import yaml
from markupsafe import Markup

from urgency_ray import __version__, storage
from urgency_ray.config import Config, parse_yaml
from urgency_ray.errors import RequestError
from urgency_ray.report import charts, words
from urgency_ray.report.tuning import tuning_view
from urgency_ray.schema import URGENCY_KEYS, URGENCY_LABELS

LEAK_MACRO_F1 = 0.70
"""On real calls a test macro-F1 above this calls for an explanation before it calls for joy."""


def write_report(run_dir: str) -> str:
    """Write `<run_dir>/report.html` from what the run folder holds so far, and return where it is.

    Args:
        run_dir: run folder, a local path or a URI.

    Raises:
        RequestError: this is no run folder, nothing has been run in it, or one of its files cannot be read.
    """
    files = _read_files(run_dir)
    view = {
        # Not as given: "." or a trailing slash would leave no name, and an absolute path is nobody's business.
        "name": posixpath.basename(posixpath.normpath(storage.open_location(run_dir)[1])),
        "newest": _newest(storage.join(run_dir, name) for name in files),
        "version": __version__,
        "labels": URGENCY_LABELS,
        "measures": words.MEASURES,
        "explanations": words.EXPLANATIONS,
        **_settings_view(files["config.yaml"]),
        **_extract_view(files.get("extract.json")),
        **_result_view(files.get("metrics.json"), files.get("ceiling.json")),
        **_calibration_view(files.get("predictions.parquet")),
        **_training_view(files.get("history.json")),
        **_tune_view(files),
    }
    tested = (view.get("tasks", {}).get("urgency", {}).get("test"), view.get("tune", {}).get("test"))
    best = max((block["macro_f1"] for block in tested if block), default=0.0)
    view["leak"] = "ceiling.json" not in files and best > LEAK_MACRO_F1  # a synthetic corpus states what can be reached
    target = storage.join(run_dir, "report.html")
    storage.write_text(target, _template().render(view))
    return target


def _read_json(location: str) -> Any:
    return json.loads(storage.read_text(location))


def _read_yaml(location: str) -> dict[str, Any]:
    tree = parse_yaml(storage.read_text(location)) or {}
    if not isinstance(tree, dict):
        raise ValueError("not a mapping of sections")
    return tree


def _read_rows(location: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    filesystem, path = storage.open_location(location)
    # A folder above that is named like `key=value` is no partition.
    rows: list[dict[str, Any]] = pq.read_table(path, filesystem=filesystem, columns=columns, partitioning=None).to_pylist()
    return rows


def _read_predictions(location: str) -> list[dict[str, Any]]:
    # Only what is drawn is read: an id cannot reach the page.
    rows = _read_rows(location, ["split", "urgency", "urgency_pred", *(f"prob_{key}" for key in URGENCY_KEYS)])
    return [row for row in rows if row["split"] == "test" and row["urgency"] is not None and row["urgency_pred"] is not None]


_READERS: dict[str, Callable[[str], Any]] = {
    "config.yaml": _read_yaml,
    "ceiling.json": _read_json,
    "extract.json": _read_json,
    "history.json": _read_json,
    "metrics.json": _read_json,
    "predictions.parquet": _read_predictions,
    "tune/config.yaml": _read_yaml,
    "tune/trials.parquet": _read_rows,
    "tune/history.parquet": _read_rows,
    "tune/best.yaml": _read_yaml,
    "tune/metrics.json": _read_json,
}
_CONTENT = _READERS.keys() - {"config.yaml", "ceiling.json", "tune/config.yaml", "tune/best.yaml", "tune/history.parquet"}


def _read_files(run_dir: str) -> dict[str, Any]:
    files: dict[str, Any] = {}
    for name, read in _READERS.items():
        location = storage.join(run_dir, name)
        if storage.exists(location):
            try:
                files[name] = read(location)
            except (ValueError, OSError, yaml.YAMLError) as error:
                raise RequestError(f"{location}: cannot be read: {' '.join(str(error).split())}") from None
    if "config.yaml" not in files:
        raise RequestError(f"--run-dir {run_dir}: not a run folder (it has no config.yaml)")
    if not files.keys() & _CONTENT:
        raise RequestError(f"--run-dir {run_dir}: nothing to report yet; extract, import, train or tune first")
    return files


def _newest(locations: Iterable[str]) -> datetime | None:
    opened = [storage.open_location(location) for location in locations]
    times: list[datetime | None] = [filesystem.get_file_info(path).mtime for filesystem, path in opened]
    return max((time for time in times if time is not None), default=None)  # not every filesystem knows


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{field}": value for section, fields in tree.items() for field, value in (fields or {}).items()}


_DEFAULTS = _flatten(Config().model_dump())


def _settings_view(tree: Mapping[str, Any]) -> dict[str, Any]:
    # Not validated: the report of an old run may name a field that is gone by now.
    config = _DEFAULTS | _flatten(tree)
    hidden = ("data.root", "ray.address", "tune.space")  # where things lie is nobody's business, the space is in the panels
    changed = {key: value for key, value in config.items() if key not in hidden and value != _DEFAULTS.get(key)}
    return {"config": config, "defaults": _DEFAULTS, "changed": changed}


def _extract_view(extract: Mapping[str, Any] | None) -> dict[str, Any]:
    if extract is None:
        return {}
    fingerprint = extract.get("fingerprint") or {}
    encoders = {key: value for key, value in fingerprint.items() if isinstance(value, Mapping)}
    transform = {key: value for key, value in fingerprint.items() if key not in encoders}
    return {"extract": extract, "encoders": encoders, "transform": transform}


def _result_view(metrics: Mapping[str, Any] | None, ceiling: Mapping[str, float] | None) -> dict[str, Any]:
    if metrics is None:
        return {}
    tasks: dict[str, dict[str, Any]] = {}
    for split, blocks in metrics["splits"].items():
        for task, block in blocks.items():
            tasks.setdefault(task, {})[split] = block
    head_split = "test" if "test" in tasks["urgency"] else "val"
    view: dict[str, Any] = {"tasks": tasks, "head_split": head_split, "head": tasks["urgency"][head_split], "ceiling": ceiling}
    view |= {"warnings": metrics.get("warnings", []), "folds": metrics.get("folds")}
    if ablation := metrics.get("ablation"):
        chart = _markup(charts.ablation(ablation, ceiling or {}))
        view |= {"ablation": ablation, "verdict": words.fusion_verdict(ablation), "ablation_chart": chart}
    return view


def _calibration_view(predictions: list[dict[str, Any]] | None) -> dict[str, Any]:
    if not predictions:
        return {}
    confidence = [max(row[f"prob_{key}"] for key in URGENCY_KEYS) for row in predictions]
    correct = [row["urgency"] == row["urgency_pred"] for row in predictions]
    return {
        "num_predictions": len(predictions),
        "mean_confidence": float(np.mean(confidence)),
        "share_right": float(np.mean(correct)),
        "reliability_chart": _markup(charts.reliability(confidence, correct)),
    }


def _training_view(history: list[dict[str, Any]] | None) -> dict[str, Any]:
    if not history:
        return {}
    return {
        "models": charts.by_modality(history),
        "loss_chart": _markup(charts.loss_curves(history)),
        "f1_chart": _markup(charts.macro_f1_curves(history)),
    }


def _tune_view(files: Mapping[str, Any]) -> dict[str, Any]:
    # The run folder's is that of its last extract or train, maybe with another config.
    own = _DEFAULTS | _flatten(files.get("tune/config.yaml", files["config.yaml"]))
    best = _DEFAULTS | _flatten(files["tune/best.yaml"]) if "tune/best.yaml" in files else {}
    return tuning_view(files, own, best, _DEFAULTS)


def _markup(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 - matplotlib escapes what it draws, svg.py the rest


def _template() -> jinja2.Template:
    loader = jinja2.FunctionLoader(lambda name: resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= words.FILTERS
    return environment.get_template("report.html.j2")
