"""metrics.json and tune/metrics.json as version 0.2.0 wrote them are read, and written again key by key."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from urgency_ray import storage
from urgency_ray.errors import RequestError
from urgency_ray.run_folder import read_json, write_json
from urgency_ray.scoring.blocks import Metrics, SearchSummary

CLASS_ROW = {"precision": 0.75, "recall": 0.6, "f1": 0.6667, "support": 5}
POOLED = {
    "num_rows": 15,
    "accuracy": 0.6,
    "macro_f1": 0.6667,
    "macro_f1_interval": [0.4, 0.9],
    "per_class": {"하": CLASS_ROW, "중": CLASS_ROW, "상": CLASS_ROW},
    "confusion": [[3, 1, 1], [1, 3, 1], [1, 1, 3]],
    "quadratic_kappa": 0.4,
    "ordinal_mae": 0.6,
    "recall_high": 0.6,
    "high_called_low": 0.2,
    "expected_calibration_error": 0.05,
}
URGENCY = POOLED | {"expected_calibration_error_uncalibrated": 0.09, "temperature": 1.4}
# Of a class without rows, and of a task whose classes have no order.
UNDEFINED = URGENCY | {"quadratic_kappa": None, "recall_high": None, "high_called_low": None}
SENTIMENT = UNDEFINED | {
    "per_class": {"불안/걱정": CLASS_ROW, "당황/난처": CLASS_ROW},
    "confusion": [[3, 2], [2, 3]],
    "ordinal_mae": None,
}
METRICS = {
    "splits": {"val": {"urgency": UNDEFINED, "sentiment": SENTIMENT}, "test": {"urgency": URGENCY, "sentiment": SENTIMENT}},
    "warnings": ["possible leak: 3 of 342 test rows have the same audio as a row of train or val; their scores flatter"],
    "ablation": {"fused": URGENCY, "audio": URGENCY, "text": UNDEFINED},
    "folds": {"each": [{"num_rows": 15, "macro_f1": 0.61}], "macro_f1_mean": 0.61, "macro_f1_std": 0.02, "pooled": POOLED},
}
SEARCH = {
    "study": "search-0f3a",
    "num_trials": 30,
    "completed": 20,
    "stopped": 9,
    "failed": 1,
    "best_trial": 17,
    "best": {"train.learning_rate": 0.0003, "model.hidden_dim": 256, "sampler.name": "weighted", "train.clip_norm": None},
    "best_score": 0.7,
    "val": URGENCY,
    "test": URGENCY,
    "selection_optimism": 0.0333,
    "defaults": {"val": URGENCY, "test": URGENCY},
    "difference": {"macro_f1": 0.01, "interval": [-0.02, 0.04], "verdict": "not_better"},
    "wall_sec": 912.25,
    "seed": 0,
}


def dump(tree: Any) -> Any:
    return json.dumps(tree, ensure_ascii=False, indent=1)


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        (Metrics, METRICS),
        (Metrics, {"splits": {"val": {"urgency": URGENCY}, "test": {"urgency": URGENCY}}, "warnings": []}),
        (SearchSummary, SEARCH),
    ],
)
def test_what_version_0_2_0_wrote_survives_the_trip_byte_by_byte(tmp_path: Path, kind: type[BaseModel], tree: Any) -> None:
    location = str(tmp_path / "figures.json")
    storage.write_text(location, dump(tree))
    write_json(location, read_json(location, kind, "run it again"))
    assert storage.read_text(location) == dump(tree)


def test_a_figure_that_is_not_defined_is_null_and_one_that_nobody_worked_out_is_absent() -> None:
    metrics = Metrics.model_validate_json(dump(METRICS))
    assert metrics.splits["val"]["urgency"].recall_high is None
    assert metrics.folds is not None
    assert metrics.folds.pooled.temperature is None
    written = metrics.model_dump(exclude_unset=True)
    assert written["splits"]["val"]["urgency"]["recall_high"] is None
    assert "temperature" not in written["folds"]["pooled"]


def test_more_than_is_known_is_passed_over() -> None:
    more = json.loads(dump(METRICS)) | {"cost": {"majority": {"macro_f1": 0.2}}}
    more["splits"]["test"]["urgency"]["cost"] = 0.3
    assert Metrics.model_validate_json(dump(more)) == Metrics.model_validate_json(dump(METRICS))


def test_what_is_read_cannot_be_changed() -> None:
    metrics = Metrics.model_validate_json(dump(METRICS))
    with pytest.raises(ValueError, match="frozen"):
        metrics.splits["test"]["urgency"].macro_f1 = 1.0


def change(tree: Any, path: Any, value: Any = None) -> Any:
    """A copy of the tree with another value at the dotted path, or without it."""
    tree = json.loads(dump(tree))
    *above, last = path.split(".")
    inner = tree
    for name in above:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return tree


@pytest.mark.parametrize(
    ("kind", "tree", "said"),
    [
        (Metrics, change(METRICS, "splits.test.urgency.macro_f1"), "splits.test.urgency.macro_f1 is missing"),
        (Metrics, change(METRICS, "splits"), "splits is missing"),
        (Metrics, change(METRICS, "splits.val"), "splits: val is missing"),
        (Metrics, change(METRICS, "splits.test.urgency"), "splits.test: urgency is missing"),
        (
            Metrics,
            change(METRICS, "splits.test.urgency.per_class", {"low": CLASS_ROW, "mid": CLASS_ROW, "high": CLASS_ROW}),
            "splits.test: urgency.per_class: must be of 하, 중, 상 in this order",
        ),
        (
            Metrics,
            change(METRICS, "ablation.audio.confusion", [[3, 1], [1, 3]]),
            "ablation.audio: confusion: must have a row and a column for each of the 3 classes of per_class",
        ),
        (
            Metrics,
            change(METRICS, "folds.each", [{"num_rows": "15", "macro_f1": 0.6}]),
            "folds.each.0.num_rows: Input should be a valid integer",
        ),
        (SearchSummary, change(SEARCH, "test.macro_f1_interval", [0.4]), "test.macro_f1_interval.1 is missing"),
        (SearchSummary, change(SEARCH, "difference.verdict", "perhaps"), "difference.verdict: Input should be 'better', "),
        (SearchSummary, METRICS, "study is missing"),
    ],
)
def test_another_version_s_file_is_one_line_that_names_file_and_field(tmp_path: Path, kind: Any, tree: Any, said: str) -> None:
    location = str(tmp_path / "metrics.json")
    storage.write_text(location, dump(tree))
    with pytest.raises(RequestError) as caught:
        read_json(location, kind, "run train again")
    text = str(caught.value)
    assert text.startswith(f"{location}: cannot be read: {said}")
    assert text.endswith("it is damaged or another version's: run train again")
    assert "\n" not in text
