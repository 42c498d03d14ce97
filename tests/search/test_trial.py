"""A trial's rows and its end, without a cluster."""

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from fitting import SMALL

from urgency_ray.config import Config
from urgency_ray.search.trial import METRIC, Abandoned, DistributedTrial, trial_config, trial_rows
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import fit

TRIAL = SMALL | {"train.epochs": 6, "train.early_stop_epochs": 2}

pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(size: int = 160) -> TrainingData:
    rng = np.random.default_rng(0)
    urgency = rng.integers(0, 3, size)
    audio = (urgency[:, None] + 2.5 * rng.standard_normal((size, 6))).astype(np.float32)
    text = rng.standard_normal((size, 5)).astype(np.float32)
    acoustic = rng.standard_normal((size, 5)).astype(np.float32)
    rows = np.arange(size)
    return TrainingData(audio, text, acoustic, urgency, np.full(size, -1), rows[40:], rows[:40])


def scores_alone(config: Config, data: TrainingData) -> Any:
    """Macro-F1 of each epoch of a training that nothing interrupts."""
    scores = []
    fit(config, data, lambda epoch: scores.append(epoch.metrics["val_macro_f1"]))
    return scores


def test_folds_and_seeds_go_on_together_and_each_trains_as_it_would_alone() -> None:
    config, data = Config().replace(TRIAL | {"tune.repeats": 2, "train.seed": 3}), make_data()
    rows = np.arange(160)
    parts = [(rows[40:], rows[:40]), (rows[:120], rows[120:])]
    found = list(trial_rows(config, data, parts, None))
    alone = [
        scores_alone(
            config.replace({"train.seed": seed}),
            TrainingData(data.audio, data.text, data.acoustic, data.urgency, data.sentiment, *part),
        )
        for part in parts
        for seed in (3, 4)
    ]
    assert len({len(scores) for scores in alone}) > 1, "they stop early at different epochs"
    assert [row["epoch"] for row in found] == list(range(1, max(map(len, alone)) + 1))
    for row in found:
        until = [scores[: row["epoch"]] for scores in alone]
        assert row["val_macro_f1"] == pytest.approx(np.mean([scores[-1] for scores in until]))
        assert row[METRIC] == pytest.approx(np.mean([max(scores) for scores in until]))
        assert row["spread"] == pytest.approx(np.std([max(scores) for scores in until], ddof=1))
    assert [row["finished"] for row in found] == [False] * (len(found) - 1) + [True]


def test_a_loss_that_overflows_ends_the_trial_with_its_reason() -> None:
    data = make_data()
    config = Config().replace(TRIAL | {"train.learning_rate": 1e30, "train.clip_norm": None})
    *_, last = trial_rows(config, data, [(data.train, data.val)], None)
    assert last["finished"]
    assert "loss is nan; try a lower train.learning_rate" in last["failed"]


def test_a_trial_sees_the_batches_of_all_the_winner_s_workers() -> None:
    base = Config().replace({"train.num_workers": 4, "train.batch_size": 8})
    config = trial_config({"model.dropout": 0.3}, base)
    assert (config.train.num_workers, config.train.batch_size, config.model.dropout) == (1, 32, 0.3)
    two = trial_config({}, base.replace({"tune.workers_per_trial": 2}))
    assert (two.train.num_workers, two.train.batch_size) == (2, 16)


class Ending(DistributedTrial):
    """A trial of two workers that has come to its end; `told` is what its workers are told, `sent` what the driver is."""

    trial_id = "t1"
    num_workers = 2

    def __init__(self, training: Any) -> None:
        self.training: Any = training
        self.told: list[bool] = []
        self.sent: list[object] = []
        self.wanted = self  # type: ignore[assignment]

    def send(self, message: object, wait_sec: float = 0.0) -> None:
        assert wait_sec > 0, "the process ends after it"
        self.sent.append(message)

    def put_nowait_batch(self, answers: Any) -> None:
        self.told += answers


def test_a_trial_whose_workers_do_not_end_is_given_up_after_a_while() -> None:
    trial = Ending(Future())
    trial.cleanup(end_sec=0.01)
    assert trial.told == [False, False]
    assert trial.sent == [Abandoned("t1")]


@pytest.mark.parametrize("error", [None, RuntimeError("a worker was lost")])
def test_a_trial_whose_workers_end_says_nothing(error: Any) -> None:
    trial = Ending(Future())
    end = trial.training.set_result if error is None else trial.training.set_exception
    threading.Timer(0.05, end, [error]).start()
    trial.cleanup(end_sec=60)
    assert trial.training.done()
    assert trial.told == [False, False]
    assert trial.sent == []
