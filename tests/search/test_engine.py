"""The engine's bookkeeping: what Ray Tune, and trials, would tell it, told by hand."""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray

from urgency_ray.config import Config
from urgency_ray.run_folder import SearchFolder
from urgency_ray.search.callbacks import PlacementGroups
from urgency_ray.search.engine import build_sampler, rebuild_scheduler
from urgency_ray.search.journal import open_journal
from urgency_ray.search.searcher import StudySearch
from urgency_ray.search.space import SearchSpace
from urgency_ray.search.study import begin_study, history_table, trials_table
from urgency_ray.search.trial import Abandoned, Begun, Placed

CONFIG = Config().replace(
    {
        "tune.space": {"model.dropout": {"type": "float", "low": 0.0, "high": 0.9}},
        "train.epochs": 27,
        "tune.grace_epochs": 1,
        "tune.reduction_factor": 3,
    }
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Any]:
    with open_journal(SearchFolder(str(tmp_path))) as journal:
        yield journal


def make_search(journal: Any, resume: bool = False, config: Config = CONFIG) -> Any:
    study = begin_study(journal, config, "digest", resume=resume, run_dir="run")
    return study, StudySearch(SearchSpace(config.tune.space), study, build_sampler(config, study), journal)


def row(epoch: Any, score: Any, best: Any, **more: Any) -> Any:
    return {"epoch": epoch, "val_macro_f1": score, "best_val_macro_f1": best, "finished": False, "started": 5.0} | more


def test_each_end_of_a_trial_has_its_state_and_keeps_its_epochs(journal: Any) -> None:
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


def test_a_score_that_is_no_number_fails_its_trial(journal: Any) -> None:
    study, search = make_search(journal)
    for name, finished in (("a", True), ("b", False)):
        search.suggest(name)
        search.on_trial_result(name, row(1, 0.5, 0.5))
        search.on_trial_complete(name, row(2, math.nan, math.nan, finished=finished))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]
    assert trials_table(study, CONFIG)["val_macro_f1"].isna().all()


def test_one_trial_after_the_other_is_drawn_as_optuna_s_own_loop_draws_them(journal: Any) -> None:
    space = {
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "loss": {"type": "simplex", "fields": ["loss.kl_weight", "loss.focal_weight"]},
        "model.urgency_head": {"type": "categorical", "choices": ["softmax", "corn"]},
        "loss.corn_weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"model.urgency_head": "corn"}},
    }
    config = CONFIG.replace({"tune.space": space, "tune.startup_trials": 3, "tune.seed": 5})
    _, search = make_search(journal, config=config)
    alone = optuna.create_study(direction="maximize")
    alone.sampler = build_sampler(config, alone)
    found, expected = [], []
    for number in range(10):
        found.append(search.suggest(str(number)))
        trial = alone.ask()
        expected.append(SearchSpace(config.tune.space)(trial))
        score = abs(math.sin(7 * number))
        search.on_trial_complete(str(number), row(1, score, score, finished=True))
        alone.tell(trial, score)
    assert found == expected
    assert len({point["train.learning_rate"] for point in found}) == 10


def test_ray_tune_s_own_state_of_the_search_is_not_kept(journal: Any, tmp_path: Path) -> None:
    _, search = make_search(journal)
    search.suggest("a")
    (tmp_path / "state").mkdir()
    search.save_to_dir(str(tmp_path / "state"), "session")
    assert not list((tmp_path / "state").iterdir())


def test_a_trial_that_starts_again_in_another_process_is_counted_once(journal: Any) -> None:
    study, search = make_search(journal)
    search.suggest("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in (1, 2, 1, 2):
            search.on_trial_result("a", row(epoch, 0.1 * epoch, 0.1 * epoch))
        search.on_trial_complete("a", row(3, 0.3, 0.3, finished=True))
    assert history_table(study)["epoch"].tolist() == [1, 2, 3]
    assert len(study.trials) == 1


def test_what_a_dead_driver_had_begun_goes_on_in_its_place_with_its_values(journal: Any) -> None:
    _, search = make_search(journal)
    points = [search.suggest(name) for name in "ab"]
    search.on_trial_complete("a", row(1, 0.5, 0.5, finished=True))
    search.on_trial_result("b", row(1, 0.2, 0.2))
    study, search = make_search(journal, resume=True)
    assert search.suggest("x") == points[1]
    assert search.suggest("y") not in points
    search.on_trial_complete("x", row(1, 0.2, 0.2, finished=True))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]


def test_trials_that_the_time_budget_cut_are_ended_as_stopped(journal: Any) -> None:
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


def test_asha_goes_on_with_the_rungs_that_the_study_s_trials_have_reached(journal: Any) -> None:
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


def test_what_a_trial_s_workers_hold_is_freed_once_they_are_given_up(
    ray_session: None, caplog: pytest.LogCaptureFixture
) -> None:
    groups, held, other = PlacementGroups(), *(ray.util.placement_group([{"CPU": 1}]) for _ in range(2))
    try:
        ray.get([held.ready(), other.ready()], timeout=60)
        groups.note([Placed("a", held), Placed("b", other)])
        with caplog.at_level(logging.WARNING, "urgency_ray"):
            groups.note([Abandoned("a"), Abandoned("a")])
        assert wait_for_state(held, "REMOVED") == "REMOVED"
        assert wait_for_state(other, "CREATED") == "CREATED"
        assert set(caplog.messages) == {"warning: the workers of a trial that was over did not end within 60 s and are killed"}
    finally:
        groups.note([Placed("a", held), Placed("b", other)])
        groups.close()
    assert wait_for_state(other, "REMOVED") == "REMOVED"


def test_what_a_lost_process_is_found_to_have_held_only_later_is_freed_and_its_successor_s_is_not(ray_session: None) -> None:
    groups, late, held = PlacementGroups(), *(ray.util.placement_group([{"CPU": 1}]) for _ in range(2))
    try:
        ray.get([late.ready(), held.ready()], timeout=60)
        groups.note([Begun("a")])
        groups.on_trial_recover(1, [], SimpleNamespace(trial_id="a"))
        groups.note([Placed("a", late), Begun("a"), Placed("a", held)])
        assert wait_for_state(late, "REMOVED") == "REMOVED"
        assert wait_for_state(held, "CREATED") == "CREATED"
    finally:
        groups.note([Placed("a", late)])
        groups.close()
        ray.util.remove_placement_group(held)


def wait_for_state(group: Any, state: Any) -> Any:
    """The placement group's state, once it is `state` or after a while."""
    deadline = time.monotonic() + 30
    while (found := ray.util.placement_group_table(group)["state"]) != state and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
