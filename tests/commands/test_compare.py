"""`urgency-ray compare` on runs that are made here: figures by hand, whose calls they are, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from predicted_runs import TRUTH, make_run
from sklearn.metrics import f1_score

from urgency_ray import cli, storage
from urgency_ray.commands.compare import compare
from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.report.compared import compare_runs, disagreements
from urgency_ray.schema import PREDICTION_SCHEMA

CONFIG = Config().replace({"train.bootstrap_samples": 100})


def refused(*runs: str) -> str:
    with pytest.raises(RequestError) as caught:
        compare_runs(runs, CONFIG)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_figures_are_of_the_common_test_calls_alone(tmp_path: Path) -> None:
    # The second run tests call3 to call8: three are common, and it has learnt from call0.
    first = make_run(tmp_path / "first", [0, 0, 1, 0, 2, 0])
    ids = ["call3", "call4", "call5", "call6", "call7", "call8", "call0"]
    splits = ["test"] * 6 + ["train"]
    second = make_run(tmp_path / "second", [1, 2, 2, 0, 0, 0, 0], truth=[1, 2, 2, 0, 0, 0, 0], ids=ids, split=splits)
    found = compare_runs([first, second], CONFIG)
    assert list(found.keys.index) == ["call3", "call4", "call5"]
    truth = [1, 2, 2]
    assert found.blocks[0].macro_f1 == pytest.approx(f1_score(truth, [0, 2, 0], average="macro", zero_division=0))
    assert found.differences[0]["macro_f1"].difference == pytest.approx(found.blocks[1].macro_f1 - found.blocks[0].macro_f1)
    assert found.differences[0]["high_called_low"].difference == pytest.approx(-0.5)
    assert [row.example_id for row in disagreements(found)] == ["call3", "call5"]


def test_the_page_and_the_table_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_run(tmp_path / "a", [0, 0, 1, 1, 0, 2], fields={"model.hidden_dim": 256, "data.root": "s3://bucket/calls"})
    second = make_run(tmp_path / "b", [0, 0, 1, 1, 2, 2], fields={"model.hidden_dim": 512, "data.root": "/home/me/calls2"})
    third = make_run(tmp_path / "c", [0, 0, 1, 1, 1, 2], epochs=1)
    assert cli.main(["compare", first, second, third, "--output", str(tmp_path / "page.html")]) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not (tmp_path / "a" / "compare.html").exists()
    lines = [line.split() for line in shown.splitlines()]
    assert ["common", "to", "all", "6", "6", "6"] in lines
    assert ["model.hidden_dim", "256", "512", "768"] in lines
    assert "calls2" in page and "/home" not in page and "bucket" not in page
    assert "called differently: 1 of 6 common calls" in shown
    assert [line[:2] for line in lines if line and line[0] == "call4"] == [["call4", "상"]]
    for text in (shown, page):
        assert "b is no better beyond noise than a" in text
        assert "0.822" in text  # macro-F1 of a: F1 of 0.8, 1 and 0.667
    assert page.count('<svg class="chart"') == 2 and "<script" not in page


def test_the_surest_disagreements_come_first(tmp_path: Path) -> None:
    called = {"a": [0, 0, 1, 1, 2, 2], "b": [1, 0, 1, 0, 2, 2]}
    first, second = (make_run(tmp_path / name, classes) for name, classes in called.items())
    for run, unsure in ((first, [0.5, 0.3, 0.2]), (second, [0.3, 0.5, 0.2])):
        rows = _rows(run)
        rows[0] |= dict(zip(("prob_low", "prob_mid", "prob_high"), unsure, strict=True))
        storage.write_table(f"{run}/predictions.parquet", pa.Table.from_pylist(rows).cast(PREDICTION_SCHEMA))
    assert [row.example_id for row in disagreements(compare_runs([first, second], CONFIG))] == ["call3", "call0"]


def _rows(run: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(f"{run}/predictions.parquet").to_pylist()
    return rows


def test_runs_without_an_answer_to_the_question_are_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TRUTH)
    assert refused(run) == "compare: takes two run folders or more but got 1"
    assert refused(run, f"{run}/") == f"{run}/: given twice; a run beside itself says nothing"
    assert refused(run, str(tmp_path / "nothing")) == f"{tmp_path}/nothing: not a run folder (it has no config.yaml)"
    storage.write_text(str(tmp_path / "extracted/config.yaml"), Config().to_yaml())
    assert refused(run, str(tmp_path / "extracted")).startswith(f"{tmp_path}/extracted: holds no predictions.parquet; train")
    trained = make_run(tmp_path / "trained", TRUTH, split="train")
    assert refused(run, trained) == f"{trained}: its predictions.parquet holds no labelled test call"
    other = make_run(tmp_path / "other", TRUTH, ids=[f"other{number}" for number in range(6)])
    assert refused(run, other) == f"{other}: has no test call in common with run"
    both = make_run(
        tmp_path / "both",
        [*TRUTH, 0],
        truth=[*TRUTH, 0],
        ids=[f"call{n}" for n in range(6)] + ["x"],
        split=["train"] * 6 + ["test"],
    )
    assert refused(run, both).startswith(f"{both}: has no test call in common with run: they are in its train or val")
    classes = make_run(tmp_path / "classes", TRUTH, truth=[0, 0, 1, 1, 2, 3])
    assert "classes/predictions.parquet: is of other classes: must be 0 to 2 (하, 중, 상) but got 3" in refused(run, classes)
    relabelled = make_run(tmp_path / "relabelled", TRUTH, truth=[1, 1, 2, 2, 0, 0])
    assert refused(run, relabelled) == f"{relabelled}: gives each of the 6 common test calls another urgency"
    storage.write_text(f"{other}/predictions.parquet", "no parquet")
    assert refused(run, other).startswith(f"{other}/predictions.parquet: cannot be read")


def test_predictions_of_other_columns_are_refused(tmp_path: Path) -> None:
    run, other = (make_run(tmp_path / name, TRUTH) for name in ("run", "other"))
    storage.write_table(f"{other}/predictions.parquet", pa.Table.from_pylist(_rows(other)).drop_columns(["prob_mid"]))
    assert refused(run, other) == f"{other}/predictions.parquet: cannot be read: it has no column prob_mid"


def test_calls_whose_label_differs_are_left_out_and_counted(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", TRUTH)
    second = make_run(tmp_path / "b", TRUTH, truth=[0, 0, 1, 1, 2, 0])
    found = compare_runs([first, second], CONFIG)
    assert (found.num_relabelled, len(found.truth)) == (1, 5)
    assert "1 more are in all tests" in Path(compare(CONFIG, [first, second])).read_text(encoding="utf-8")


def test_calls_of_the_same_audio_are_drawn_together(tmp_path: Path) -> None:
    # All common calls have one recording: a single group, whose interval is a point.
    first, second = (make_run(tmp_path / name, called) for name, called in (("a", [0] * 6), ("b", TRUTH)))
    apart = compare_runs([first, second], CONFIG).differences[0]["accuracy"].interval
    assert apart[0] < apart[1]
    rows = {"call_id": [f"call{number}" for number in range(6)], "audio_sha256": ["same"] * 6}
    storage.write_table(f"{first}/embeddings/status=embedded/part.parquet", pa.table(rows))
    together = compare_runs([first, second], CONFIG).differences[0]["accuracy"]
    assert together.interval == pytest.approx((together.difference, together.difference))


def test_runs_may_be_uris_and_names_tell_them_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (make_run(tmp_path / name / "run", TRUTH) for name in ("a", "b"))
    assert cli.main(["compare", f"file://{first}", second]) == 0
    assert "a/run  b/run" in capsys.readouterr().out
    assert (tmp_path / "a" / "run" / "compare.html").exists()
    assert cli.main(["compare", first, "s3://KEY:SECRET@bucket/run"]) == 2
    assert "SECRET@" not in capsys.readouterr().err
