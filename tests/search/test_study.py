"""The journal and the tables, without a cluster."""

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.run_folder import SearchFolder
from urgency_ray.search.journal import open_journal
from urgency_ray.search.space import SearchSpace
from urgency_ray.search.study import begin_study, history_table, trials_table

SPACE = {
    "model.urgency_head": {"type": "categorical", "choices": ["softmax", "corn"]},
    "loss.corn_weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"model.urgency_head": "corn"}},
}
CONFIG = Config().replace({"tune.space": SPACE})


def run_trial(study: Any, head: Any, scores: Any, state: Any) -> None:
    study.enqueue_trial({"model.urgency_head": head})
    trial = study.ask()
    SearchSpace(CONFIG.tune.space)(trial)
    for epoch in range(1, len(scores) + 1):
        trial.report(max(scores[:epoch]), epoch)
    trial.set_user_attr("val_macro_f1", scores)
    trial.set_user_attr("seconds", 2.5)
    trial.set_user_attr("started", 1_750_000_000.0)
    study.tell(trial, max(scores) if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])


def begin(folder: Any, **options: Any) -> Any:
    with open_journal(SearchFolder(str(folder))) as journal:
        return begin_study(journal, CONFIG, "digest", run_dir="run", **options)


def test_the_tables_of_a_search_without_trials_are_empty(tmp_path: Path) -> None:
    study = begin(tmp_path, resume=False)
    assert trials_table(study, CONFIG).empty
    assert history_table(study).empty


def test_the_tables_hold_each_trial_that_has_ended(tmp_path: Path) -> None:
    study = begin(tmp_path, resume=False)
    run_trial(study, "softmax", [0.2, 0.5, 0.4], "COMPLETE")
    run_trial(study, "corn", [0.3], "PRUNED")
    run_trial(study, "corn", [0.6], "FAIL")
    study.ask()
    table = trials_table(study, CONFIG)
    assert table["number"].tolist() == [0, 1, 2]
    assert table["state"].tolist() == ["completed", "stopped", "failed"]
    assert table["val_macro_f1"].tolist()[:2] == [0.5, 0.3]
    assert pd.isna(table["val_macro_f1"][2])
    assert table["epochs"].tolist() == [3, 1, 1]
    assert table["start"][0] == pd.Timestamp("2025-06-15T15:06:40Z")
    assert pd.isna(table["loss.corn_weight"][0])
    assert table["loss.corn_weight"][1] == study.trials[1].params["loss.corn_weight"]
    assert history_table(study).to_numpy().tolist() == [
        [0, 1, 0.2, 0.2],
        [0, 2, 0.5, 0.5],
        [0, 3, 0.4, 0.5],
        [1, 1, 0.3, 0.3],
        [2, 1, 0.6, 0.6],
    ]


def test_a_line_that_was_cut_is_no_obstacle(tmp_path: Path) -> None:
    study = begin(tmp_path, resume=False)
    run_trial(study, "softmax", [0.2], "COMPLETE")
    journal = tmp_path / "study.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker_')
    study = begin(tmp_path, resume=True)
    run_trial(study, "softmax", [0.3], "COMPLETE")
    assert journal.read_bytes().startswith(whole)
    assert [trial.value for trial in begin(tmp_path, resume=True).trials] == [0.2, 0.3]


def test_a_journal_behind_a_uri_is_published_and_read_back(tmp_path: Path) -> None:
    folder = SearchFolder(f"file://{tmp_path}/tune")
    with open_journal(folder) as journal:
        study = begin_study(journal, CONFIG, "digest", resume=False, run_dir="run")
        run_trial(study, "softmax", [0.2], "COMPLETE")
        assert not Path(tmp_path, "tune").exists()
        journal.publish()
        run_trial(study, "softmax", [0.3], "COMPLETE")
    with open_journal(folder) as journal:
        assert [trial.value for trial in begin_study(journal, CONFIG, "digest", resume=True, run_dir="run").trials] == [0.2]


def test_a_search_that_has_ended_leaves_room_for_another_beside_it(tmp_path: Path) -> None:
    first = begin(tmp_path, resume=False)
    with pytest.raises(RequestError, match="has not ended; go on with it by --resume"):
        begin(tmp_path, resume=False)
    first.set_user_attr("ended", True)
    second = begin(tmp_path, resume=False)
    assert second.study_name != first.study_name
    assert begin(tmp_path, resume=True).study_name == second.study_name
    with pytest.raises(RequestError, match="has not ended"):
        begin(tmp_path, resume=False)


def test_one_word_begins_a_search_and_goes_on_with_it(tmp_path: Path) -> None:
    first = begin(tmp_path, resume="auto")
    assert begin(tmp_path, resume="auto").study_name == first.study_name
    first.set_user_attr("ended", True)
    assert begin(tmp_path, resume="auto").study_name == first.study_name


def test_a_search_of_an_older_version_goes_on_and_one_of_a_newer_does_not(tmp_path: Path) -> None:
    study = begin(tmp_path, resume=False)
    settings = dict(study.user_attrs["settings"])
    del settings["train.precision"]  # as if it had come later
    study.set_user_attr("settings", settings)
    assert begin(tmp_path, resume=True).study_name == study.study_name
    study.set_user_attr("version", "99.0")
    with pytest.raises(RequestError, match=r"--resume: urgency_ray 99\.0 began this search, this is .*: update$"):
        begin(tmp_path, resume=True)
