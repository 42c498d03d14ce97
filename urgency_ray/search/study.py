"""The search's memory: an Optuna study in a journal file. optuna-dashboard opens it, an interrupted search goes on from it."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, datetime
from typing import Any, Literal

import optuna
import pandas as pd
from optuna.study import StudySummary
from optuna.trial import FrozenTrial, TrialState
from packaging.version import Version

from urgency_ray import __version__
from urgency_ray.config import Config, Role, fields_of, iter_fields, read_field, searched_fields
from urgency_ray.errors import RequestError
from urgency_ray.search.journal import Journal
from urgency_ray.versions import is_newer

Resume = bool | Literal["auto"]
"""Whether to go on with the last search; `auto` does where there is one."""

NOTHING_TO_RESUME = "--resume: {} holds no search; start one without --resume, or by --resume auto"

STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


def find_resumed(journal: Journal, *, resume: Resume, run_dir: str) -> StudySummary | None:
    """The search that is to go on; None where a new one is to begin.

    Raises:
        RequestError: there is none to resume, a newer version began it, or one that has not ended stands in a new one's way.
    """
    ours = [study for study in optuna.get_all_study_summaries(journal.storage) if "settings" in study.user_attrs]
    last = ours[-1] if ours else None
    if resume == "auto":
        resume = last is not None
    if not resume:
        if last is not None and not last.user_attrs.get("ended"):
            raise RequestError(
                f"--run-dir {run_dir}: holds a search that has not ended; go on with it by --resume, or delete its tune folder"
            )
        return None
    if last is None:
        raise RequestError(NOTHING_TO_RESUME.format(run_dir))
    # What a newer version notes of a trial need not mean the same here.
    if is_newer(Version(version := last.user_attrs.get("version", "0.2.0"))):
        raise RequestError(f"--resume: urgency_ray {version} began this search, this is {__version__}: update")
    return last


def begin_study(journal: Journal, config: Config, data_digest: str, *, resume: Resume, run_dir: str) -> optuna.Study:
    """A new study, or the last one of the journal where it is to be resumed.

    Raises:
        RequestError: as `find_resumed`, or the config or the data are no longer those of the study.
    """
    last, settings = find_resumed(journal, resume=resume, run_dir=run_dir), _settings(config)
    if last is None:
        name = f"search-{uuid.uuid4().hex[:8]}"
        study = optuna.create_study(study_name=name, storage=journal.storage, direction="maximize")
        study.set_user_attr("settings", settings)
        study.set_user_attr("version", __version__)
        study.set_user_attr("data", data_digest)
        return study
    # A field that an older version had not yet stands for its default.
    found = _settings(Config()) | last.user_attrs["settings"]
    # One that it noted, too, may by now decide nothing but the speed.
    others = {dotted for dotted, _ in iter_fields()} - settings.keys()
    for field in sorted((found.keys() | settings.keys()) - others):
        if found[field] != settings.get(field):
            raise RequestError(
                f"--resume: {field}: {json.dumps(found[field])} there, {json.dumps(settings.get(field))} here; "
                "resume with the config that the search began with, or search in another run folder"
            )
    if last.user_attrs["data"] != data_digest:
        raise RequestError(
            f"--resume: the embeddings or labels in {run_dir} are not those that the search began with; "
            "search in another run folder"
        )
    study = optuna.load_study(study_name=last.study_name, storage=journal.storage)
    study.set_user_attr("ended", False)
    return study


def _settings(config: Config) -> dict[str, Any]:
    """The fields that trials depend on, as JSON gives them back; how far and where a search runs may change on the way."""
    tree = json.loads(config.model_dump_json())
    return {dotted: read_field(tree, dotted) for dotted in fields_of(Role.RECIPE, Role.SETUP, Role.SEARCH)}


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have ended, however they did."""
    return study.get_trials(deepcopy=False, states=tuple(STATES))


def trials_table(study: optuna.Study, config: Config) -> pd.DataFrame:
    """trials.parquet: a row a trial that has ended, with the searched fields that it set (null where its condition fails)."""
    fields = searched_fields(config.tune.space)
    several = config.tune.repeats > 1 or config.tune.folds is not None
    rows = []
    for trial in ended_trials(study):
        attrs = trial.user_attrs
        failed = trial.state == TrialState.FAIL
        spread = {"val_macro_f1_std": attrs.get("spread", math.nan)} if several else {}
        rows.append(
            {
                "number": trial.number,
                "state": STATES[trial.state],
                "val_macro_f1": math.nan if failed or trial.value is None else trial.value,
                **spread,
                "epochs": len(attrs.get("val_macro_f1", [])),
                "seconds": attrs.get("seconds", math.nan),
                "start": datetime.fromtimestamp(attrs["started"], UTC) if "started" in attrs else pd.NaT,
                **{field: attrs.get("fields", {}).get(field) for field in fields},
            }
        )
    scores = ["val_macro_f1", "val_macro_f1_std"] if several else ["val_macro_f1"]
    frame = pd.DataFrame(rows, columns=["number", "state", *scores, "epochs", "seconds", "start", *fields])
    # Where no trial came to its first epoch, the column is all nulls and has no zone yet.
    return frame.assign(start=pd.to_datetime(frame["start"], utc=True).dt.as_unit("ms"))


def history_table(study: optuna.Study) -> pd.DataFrame:
    """history.parquet: trial, epoch, val_macro_f1 and the best so far, for every epoch of every trial that has ended."""
    columns: dict[str, list[Any]] = {"trial": [], "epoch": [], "val_macro_f1": [], "best_val_macro_f1": []}
    for trial in ended_trials(study):
        for epoch, score in enumerate(trial.user_attrs.get("val_macro_f1", []), start=1):
            values = (trial.number, epoch, score, trial.intermediate_values[epoch])
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return pd.DataFrame(columns)
