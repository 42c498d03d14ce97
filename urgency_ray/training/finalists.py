"""The models that a search ends with: the winner, the config's own values, and a mixture of theirs and other trials'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urgency_ray.config import Config
from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.fingerprint import Transform
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.scoring.blocks import AgainstBaseline, Difference, Finalist, SearchEnsemble
from urgency_ray.scoring.scores import compare_called
from urgency_ray.training.baselines import compare, fit_baselines, penalty
from urgency_ray.training.epoch_progress import Told
from urgency_ray.training.members import member_configs
from urgency_ray.training.mixture import Library, choose_beyond_noise
from urgency_ray.training.shared import SharedInputs
from urgency_ray.training.trainer import Trained, train_models
from urgency_ray.training.whole import Judged, Whole


@dataclass(frozen=True)
class Finalists:
    """What came of the configs that a search ends with.

    Attributes:
        winner: the model of the best trial.
        found: the model to keep: the winner or, where `tune.ensemble` asks for it, the best of the three on unseen rows.
        defaults: that of the config's own values; `found`'s equal where the winner is that config.
        difference: of the test macro-F1 of the two.
        against: `found` beside the best baseline; None where none was asked for.
        ensemble: what is said of the mixture; None where none was asked for.
    """

    winner: Judged
    found: Judged
    defaults: Judged
    difference: Difference
    against: AgainstBaseline | None
    ensemble: SearchEnsemble | None


def train_finalists(
    configs: Mapping[str, Config],
    mixed: Mapping[str, Config],
    run_dir: str,
    *,
    examples: Examples,
    splits: Splits,
    inputs: SharedInputs,
    told: Told | None = None,
) -> Finalists:
    """Train, as `train` does, the models that a search ends with, and score each of them once on test.

    Args:
        configs: `winner`, and `defaults` where these are others.
        mixed: more configs, by name, whose members `tune.ensemble` mixes with theirs.
        run_dir: run folder.
        examples, splits: its rows.
        inputs: what the workers share.
        told: as `train_models` takes it.
    """
    first = configs["winner"]
    wants_baselines = first.train.baselines or any(config.train.linear_member for config in configs.values())
    baselines = fit_baselines(first, examples, splits) if wants_baselines else {}
    # Members that are fitted at once are nearly the same for several configs: the winner's stand for all in the mixture.
    alone = {"train.linear_member": False, "train.discriminant_member": False, "train.stacked_member": False}
    every = dict(configs) | {name: config.replace(alone) for name, config in mixed.items()}
    wholes = {name: Whole.of(config, examples, splits, inputs) for name, config in every.items()}
    jobs = {
        name: wholes[name].jobs(name, config, penalty(baselines, config.model.modalities)) for name, config in every.items()
    }
    transform = Transform.of(first, examples.fingerprint)
    ended = iter(train_models([job for group in jobs.values() for job in group], run_dir, transform, told))
    trained = {name: [next(ended) for _ in group] for name, group in jobs.items()}
    judged = {name: wholes[name].judge(name, trained[name]) for name in configs}
    found, defaults, ensemble = judged["winner"], judged.get("defaults", judged["winner"]), None
    if first.tune.ensemble is not None:
        library = Library(_candidates(wholes, trained), examples, wholes["winner"].folds, first.train.seed)
        model, shares = library.mix()
        mixed_model = wholes["winner"].score("ensemble", model)
        losses = _losses(library, first)
        ensemble = SearchEnsemble(
            # What the search began with is kept unless another is better beyond noise: the best of several is by luck, too.
            chosen=choose_beyond_noise(losses),
            shares=shares,
            log_loss={name: float(rows.mean()) for name, rows in losses.items()},
            test=mixed_model.urgency().test,
            against_winner=_difference(mixed_model, found, examples, first),
            against_defaults=_difference(mixed_model, defaults, examples, first),
        )
        found = {"ensemble": mixed_model, "winner": found, "defaults": defaults}[ensemble.chosen]
    against = compare(found.called, baselines, examples, splits, first) if first.train.baselines else None
    return Finalists(judged["winner"], found, defaults, _difference(found, defaults, examples, first), against, ensemble)


def _candidates(wholes: Mapping[str, Whole], trained: Mapping[str, list[Trained]]) -> dict[str, list[UrgencyClassifier]]:
    """The models of each kind, one a fold, by name; the first config's of a name that several have."""
    candidates: dict[str, list[UrgencyClassifier]] = {}
    for name, whole in wholes.items():
        candidates = whole.kinds(name, trained[name]) | candidates
    return candidates


def _losses(library: Library, config: Config) -> dict[Finalist, NDArray[np.float64]]:
    """The log loss of each unseen row by each config's own ensemble and the mixture, shares fitted without the row."""
    linear = [name for name in library.candidates if name in member_configs(config)]
    own = "defaults" if "defaults" in library.candidates else "winner"
    return {
        "defaults": library.log_losses([own, *linear]),
        "winner": library.log_losses(["winner", *linear]),
        "ensemble": library.log_losses(list(library.candidates), greedily=True),
    }


def _difference(found: Judged, other: Judged, examples: Examples, config: Config) -> Difference:
    """What a model's test macro-F1 is worth beside that of another."""
    if found is other:
        return Difference(macro_f1=0.0, interval=(0.0, 0.0), verdict="defaults")
    num_resamples, seed = config.train.bootstrap_samples, config.split.seed
    difference, interval = compare_called(
        found.called, other.called, examples, found.splits.test, num_resamples=num_resamples, seed=seed
    )
    return Difference(macro_f1=difference, interval=interval, verdict="better" if interval[0] > 0 else "not_better")
