"""Whatever a run folder holds is read whole, or refused in one line that names file and field."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from urgency_ray import storage
from urgency_ray.errors import RequestError
from urgency_ray.report.files import read_files

EPOCH = {
    "modalities": "fused",
    "epoch": 1,
    "train_loss": 1.1,
    "val_loss": 1.0,
    "val_macro_f1": 0.5,
    "val_accuracy": 0.55,
    "val_score": 0.5,
    "learning_rate": 1e-3,
    "seconds": 2.0,
}
TRIAL = {"number": 0, "state": "completed", "val_macro_f1": 0.5, "epochs": 4, "seconds": 2.0, "train.learning_rate": 1e-3}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A run folder of which training and search have left a file each."""
    storage.write_text(str(tmp_path / "config.yaml"), "train: {epochs: 4}\n")
    storage.write_text(str(tmp_path / "history.json"), json.dumps([EPOCH]))
    storage.write_table(str(tmp_path / "tune/trials.parquet"), pa.Table.from_pylist([TRIAL]))
    return tmp_path


def test_what_is_there_is_read_and_what_is_not_is_none(run: Any) -> None:
    files = read_files(str(run))
    assert files.config == {"train": {"epochs": 4}}
    assert files.history is not None
    (epoch,) = files.history
    assert (epoch.epoch, epoch.val_macro_f1, epoch.val_sentiment_macro_f1) == (1, 0.5, None)
    assert files.search.trials == [TRIAL]
    absent = (files.ceiling, files.extract, files.metrics, files.predictions, files.search.metrics, files.search.best)
    assert absent == (None,) * 6
    assert files.there == [str(run / name) for name in ("config.yaml", "history.json", "tune/trials.parquet")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("history.json", [EPOCH, {"model": "fused"}], "1.modalities is missing.*: run train again"),
        ("history.json", [EPOCH | {"epoch": None}], "0.epoch: Input should be a valid integer.*: run train again"),
        ("metrics.json", {"test": {}}, "splits is missing.*: run train again"),
        ("extract.json", {"rows_embedded": 5}, "calls_read is missing.*: remove it and run extract again"),
        ("ceiling.json", {"audio": "high"}, "audio: Input should be a valid number.*: run demo again"),
        ("tune/metrics.json", {"best_score": 0.5}, "study is missing.*: run tune again"),
    ],
)
def test_another_version_s_json_is_one_line_that_names_file_and_field(run: Any, name: str, content: Any, said: str) -> None:
    storage.write_text(str(run / name), json.dumps(content))
    with pytest.raises(RequestError, match=f"/{name}: cannot be read: {said}$") as caught:
        read_files(str(run))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        (
            "predictions.parquet",
            {"split": "test", "urgency": 1, "prob_low": 0.2},
            "example_id, call_id, urgency_pred, prob_mid, prob_high",
        ),
        ("tune/trials.parquet", {"number": 0, "state": "completed"}, "val_macro_f1, epochs, seconds"),
        ("tune/history.parquet", {"trial": 0, "epoch": 1}, "best_val_macro_f1"),
    ],
)
def test_another_version_s_table_is_one_line_that_names_file_and_columns(
    run: Any, name: str, row: dict[str, Any], said: str
) -> None:
    storage.write_table(str(run / name), pa.Table.from_pylist([row]))
    with pytest.raises(RequestError, match=f"/{name}: cannot be read: it has no column {said}$"):
        read_files(str(run))
