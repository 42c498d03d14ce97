"""Runs beside each other: their predictions for the test calls that all of them have, and what the figures of these come to."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from urgency_ray import storage
from urgency_ray.config import Config, Role, fields_of, flatten
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import open_rows
from urgency_ray.examples.groups import group_examples
from urgency_ray.report import words
from urgency_ray.report.files import DEFAULTS, Tree, read_history, read_part, read_table, read_tree
from urgency_ray.report.language import say
from urgency_ray.run_folder import RunFolder
from urgency_ray.schema import PREDICTION_SCHEMA, URGENCY_KEYS, URGENCY_LABELS
from urgency_ray.scoring.blocks import ClassificationBlock
from urgency_ray.scoring.metrics import classification_block
from urgency_ray.scoring.paired import Answers, PairedFigure, paired_differences
from urgency_ray.training.history import EpochRow

PROBS = [f"prob_{key}" for key in URGENCY_KEYS]
LEARNT_FROM = ("train", "val")
SHOWN_PLACES = ("data.root", "data.manifest")
"""Of what is nobody's business elsewhere: other calls are a difference that matters."""


@dataclass(frozen=True)
class Run:
    """A run that is compared.

    Attributes:
        location: as it was given.
        name: the last part of its path, and as much before it as tells it from the others.
        config: all fields, dotted.
        rows: predictions.parquet, by example_id.
        history: None where there is none.
    """

    location: str
    name: str
    config: Tree
    rows: pd.DataFrame
    history: list[EpochRow] | None

    @property
    def test(self) -> pd.DataFrame:
        """The labelled test rows."""
        rows = self.rows[self.rows["split"] == "test"]
        return rows[rows["urgency"].notna() & rows["urgency_pred"].notna()]


@dataclass(frozen=True)
class Comparison:
    """Runs on the test rows that they have in common.

    Attributes:
        runs: the first is the one that the others are compared with.
        keys: example_id (the index) and call_id of the N common rows.
        truth: their class (N,).
        answers: of each run.
        blocks: of each run.
        differences: of each run but the first, less the first.
        num_relabelled: rows in all tests that are left out, since the runs do not agree on their class.
    """

    runs: list[Run]
    keys: pd.DataFrame
    truth: NDArray[np.int64]
    answers: list[Answers]
    blocks: list[ClassificationBlock]
    differences: list[dict[str, PairedFigure]]
    num_relabelled: int


def compare_runs(locations: Sequence[str], config: Config) -> Comparison:
    """Read runs and score them on their common test rows.

    Args:
        locations: two run folders or more.
        config: its resamples (`train.bootstrap_samples`) and their seed (`split.seed`).

    Raises:
        RequestError: fewer than two, one of them twice, one that is no run folder or has no predictions for labelled test
            calls in these classes, or no test call is common to all.
    """
    if len(locations) < 2:
        raise RequestError(f"compare: takes two run folders or more but got {len(locations)}")
    places = [storage.absolute(location).rstrip("/") for location in locations]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise RequestError(f"{locations[number]}: given twice; a run beside itself says nothing")
    runs = [_read_run(location, name) for location, name in zip(locations, _names(places), strict=True)]
    common = _common(runs)
    truths = np.stack([run.rows.loc[common, "urgency"].to_numpy(np.int64) for run in runs])
    agreed = (truths == truths[0]).all(axis=0)
    if not agreed.any():
        raise RequestError(f"{locations[-1]}: gives each of the {len(common)} common test calls another urgency")
    common, truth = common[agreed], truths[0][agreed]
    keys = runs[0].rows.loc[common, ["call_id"]]
    groups = _groups(locations[0], keys)
    answers = [_answers(run.rows.loc[common]) for run in runs]
    settings: Any = {"num_resamples": config.train.bootstrap_samples, "seed": config.split.seed}
    return Comparison(
        runs=runs,
        keys=keys,
        truth=truth,
        answers=answers,
        blocks=[
            classification_block(truth, each.called, each.probs, groups, URGENCY_LABELS, ordinal=True, **settings)
            for each in answers
        ],
        differences=[paired_differences(truth, each, answers[0], groups, **settings) for each in answers[1:]],
        num_relabelled=int((~agreed).sum()),
    )


def _names(places: Sequence[str]) -> list[str]:
    parts = [storage.without_options(place).split("/") for place in places]
    # As many parts from the end as it takes; the whole path only where nothing shorter would do.
    for depth in range(1, max(map(len, parts)) + 1):
        names = [posixpath.join(*part[-depth:]) or "/" for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _read_run(location: str, name: str) -> Run:
    folder = RunFolder(location)
    config = read_part(folder.config, read_tree)
    if config is None:
        raise RequestError(f"{location}: not a run folder (it has no config.yaml)")
    columns = PREDICTION_SCHEMA.names
    table = read_part(folder.predictions, lambda place: read_table(place, columns))
    if table is None:
        raise RequestError(f"{location}: holds no predictions.parquet; train on it first")
    run = Run(
        location=location,
        name=name,
        config=DEFAULTS | flatten(config),
        rows=table.to_pandas().set_index("example_id"),
        history=read_part(folder.history, read_history),
    )
    _refuse_unusable(run)
    return run


def _refuse_unusable(run: Run) -> None:
    place = RunFolder(run.location).predictions
    if run.test.empty:
        raise RequestError(f"{run.location}: its predictions.parquet holds no labelled test call")
    if not run.rows.index.is_unique:
        raise RequestError(f"{place}: holds an example_id twice")
    classes = np.unique(run.test[["urgency", "urgency_pred"]].to_numpy(np.int64))
    if classes[0] < 0 or classes[-1] >= len(URGENCY_LABELS):
        raise RequestError(f"{place}: is of other classes: must be 0 to 2 ({', '.join(URGENCY_LABELS)}) but got {classes[-1]}")
    if not np.isfinite(run.test[PROBS].to_numpy(np.float64)).all():
        raise RequestError(f"{place}: holds probabilities that are not finite numbers")


def _common(runs: Sequence[Run]) -> pd.Index[str]:
    common = runs[0].test.index
    for number, run in enumerate(runs[1:], start=1):
        rest = common.intersection(run.test.index)
        if rest.empty:
            others = ", ".join(other.name for other in runs[:number])
            raise RequestError(f"{run.location}: has no test call in common with {others}{_why_none(run, runs[0], common)}")
        common = rest
    return common.sort_values()


def _why_none(run: Run, first: Run, wanted: pd.Index[str]) -> str:
    units = [one.config["data.unit"] for one in (first, run)]
    if run.rows.index.isin(wanted).any():
        return ": they are in its train or val, so its test says nothing of them; compare runs of one split"
    if units[0] != units[1] and set(run.test["call_id"]) & set(first.test["call_id"]):
        return f": it has a row for each {units[1]}, {first.name} for each {units[0]}"
    return ""


def _groups(location: str, keys: pd.DataFrame) -> NDArray[np.int64]:
    """Groups as training has them: rows of one call, and, where the embeddings are still there, calls of the same audio."""
    digests = read_part(RunFolder(location).embeddings, lambda place: _read_digests(place, keys["call_id"].tolist()))
    audio = None if digests is None else keys["call_id"].map(digests)
    return group_examples(keys.assign(audio_sha256=audio))


def _read_digests(embeddings: str, call_ids: list[str]) -> pd.Series[str]:
    wanted = pc.field("call_id").isin(call_ids)
    frame = open_rows(embeddings).to_table(columns=["call_id", "audio_sha256"], filter=wanted).to_pandas()
    return frame.dropna().drop_duplicates("call_id").set_index("call_id")["audio_sha256"]


def _answers(rows: pd.DataFrame) -> Answers:
    return Answers(rows["urgency_pred"].to_numpy(np.int64), rows[PROBS].to_numpy(np.float64))


def differing_fields(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Each run's value, as it is shown, of the fields that are not the same in all: those that decide an embedding or a weight,
    those that this version does not know, and whose calls they are.
    """
    decisive = {*fields_of(Role.EMBEDDING, Role.RECIPE, Role.SETUP), *SHOWN_PLACES}
    names = dict.fromkeys(name for run in runs for name in run.config if name in decisive or name not in DEFAULTS)
    values = {name: [run.config.get(name) for run in runs] for name in names}
    return {name: _tell_apart(found) for name, found in values.items() if any(value != found[0] for value in found)}


def _tell_apart(values: Sequence[Any]) -> list[str]:
    # Of a path the last part is shown, which two folders may share.
    shown = [words.value(value, ".4g") for value in values]
    return [
        f"{text} ({say('elsewhere')})" if text == shown[0] and value != values[0] else text
        for text, value in zip(shown, values, strict=True)
    ]


@dataclass(frozen=True)
class Overlap:
    """What becomes of a run's labelled test rows: all, those that no other run has, those that another run learnt from."""

    num_rows: int
    num_alone: int
    num_learnt_from: int


def overlaps(runs: Sequence[Run]) -> list[Overlap]:
    """Of each run, in their order."""
    found = []
    for run in runs:
        test, others = run.test.index, [other for other in runs if other is not run]
        elsewhere = np.any([test.isin(other.test.index) for other in others], axis=0)
        learnt = np.any([test.isin(other.rows.index[other.rows["split"].isin(LEARNT_FROM)]) for other in others], axis=0)
        found.append(Overlap(len(test), int((~elsewhere).sum()), int(learnt.sum())))
    return found


@dataclass(frozen=True)
class Disagreement:
    """A common test row that not all runs call the same: its ids, true class, and each run's class and probabilities (3,)."""

    example_id: str
    call_id: str
    truth: int
    called: list[int]
    probs: list[list[float]]


def disagreements(comparison: Comparison) -> list[Disagreement]:
    """All of them, those first in which two runs are surest of different classes."""
    called = np.stack([each.called for each in comparison.answers])
    probs = np.stack([each.probs for each in comparison.answers])
    sure = np.take_along_axis(probs, called[..., None], axis=2)[..., 0]
    # The surest run of each class; of these, the second surest says how sure both sides are.
    by_class = np.stack([np.where(called == index, sure, 0.0).max(axis=0) for index in range(len(URGENCY_LABELS))])
    both_sure = np.sort(by_class, axis=0)[-2]
    apart = np.flatnonzero((called != called[0]).any(axis=0))
    ids, calls = comparison.keys.index, comparison.keys["call_id"].to_list()
    return [
        Disagreement(
            example_id=str(ids[row]),
            call_id=calls[row],
            truth=int(comparison.truth[row]),
            called=called[:, row].tolist(),
            probs=probs[:, row].tolist(),
        )
        for row in apart[np.argsort(-both_sure[apart], kind="stable")]
    ]
