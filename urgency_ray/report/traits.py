"""What a run's embeddings say of its calls beside the vectors: region, length, who speaks, how the recording is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from urgency_ray.examples.dataset import open_rows
from urgency_ray.schema import CALLER, DISPATCHER, Status

SOUND = ("speech_ratio", "energy_mean", "peak_amp")
COLUMNS = ("example_id", "call_id", "region", "duration_sec", *SOUND, "speaker", "audio_sha256")
CLIPPED_PEAK = 0.999
"""A recording whose largest sample is this near to full scale is taken for clipped."""
MAX_REGIONS = 20
NUM_BINS = 3


def read_traits(embeddings: str, test: pd.DataFrame) -> pd.DataFrame:
    """Traits of the rows of `test` (example_id, call_id), in its order; NaN, or None, where a row or a column is not there.

    Where an example is a call of several rows, its length is that of its rows together, its sound their mean by length, and
    `caller_share` the caller's share of that length.
    """
    dataset = open_rows(embeddings)
    names = [name for name in COLUMNS if name in dataset.schema.names]
    wanted = (pc.field("status") == Status.EMBEDDED) & pc.field("call_id").isin(test["call_id"].unique().tolist())
    rows = dataset.to_table(columns=names, filter=wanted).to_pandas().reindex(columns=list(COLUMNS))
    by_row = rows.drop_duplicates("example_id").set_index("example_id")
    if not test["example_id"].isin(by_row.index).any():
        by_row = _by_call(rows)
    found = by_row.reindex(test["example_id"]).reset_index(drop=True)
    return found.assign(call_id=test["call_id"].to_numpy())


def _by_call(rows: pd.DataFrame) -> pd.DataFrame:
    weights = rows["duration_sec"].fillna(0.0)
    call = rows["call_id"]
    total = weights.groupby(call).sum()
    found = rows.groupby("call_id").agg({"region": "first", "audio_sha256": "first", "peak_amp": "max"})
    for name in ("speech_ratio", "energy_mean"):
        found[name] = (rows[name] * weights).groupby(call).sum() / total
    said = weights.where(rows["speaker"] == CALLER, 0.0).groupby(call).sum() / total
    known = rows["speaker"].notna().groupby(call).any()
    return found.assign(duration_sec=total, caller_share=said.where(known))


def read_words(embeddings: str, example_ids: Collection[str]) -> dict[str, str]:
    """The transcripts of some examples; of a call of several rows, those of all its rows."""
    ids = list(example_ids)
    dataset = open_rows(embeddings)
    wanted = pc.field("example_id").isin(ids) | pc.field("call_id").isin(ids)
    rows = dataset.to_table(columns=["example_id", "call_id", "text"], filter=wanted).sort_by("example_id").to_pylist()
    said: dict[str, str] = {}
    for row in rows:
        key = row["example_id"] if row["example_id"] in ids else row["call_id"]
        said[key] = " ".join(part for part in (said.get(key), row["text"]) if part)
    return said


def read_regions(embeddings: str) -> pd.DataFrame:
    """Calls embedded and rejected by region, those of most calls first; a call counts as embedded where one of its rows is."""
    dataset = open_rows(embeddings)
    if "region" not in dataset.schema.names:
        return pd.DataFrame(columns=["embedded", "rejected"])
    rows = dataset.to_table(columns=["call_id", "region", "status"], filter=pc.field("region").is_valid())
    # In Arrow: a run of utterances has millions of rows.
    embedded = pc.equal(rows["status"].cast(pa.string()), Status.EMBEDDED.value)
    calls = rows.append_column("embedded", embedded).group_by("call_id").aggregate([("region", "min"), ("embedded", "any")])
    counted = calls.group_by("region_min").aggregate([("embedded_any", "sum"), ("call_id", "count")]).to_pandas()
    counted = counted.sort_values(["call_id_count", "region_min"], ascending=[False, True]).set_index("region_min")
    embedded_calls = counted["embedded_any_sum"].astype(int)
    return pd.DataFrame({"embedded": embedded_calls, "rejected": counted["call_id_count"].astype(int) - embedded_calls})


def slice_rows(traits: pd.DataFrame) -> dict[str, dict[Any, NDArray[np.bool_]]]:
    """Slices by what they are by: region, speaker, and thirds of length, caller's share and sound, as (from, to) in its unit.

    A trait that no row has, or that is the same in all, makes no slices. `level_db` is the mean energy in dB of full scale.
    """
    with np.errstate(divide="ignore"):
        level = 10.0 * np.log10(traits["energy_mean"].to_numpy(np.float64))
    measured = {
        "duration_sec": traits["duration_sec"].to_numpy(np.float64),
        "speech_ratio": traits["speech_ratio"].to_numpy(np.float64),
        "level_db": np.where(np.isfinite(level), level, np.nan),
    }
    if "caller_share" in traits:
        measured["caller_share"] = traits["caller_share"].to_numpy(np.float64)
    speaker = traits.get("speaker", pd.Series(np.nan, traits.index))
    regions = traits["region"].value_counts().index[:MAX_REGIONS]
    found: dict[str, dict[Any, NDArray[np.bool_]]] = {
        "region": {region: (traits["region"] == region).to_numpy(bool) for region in sorted(regions)},
        "speaker": {who: (speaker == who).to_numpy(bool) for who in (DISPATCHER, CALLER)},
        **{name: _thirds(values) for name, values in measured.items()},
        "clipped": _clipped(traits["peak_amp"].to_numpy(np.float64)),
    }
    return {name: slices for name, slices in found.items() if sum(rows.any() for rows in slices.values()) > 1}


def _thirds(values: NDArray[np.float64]) -> dict[tuple[float, float], NDArray[np.bool_]]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    edges = np.unique(np.quantile(known, np.linspace(0, 1, NUM_BINS + 1)))
    bins = np.digitize(values, edges[1:-1], right=True)
    ends = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return {pair: (bins == index) & np.isfinite(values) for index, pair in enumerate(ends)}


def _clipped(peaks: NDArray[np.float64]) -> dict[bool, NDArray[np.bool_]]:
    known = np.isfinite(peaks)
    return {clipped: known & ((peaks >= CLIPPED_PEAK) == clipped) for clipped in (False, True)}
