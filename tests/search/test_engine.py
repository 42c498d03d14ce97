"""The engine's bookkeeping, without a cluster: what Ray Tune would tell it, told by hand."""

import warnings

import pytest

from urgency_ray.config import Config
from urgency_ray.search.engine import StudySearch, build_sampler, rebuild_scheduler
from urgency_ray.search.space import SearchSpace
from urgency_ray.search.study import begin_study, history_table, open_journal, trials_table

CONFIG = Config().replace(
    {
        "tune.space": {"model.dropout": {"type": "float", "low": 0.0, "high": 0.9}},
        "train.epochs": 27,
        "tune.grace_epochs": 1,
        "tune.reduction_factor": 3,
    }
)


@pytest.fixture
def journal(tmp_path):
    with open_journal(str(tmp_path)) as journal:
        yield journal


def make_search(journal, resume=False):
    study = begin_study(journal, CONFIG, "digest", resume=resume, run_dir="run")
    return study, StudySearch(SearchSpace(CONFIG.tune.space), study, build_sampler(CONFIG, study), journal)


def row(epoch, score, best, **more):
    return {"epoch": epoch, "val_macro_f1": score, "best_val_macro_f1": best, "finished": False, "started": 5.0} | more


def test_each_end_of_a_trial_has_its_state_and_keeps_its_epochs(journal):
    study, search = make_search(journal)
    for name in "abcd":
        search.suggest(name)
    search.on_trial_result("a", row(1, 0.5, 0.5))
    search.on_trial_complete("a", row(2, 0.4, 0.5, finished=True, seconds=3.0))
    search.on_trial_complete("b", row(1, 0.3, 0.3))
    search.on_trial_result("c", row(1, 0.6, 0.6))
    search.on_trial_complete("c", {"epoch": 1, "best_val_macro_f1": 0.6, "finished": True, "failed": "the loss is nan"})
    search.on_trial_complete("d", error=True)
    table = trials_table(study, CONFIG)
    assert table["state"].tolist() == ["completed", "stopped", "failed", "failed"]
    assert table["val_macro_f1"].tolist()[:2] == [0.5, 0.3]
    assert table["val_macro_f1"][2:].isna().all()
    assert table["epochs"].tolist() == [2, 1, 1, 0]
    assert table["seconds"][0] == 3.0
    assert study.trials[2].user_attrs["failed"] == "the loss is nan"
    assert history_table(study)["best_val_macro_f1"].tolist() == [0.5, 0.5, 0.3, 0.6]


def test_a_trial_that_starts_again_in_another_process_is_counted_once(journal):
    study, search = make_search(journal)
    search.suggest("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in (1, 2, 1, 2):
            search.on_trial_result("a", row(epoch, 0.1 * epoch, 0.1 * epoch))
        search.on_trial_complete("a", row(3, 0.3, 0.3, finished=True))
    assert history_table(study)["epoch"].tolist() == [1, 2, 3]
    assert len(study.trials) == 1


def test_what_a_dead_driver_had_begun_goes_on_in_its_place_with_its_values(journal):
    _, search = make_search(journal)
    points = [search.suggest(name) for name in "ab"]
    search.on_trial_complete("a", row(1, 0.5, 0.5, finished=True))
    search.on_trial_result("b", row(1, 0.2, 0.2))
    study, search = make_search(journal, resume=True)
    assert search.suggest("x") == points[1]
    assert search.suggest("y") not in points
    search.on_trial_complete("x", row(1, 0.2, 0.2, finished=True))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]


def test_trials_that_the_time_budget_cut_are_ended_as_stopped(journal):
    study, search = make_search(journal)
    search.suggest("a")
    search.suggest("b")
    search.on_trial_result("a", row(1, 0.5, 0.5))
    search.close()
    table = trials_table(study, CONFIG)
    assert table["state"].tolist() == ["stopped", "stopped"]
    assert table["val_macro_f1"][0] == 0.5
    assert table["epochs"].tolist() == [1, 0]
    assert study.user_attrs["seconds"] >= 0


def test_asha_goes_on_with_the_rungs_that_the_study_s_trials_have_reached(journal):
    study, search = make_search(journal)
    for number in range(9):
        name = f"t{number}"
        search.suggest(name)
        search.on_trial_complete(name, row(1, 0.1 * number, 0.1 * number))

    class Trial:
        trial_id = "new"

    decisions = []
    for score in (0.5, 0.7):
        scheduler = rebuild_scheduler(CONFIG, study)
        scheduler.on_trial_add(None, Trial)
        decisions.append(scheduler.on_trial_result(None, Trial, row(1, score, score)))
    # One in three goes on: of 0 to 0.8, the upper third begins at 0.533.
    assert decisions == ["STOP", "CONTINUE"]
