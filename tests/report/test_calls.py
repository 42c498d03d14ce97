"""What the page says of single calls and of kinds of calls, by embeddings that are made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score
from test_page import CALL_ID, Page, keep_only, make_run

from urgency_ray import storage
from urgency_ray.config import ReportConfig
from urgency_ray.report.page import write_report
from urgency_ray.report.traits import read_traits, slice_rows
from urgency_ray.scoring.slices import slice_figures

SECRET = "여기 불이 났어요"


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("full"))


def add_embeddings(run: Path, **columns: Any) -> pd.DataFrame:
    """Rows for the test calls of a run, a tenth of them rejected in one of two regions; returns the embedded ones."""
    ids = [f"{CALL_ID}-{index}" for index in range(342)]
    rows = pd.DataFrame(
        {
            "example_id": ids,
            "call_id": [f"{CALL_ID}{index}" for index in range(342)],
            "region": ["서울"] * 300 + ["광주"] * 12 + ["대구"] * 30,
            "text": [f"{SECRET} {index}" for index in range(342)],
            "duration_sec": np.arange(342, dtype=np.float32) + 10,
            "speech_ratio": np.linspace(0.2, 0.9, 342, dtype=np.float32),
            "energy_mean": np.full(342, 0.01, np.float32),
            "peak_amp": np.full(342, 0.5, np.float32),
            "speaker": pa.nulls(342, pa.int8()).to_pylist(),
            "audio_sha256": ids,
            **columns,
        }
    )
    storage.write_table(str(run / "embeddings/status=embedded/part.parquet"), pa.Table.from_pandas(rows, preserve_index=False))
    rejected = pa.table({"example_id": ["x", "y"], "call_id": ["x", "y"], "region": ["광주", "광주"], "text": [SECRET, None]})
    storage.write_table(str(run / "embeddings/status=rejected/part.parquet"), rejected)
    return rows


@pytest.fixture
def run(full_run: Path, tmp_path: Path) -> Path:
    return keep_only(full_run, tmp_path, "metrics.json", "predictions.parquet", "extract.json")


def page_of(run: Path, **settings: Any) -> Page:
    return Page(Path(write_report(str(run), ReportConfig(**settings))).read_text(encoding="utf-8"))


def scored_rows(run: Path) -> pd.DataFrame:
    rows = pq.read_table(run / "predictions.parquet").to_pandas()
    return rows[rows["split"] == "test"].reset_index(drop=True)


def test_the_costliest_errors_are_listed_with_their_length_those_first_that_are_surest(run: Path) -> None:
    rows = add_embeddings(run)
    test = scored_rows(run).merge(rows[["example_id", "duration_sec"]], on="example_id")
    costly = test[(test["urgency"] == 2) & (test["urgency_pred"] == 0)].sort_values("prob_low", ascending=False)
    assert len(costly) > 3
    text = page_of(run).text
    places = []
    for row in costly.head(30).itertuples():
        length = f"{row.duration_sec:.1f} s" if row.duration_sec < 60 else f"{row.duration_sec / 60:.1f} min"
        line = f"{row.example_id} {row.prob_low:.2f} {row.prob_mid:.2f} {row.prob_high:.2f} {length}"
        assert line in text
        places.append(text.index(line))
    assert places == sorted(places)
    right = test[test["urgency"] == test["urgency_pred"]]["example_id"].iloc[0]
    assert f"{right} " not in text


def test_words_are_shown_only_where_they_are_asked_for(run: Path) -> None:
    add_embeddings(run)
    text = page_of(run).text
    assert SECRET not in text and "holds no transcript" in text and "--report.show_text true" in text
    shown = page_of(run, show_text=True).text
    test = scored_rows(run)
    costly = test[(test["urgency"] == 2) & (test["urgency_pred"] == 0)]["example_id"]
    assert shown.count(SECRET) == min(len(costly), 30)
    assert f"{SECRET} {costly.iloc[0].rpartition('-')[2]}" in shown
    assert "This page holds what was said in some calls" in shown and "holds no transcript" not in shown


def test_without_embeddings_the_errors_stand_without_a_length(run: Path) -> None:
    page = page_of(run)
    assert "errors" in page.ids and "slices" not in page.ids
    assert "Who is covered" not in page.text


def test_regions_are_covered_by_counts_of_calls(run: Path) -> None:
    add_embeddings(run)
    # 2 of 14: Wilson's interval, (c ± s) / (n + z²) with c = 2 + z²/2 and s = z sqrt(2 * 12 / 14 + z²/4).
    assert "광주 12 2 14.3 % 4.0 % to 39.9 %" in page_of(run).text
    assert "서울 300 0 0.0 % 0.0 % to 1.3 %" in page_of(run).text


def test_slices_have_the_figures_of_their_rows_and_small_ones_are_left_out(run: Path) -> None:
    add_embeddings(run)
    page = page_of(run)
    test = scored_rows(run)
    truth, called = test["urgency"].to_numpy(), test["urgency_pred"].to_numpy()
    # Twelve calls of 광주 are too few; all recordings are as loud, and none is clipped.
    assert "Of 8 comparisons" in page.text and "That left out 1." in page.text
    assert "Level of the recording" not in page.text and "Clipping" not in page.text
    seoul = f1_score(truth[:300], called[:300], average="macro")
    assert f"서울 300 {seoul:.3f}" in page.text
    # Thirds of the length: 114 rows each, as they stand.
    for start in (0, 114, 228):
        rows = slice(start, start + 114)
        assert f"114 {f1_score(truth[rows], called[rows], average='macro'):.3f}" in page.text


def test_a_slice_that_is_worse_is_named(run: Path) -> None:
    add_embeddings(run)
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    test = np.flatnonzero(table["split"] == "test")
    table.loc[test[:228], "urgency_pred"] = table.loc[test[:228], "urgency"]
    table.loc[test[228:], "urgency_pred"] = (table.loc[test[228:], "urgency"] + 1) % 3
    storage.write_table(str(run / "predictions.parquet"), pa.Table.from_pandas(table, preserve_index=False))
    text = page_of(run).text
    # Rows 228 to 341 last 238 to 351 s; all of 대구 is among them.
    assert "Worse beyond noise: Region: 대구; Length: 4.0 min to 5.8 min; Share of the recording that is speech: 66." in text


def test_a_slice_beside_the_rest_is_that_of_a_loop_over_resampled_groups() -> None:
    rng = np.random.default_rng(0)
    truth, groups, inside = rng.integers(0, 3, 240), np.repeat(np.arange(80), 3), np.arange(240) % 2 == 0
    called = np.where(rng.random(240) < np.where(inside, 0.5, 0.7), truth, rng.integers(0, 3, 240))
    found = slice_figures(truth, called, groups, inside, num_resamples=2000, seed=0)
    assert found is not None and found.difference is not None
    assert found.macro_f1 == pytest.approx(f1_score(truth[inside], called[inside], average="macro"))
    assert found.difference == pytest.approx(found.macro_f1 - f1_score(truth[~inside], called[~inside], average="macro"))
    assert (found.num_rows, found.num_high) == (120, (truth[inside] == 2).sum())
    assert found.recall_high == pytest.approx((called[inside & (truth == 2)] == 2).mean())
    drawn = []
    for _ in range(250):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 80, 80)])
        scores = [f1_score(truth[part], called[part], average="macro") for part in (rows[inside[rows]], rows[~inside[rows]])]
        drawn.append(scores[0] - scores[1])
    assert found.difference_interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.05)
    assert slice_figures(truth, called, groups, groups < 29, num_resamples=100, seed=0) is None


def test_a_call_of_several_rows_is_as_long_as_they_are_and_knows_the_caller_s_share(tmp_path: Path) -> None:
    rows = {
        "example_id": ["a-0", "a-1", "b-0"],
        "call_id": ["a", "a", "b"],
        "region": ["서울", "서울", None],
        "duration_sec": [1.0, 3.0, 2.0],
        "speech_ratio": [0.2, 0.6, 0.5],
        "energy_mean": [0.1, 0.1, 0.2],
        "peak_amp": [0.3, 1.0, 0.4],
        "speaker": pa.array([0, 1, None], pa.int8()),
    }
    storage.write_table(str(tmp_path / "status=embedded/part.parquet"), pa.table(rows))
    test = pd.DataFrame({"example_id": ["b", "a", "lost"], "call_id": ["b", "a", "lost"]})
    traits = read_traits(str(tmp_path), test)
    assert traits["duration_sec"].tolist()[:2] == [2.0, 4.0]
    assert traits["caller_share"].tolist()[1] == 0.75 and traits["caller_share"].isna().tolist() == [True, False, True]
    assert traits["speech_ratio"].tolist()[:2] == pytest.approx([0.5, 0.5])
    slices = slice_rows(traits)
    assert set(slices) == {"duration_sec", "level_db", "clipped"}
    clipped = {key: inside.tolist() for key, inside in slices["clipped"].items()}
    assert clipped == {False: [True, False, False], True: [False, True, False]}
    by_row = read_traits(str(tmp_path), pd.DataFrame({"example_id": ["a-1", "a-0"], "call_id": ["a", "a"]}))
    assert by_row["duration_sec"].tolist() == [3.0, 1.0]
    assert {who: rows.tolist() for who, rows in slice_rows(by_row)["speaker"].items()} == {0: [False, True], 1: [True, False]}
