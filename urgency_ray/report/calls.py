"""What the page shows of single calls and of kinds of calls: the costliest errors, where the model is worse, who is covered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from urgency_ray.examples.groups import group_examples
from urgency_ray.report import words
from urgency_ray.report.charts import wilson
from urgency_ray.report.files import View, read_part
from urgency_ray.report.language import say
from urgency_ray.report.traits import read_regions, read_traits, read_words, slice_rows
from urgency_ray.run_folder import RunFolder
from urgency_ray.schema import CALLER, URGENCY_KEYS
from urgency_ray.scoring.slices import LEAST_GROUPS, SliceFigures, slice_figures

TOP_ERRORS = 30
LOW, HIGH = 0, 2
SLICED_BY = {
    "region": "Region",
    "speaker": "Who speaks",
    "duration_sec": "Length",
    "caller_share": "The caller’s share of what is said",
    "speech_ratio": "Share of the recording that is speech",
    "level_db": "Level of the recording",
    "clipped": "Clipping",
}
"""What each kind of slice is called."""


@dataclass(frozen=True)
class SliceRow:
    """A line of the table of slices: its name, and its figures; `num_rows` are all its test rows."""

    name: str
    num_rows: int
    figures: SliceFigures


def calls_view(run_dir: str, predictions: pd.DataFrame | None, config: Mapping[str, Any], show_text: bool) -> View:
    """What the template shows of the labelled test rows in `predictions`, by the run's embeddings where these are still there.

    Args:
        run_dir: run folder.
        predictions: predictions.parquet's rows; None where there are none.
        config: all fields of the run's config, dotted.
        show_text: whether words of the listed calls go with them.

    Raises:
        RequestError: the embeddings cannot be read.
    """
    if predictions is None or predictions.empty:
        return {}
    embeddings = RunFolder(run_dir).embeddings
    traits = read_part(embeddings, lambda place: read_traits(place, predictions))
    costly = (predictions["urgency"] == HIGH) & (predictions["urgency_pred"] == LOW)
    view: View = {"errors": _errors(predictions, traits), "num_errors": int(costly.sum())}
    if show_text and view["errors"]:
        ids = [error["example_id"] for error in view["errors"]]
        view["texts"] = read_part(embeddings, lambda place: read_words(place, ids)) or {}
    if traits is not None:
        view |= _slices_view(predictions, traits, config)
    return view


def coverage_view(run_dir: str) -> View:
    """What the template shows of the calls of each region; empty where no call names one, or all the same."""
    regions = read_part(RunFolder(run_dir).embeddings, read_regions)
    if regions is None or len(regions) < 2:
        return {}
    rows = []
    for region, (embedded, rejected) in zip(regions.index, regions.to_numpy().tolist(), strict=True):
        low, high = wilson(rejected, embedded + rejected)
        rows.append({"region": region, "embedded": embedded, "rejected": rejected, "interval": (low, high)})
    return {"regions": rows}


def _errors(predictions: pd.DataFrame, traits: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The rows of 상 that are called 하, those first of which the model is surest."""
    lengths = pd.Series(np.nan, range(len(predictions))) if traits is None else traits["duration_sec"]
    rows = predictions.reset_index(drop=True).assign(duration_sec=lengths.to_numpy(np.float64))
    costly = rows[(rows["urgency"] == HIGH) & (rows["urgency_pred"] == LOW)]
    listed = costly.sort_values("prob_low", ascending=False, kind="stable").head(TOP_ERRORS)
    return [
        {
            "example_id": row.example_id,
            "probs": [getattr(row, f"prob_{key}") for key in URGENCY_KEYS],
            "duration_sec": row.duration_sec,
        }
        for row in listed.itertuples()
    ]


def _slices_view(predictions: pd.DataFrame, traits: pd.DataFrame, config: Mapping[str, Any]) -> View:
    truth, called = (predictions[name].to_numpy(np.int64) for name in ("urgency", "urgency_pred"))
    groups = group_examples(traits[["call_id", "audio_sha256"]])
    settings: Any = {"num_resamples": config["train.bootstrap_samples"], "seed": config["split.seed"]}
    tables, num_left_out, num_scored = {}, 0, 0
    for kind, slices in slice_rows(traits).items():
        found = []
        for key, inside in slices.items():
            figures = slice_figures(truth, called, groups, inside, **settings)
            if figures is not None:
                found.append(SliceRow(_slice_name(kind, key), int(inside.sum()), figures))
            else:
                num_left_out += bool(inside.any())
        if len(found) > 1:
            tables[say(SLICED_BY[kind])] = found
            num_scored += len(found)
    if not tables:
        return {}
    worse = [f"{title}: {row.name}" for title, rows in tables.items() for row in rows if row.figures.is_worse]
    return {
        "slices": tables,
        "num_slices": num_scored,
        "worse_slices": worse,
        "num_small_slices": num_left_out,
        "least_slice": LEAST_GROUPS,
    }


def _slice_name(kind: str, key: Any) -> str:
    if kind == "region":
        return str(key)
    if kind == "speaker":
        return say("the caller") if key == CALLER else say("the dispatcher")
    if kind == "clipped":
        return say("reaches full scale") if key else say("stays below full scale")
    low, high = key
    if kind == "duration_sec":
        return say("%(low)s to %(high)s", low=words.duration(low), high=words.duration(high))
    if kind == "level_db":
        return say("%(low)s to %(high)s", low=f"{low:.1f}".replace("-", "−"), high=f"{high:.1f} dB".replace("-", "−"))
    return say("%(low)s to %(high)s", low=words.share(low), high=words.share(high))
