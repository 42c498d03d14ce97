"""A run folder as one self-contained page: what was read, how well the classifier does, what the search found.

The page holds counts and figures, and of the costliest errors the calls' ids; no address, and no word of a transcript unless
`report.show_text` asks for those of these calls. It needs no network and no script.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

import numpy as np
import pandas as pd

from urgency_ray import __version__, storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.config import ENCODER_SECTIONS, ReportConfig, Role, fields_of, flatten
from urgency_ray.report import charts, verdicts, words
from urgency_ray.report.calls import calls_view, coverage_view
from urgency_ray.report.files import DEFAULTS, RunFiles, Tree, View, read_files
from urgency_ray.report.language import say, speaking
from urgency_ray.report.template import markup, render
from urgency_ray.report.tuning import tuning_view
from urgency_ray.run_folder import RunFolder
from urgency_ray.schema import URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.scoring.blocks import ClassificationBlock, Metrics
from urgency_ray.training.history import EpochRow

LEAK_MACRO_F1 = 0.70
"""On real calls a test macro-F1 above this calls for an explanation before it calls for joy."""


def write_report(run_dir: str, config: ReportConfig | None = None) -> str:
    """Write `<run_dir>/report.html` from what the run folder holds so far, and return where it is.

    Args:
        run_dir: run folder, a local path or a URI.
        config: what to show, in which language.

    Raises:
        RequestError: this is no run folder, nothing has been run in it, or one of its files cannot be read.
    """
    config = config or ReportConfig()
    files, target = read_files(run_dir), RunFolder(run_dir).report
    with speaking(config.language):
        storage.write_text(target, render("report.html.j2", _view(run_dir, files, config)))
    return target


def _view(run_dir: str, files: RunFiles, config: ReportConfig) -> View:
    return {
        # Not as given: "." or a trailing slash would leave no name, and an absolute path is nobody's business.
        "name": posixpath.basename(posixpath.normpath(storage.open_location(run_dir)[1])),
        "newest": _newest(files.there),
        "version": __version__,
        "labels": URGENCY_LABELS,
        "measures": words.measures(),
        "explanations": words.explanations(),
        "leak": _is_leak(files),
        **_settings_view(files.config),
        **_extract_view(files.extract),
        **_result_view(files.metrics, files.ceiling),
        **_calibration_view(files.predictions),
        **calls_view(run_dir, files.predictions, DEFAULTS | flatten(files.config), config.show_text),
        **(coverage_view(run_dir) if files.extract is not None else {}),
        **_training_view(files.history),
        **_tune_view(files),
    }


def _is_leak(files: RunFiles) -> bool:
    if files.ceiling is not None:  # a synthetic corpus states what can be reached
        return False
    tested = [] if files.metrics is None or "test" not in files.metrics.splits else [files.metrics.splits["test"]["urgency"]]
    tested += [] if files.search.metrics is None else [files.search.metrics.test]
    return max((block.macro_f1 for block in tested), default=0.0) > LEAK_MACRO_F1


def _newest(locations: Iterable[str]) -> datetime | None:
    opened = [storage.open_location(location) for location in locations]
    times: list[datetime | None] = [filesystem.get_file_info(path).mtime for filesystem, path in opened]
    return max((time for time in times if time is not None), default=None)  # not every filesystem knows


def _settings_view(tree: Tree) -> View:
    # Not validated: the report of an old run may name a field that is gone by now.
    config = DEFAULTS | flatten(tree)
    hidden = (*fields_of(Role.PLACE), "tune.space")  # where things lie is nobody's business, the space is in the panels
    changed = {key: value for key, value in config.items() if key not in hidden and value != DEFAULTS.get(key)}
    selected_by = words.SELECTED_BY.get(config["train.select_by"], config["train.select_by"])
    return {"config": config, "defaults": DEFAULTS, "changed": changed, "selected_by": selected_by}


def _extract_view(accounts: ExtractAccounts | None) -> View:
    if accounts is None:
        return {}
    made_with = accounts.fingerprint.model_dump()
    encoders = {name: made_with.pop(name) for name in (*ENCODER_SECTIONS, "transcriber") if name in made_with}
    return {"extract": accounts, "files": accounts.files, "encoders": encoders, "transform": made_with}


def _result_view(metrics: Metrics | None, ceiling: Mapping[str, float] | None) -> View:
    if metrics is None:
        return {}
    tasks: dict[str, dict[str, ClassificationBlock]] = {}
    for split, blocks in metrics.splits.items():
        for task, block in blocks.items():
            tasks.setdefault(task, {})[split] = block
    head_split = "test" if "test" in tasks["urgency"] else "val"
    view: View = {"tasks": tasks, "head_split": head_split, "head": tasks["urgency"][head_split], "ceiling": ceiling}
    view |= {"warnings": metrics.warnings, "folds": metrics.folds, "layer_weights": metrics.layer_weights}
    if (curve := view["head"].net_benefit) is not None:
        view["net_benefit_chart"] = markup(charts.net_benefit(curve))
    if (against := metrics.against_baseline) is not None:
        view |= {"baselines": metrics.baselines, "best_baseline": against.baseline}
        view |= {"baseline_verdict": verdicts.baseline_verdict(against), "beats_baseline": against.verdict == "better"}
    if ablation := metrics.ablation:
        chart = markup(charts.ablation(ablation, ceiling or {}))
        view |= {"ablation": ablation, "verdict": verdicts.fusion_verdict(ablation), "ablation_chart": chart}
    return view


def _calibration_view(predictions: pd.DataFrame | None) -> View:
    if predictions is None or predictions.empty:
        return {}
    confidence = predictions[[f"prob_{key}" for key in URGENCY_KEYS]].max(axis=1).tolist()
    correct = (predictions["urgency"] == predictions["urgency_pred"]).tolist()
    return {
        "num_predictions": len(predictions),
        "mean_confidence": float(np.mean(confidence)),
        "share_right": float(np.mean(correct)),
        "reliability_chart": markup(charts.reliability(confidence, correct)),
    }


def _kinds(history: Sequence[EpochRow]) -> dict[str, list[list[EpochRow]]]:
    """Rows of each model by its name, those of an ensemble's members by their kind."""
    found: dict[str, list[list[EpochRow]]] = {}
    for (modality, member), rows in groupby(history, key=lambda row: (row.modalities, row.member)):
        own = say(modality) if modality in charts.MODALITIES else modality
        name = own if member is None else f"{own}, {member.rpartition('-')[0].replace('_', ' ')}"
        found.setdefault(name, []).append(list(rows))
    return found


def _summarize_kind(name: str, members: Sequence[Sequence[EpochRow]]) -> View:
    """A line of the table of models: means over members, and the time of all of them."""
    best = [max(rows, key=lambda row: row.val_score) for rows in members]
    return {
        "name": name,
        "num_members": len(members),
        "num_epochs": float(np.mean([len(rows) for rows in members])),
        "best_epoch": float(np.mean([row.epoch for row in best])),
        "macro_f1": float(np.mean([row.val_macro_f1 for row in best])),
        "accuracy": float(np.mean([row.val_accuracy for row in best])),
        "seconds": sum(row.seconds for rows in members for row in rows),
    }


def _training_view(history: Sequence[EpochRow] | None) -> View:
    if not history:
        return {}
    return {
        "models": [_summarize_kind(name, members) for name, members in _kinds(history).items()],
        "loss_chart": markup(charts.loss_curves(history)),
        "f1_chart": markup(charts.macro_f1_curves(history)),
    }


def _tune_view(files: RunFiles) -> View:
    # The run folder's is that of its last extract or train, maybe with another config.
    own = DEFAULTS | flatten(files.config if files.search.config is None else files.search.config)
    best = DEFAULTS | flatten(files.search.best) if files.search.best is not None else {}
    return tuning_view(files.search, own, best, DEFAULTS)
