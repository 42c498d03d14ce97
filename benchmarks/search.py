"""The search against plain Optuna, its overhead a trial, its rate, and TPE against random search.

    python benchmarks/search.py [--part target overhead sampler] [--seeds 3]

A fixed set of synthetic embeddings: urgency depends on both modalities and on their product, and a share of the labels is
wrong. Both sides search the same space over the same rows on all cores; the same point, the config's own, is the first.

- target: wall-clock until the best validation macro-F1 that plain Optuna (its default TPE, one trial after the other, none
  stopped, `fit` called directly with all cores) reaches in 30 trials. Ours: `tune`, from the call to the end of the first trial
  that is as good, trials in processes of one core each; a search that never gets there counts as never.
- overhead: seconds between the ends of two trials that run one at a time, less those of the same training called directly on
  one core, and trials a minute at one and at two at a time. The first trials of each process do not count.
- sampler: area under the best-so-far curve (mean over the trials of the best validation macro-F1 until then) of the engine's
  TPE and of random search, equal budgets, five seeds.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from corpus import timed
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from urgency_ray import cluster
from urgency_ray.commands.interchange import import_artefacts
from urgency_ray.commands.tune import tune
from urgency_ray.config import Config
from urgency_ray.search.space import SearchSpace
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import Epoch, fit
from urgency_ray.training.run import open_run

NUM_ROWS, DIM = 12_000, 96
PLAIN_TRIALS, OUR_TRIALS = 30, 120
SAMPLER_SEEDS, SAMPLER_TRIALS, SAMPLER_STARTUP = 5, 24, 8
OVERHEAD_TRIALS, WARM_UP = 14, 3

SPACE: dict[str, Any] = {
    "loss_mixture": {"type": "simplex", "fields": ["loss.kl_weight", "loss.focal_weight", "loss.cross_entropy_weight"]},
    "model.hidden_dim": {"type": "categorical", "choices": [32, 64, 128]},
    "model.num_layers": {"type": "int", "low": 1, "high": 2},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "sampler.power": {"type": "float", "low": 0.0, "high": 1.0},
    "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "train.weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
}
BASE: dict[str, Any] = {
    # 6,000 rows, and the whole set has more: of 800, chance would pick the best of good trials.
    "split.val_fraction": 0.5,
    "model.hidden_dim": 64,
    "model.num_layers": 1,
    "model.num_heads": 4,
    "model.feedforward_dim": 128,
    "train.epochs": 27,
    "train.early_stop_epochs": None,
    "train.batch_size": 128,
    "train.bootstrap_samples": 100,
    "tune.grace_epochs": 3,
    "tune.space": SPACE,
}


def write_embeddings(run_dir: str) -> None:
    """A run folder of synthetic embeddings, by way of `import`."""
    rng = np.random.default_rng(0)
    audio, text = (rng.normal(size=(NUM_ROWS, DIM)).astype(np.float32) for _ in range(2))
    heard, read = (values[:, :8].sum(axis=1) / math.sqrt(8) for values in (audio, text))
    urge = heard + read + heard * read + rng.normal(scale=0.5, size=NUM_ROWS)
    urgency = np.digitize(urge, np.quantile(urge, (0.45, 0.8)))
    wrong = rng.random(NUM_ROWS) < 0.1
    urgency[wrong] = rng.integers(0, 3, int(wrong.sum()))
    with tempfile.TemporaryDirectory() as folder:
        metadata, embeddings = f"{folder}/metadata.csv", f"{folder}/embeddings.npz"
        names = [f"row-{index:05}" for index in range(NUM_ROWS)]
        pd.DataFrame({"file_id": names, "text": names, "urgency_y": urgency}).to_csv(metadata, index=False)
        np.savez(embeddings, audio=audio, text=text)
        import_artefacts(Config(), metadata, embeddings, run_dir)


def train_once(config: Config, data: TrainingData) -> float:
    """Best validation macro-F1 of a training, called directly."""
    scores: list[float] = []

    def note(epoch: Epoch) -> None:
        scores.append(epoch.metrics["best_val_macro_f1"])

    fit(config, data, note)
    return scores[-1]


def search_plainly(config: Config, data: TrainingData, sampler: Any, num_trials: int) -> optuna.Study:
    """Optuna's own loop around `train_once`, the config's own point first."""
    space = SearchSpace(config.tune.space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(space.locate(config))
    study.optimize(lambda trial: train_once(config.replace(space(trial)), data), n_trials=num_trials)
    return study


def run_engine(config: Config, run_dir: str) -> list[tuple[datetime, float]]:
    """When each trial of a `tune` ended, and its best validation macro-F1, in the order of their ends."""
    journal = Path(run_dir, "tune", "study.log")
    journal.unlink(missing_ok=True)
    tune(config, run_dir)
    ended = []
    storage = JournalStorage(JournalFileBackend(str(journal)))
    for name in optuna.get_all_study_names(storage):
        for trial in optuna.load_study(study_name=name, storage=storage).trials:
            seen = [*trial.intermediate_values.values(), *(trial.values or [])]
            if trial.datetime_complete is not None:  # else asked for in advance, and never begun
                ended.append((trial.datetime_complete, max(seen, default=-math.inf)))
    assert len(ended) == config.tune.num_trials
    return sorted(ended)


def compare_to_target(config: Config, data: TrainingData, run_dir: str, num_seeds: int) -> None:
    """Part (a)."""
    ratios = []
    for seed in range(num_seeds):
        torch.set_num_threads(os.cpu_count() or 1)
        started = datetime.now()
        study = search_plainly(config, data, optuna.samplers.TPESampler(seed=seed), PLAIN_TRIALS)
        plain_sec = (datetime.now() - started).total_seconds()
        assert study.best_trial.datetime_complete is not None
        reached = (study.best_trial.datetime_complete - started).total_seconds()
        print(
            f"seed {seed}: plain reaches {study.best_value:.4f} after {reached:.1f} s, in trial {study.best_trial.number + 1} "
            f"of {PLAIN_TRIALS}, which take {plain_sec:.1f} s",
            flush=True,
        )
        started = datetime.now()
        ended = run_engine(config.replace({"tune.num_trials": OUR_TRIALS, "tune.seed": seed}), run_dir)
        ours = next(((end - started).total_seconds() for end, score in ended if score >= study.best_value), math.inf)
        ratios.append(ours / reached)
        best, all_sec = max(score for _, score in ended), (ended[-1][0] - started).total_seconds()
        print(
            f"seed {seed}: ours after {ours:.1f} s, ratio {ratios[-1]:.2f}; best {best:.4f} of {OUR_TRIALS} in {all_sec:.1f} s",
            flush=True,
        )
    print(f"target: ours / plain {statistics.median(ratios):.2f}, median of {num_seeds} seeds")


def measure_overhead(config: Config, data: TrainingData, run_dir: str) -> None:
    """Parts (b) and (c): all trials are the same training, none is stopped."""
    same = {
        "train.epochs": 4,
        "tune.grace_epochs": 4,
        "tune.space": {"model.dropout": {"type": "categorical", "choices": [0.4]}},
    }
    config = config.replace({**same, "tune.num_trials": OVERHEAD_TRIALS})
    torch.set_num_threads(1)
    direct = statistics.median([timed(lambda: train_once(config, data)) for _ in range(OVERHEAD_TRIALS)][WARM_UP:])
    print(f"direct: {direct:.2f} s a training on one core")
    for at_once in (1, 2):
        ends = [end for end, _ in run_engine(config.replace({"tune.max_concurrent": at_once}), run_dir)]
        gaps = [(after - before).total_seconds() for before, after in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]
        rate = 60 * len(gaps) / sum(gaps)
        print(f"{at_once} at a time: {rate:.1f} trials a minute, {rate * direct / 60:.2f} of one core's direct calls", end="")
        print(f"; overhead {statistics.median(gaps) - direct:.2f} s a trial (median)" if at_once == 1 else "")


def compare_samplers(config: Config, data: TrainingData) -> None:
    """Part (d)."""
    torch.set_num_threads(1)
    config = config.replace({"train.epochs": 6})

    def tpe(seed: int) -> Any:
        # As tune's engine sets it up.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=SAMPLER_STARTUP, multivariate=True, constant_liar=True)

    samplers: dict[str, Callable[[int], Any]] = {"tpe": tpe, "random": lambda seed: optuna.samplers.RandomSampler(seed=seed)}
    areas: dict[str, list[float]] = {name: [] for name in samplers}
    for seed in range(SAMPLER_SEEDS):
        for name, make in samplers.items():
            study = search_plainly(config, data, make(seed), SAMPLER_TRIALS)
            areas[name].append(float(np.maximum.accumulate([trial.values[0] for trial in study.trials]).mean()))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in areas.items()), flush=True)
    means = {name: statistics.mean(values) for name, values in areas.items()}
    wins = sum(ours > theirs for ours, theirs in zip(areas["tpe"], areas["random"], strict=True))
    print(f"area under best-so-far: tpe {means['tpe']:.4f}, random {means['random']:.4f}; higher on {wins} of {SAMPLER_SEEDS}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", nargs="+", choices=("target", "overhead", "sampler"), default=("target", "overhead", "sampler")
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the target part")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with tempfile.TemporaryDirectory() as run_dir:
        write_embeddings(run_dir)
        config, examples, splits = open_run(Config().replace(BASE), run_dir)
        data = TrainingData.from_examples(examples, splits)
        cluster.connect(config.ray)
        if "target" in options.part:
            compare_to_target(config, data, run_dir, options.seeds)
        if "overhead" in options.part:
            measure_overhead(config, data, run_dir)
        if "sampler" in options.part:
            compare_samplers(config, data)


if __name__ == "__main__":
    main()
