"""A config's model as a whole, one classifier or an ensemble: what must be trained for it, and what comes of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from urgency_ray.config import Config
from urgency_ray.examples.dataset import Examples, Splits
from urgency_ray.examples.splits import val_folds
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.ensemble import UrgencyEnsemble, describe_members
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.load import Model
from urgency_ray.scoring.blocks import SplitBlocks, UrgencyBlocks
from urgency_ray.scoring.scores import score_splits
from urgency_ray.training.data import TrainingData
from urgency_ray.training.members import (
    Probabilities,
    all_validated,
    cross_predict,
    join_members,
    member_configs,
    member_jobs,
)
from urgency_ray.training.shared import SharedData, SharedInputs
from urgency_ray.training.trainer import Job, Trained

log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """A model, the splits as they are scored, their blocks, and its P(urgency class) of each example, (N, C)."""

    model: Model
    splits: Splits
    blocks: SplitBlocks
    probs: NDArray[np.float32]

    @property
    def called(self) -> NDArray[np.int64]:
        """The class that it gives to each example, (N,)."""
        return np.asarray(self.probs.argmax(axis=1), np.int64)

    def urgency(self) -> UrgencyBlocks:
        """The blocks that a search is judged by."""
        return UrgencyBlocks(val=self.blocks["val"]["urgency"], test=self.blocks["test"]["urgency"])


def member_folds(config: Config, examples: Examples, splits: Splits) -> list[Splits]:
    """The splits that the members of an ensemble are trained on; none where the model is one classifier.

    Raises:
        RequestError: there are too few calls for so many.
    """
    members = config.train.members
    return [] if members is None else val_folds(examples, splits, config.split, members, "train.members")


@dataclass(frozen=True)
class Whole:
    """The rows that a model is made of.

    Attributes:
        config: its train section says whether it is an ensemble.
        examples: all rows of the run.
        splits: as they are scored: in an ensemble each row of train and val is in both.
        folds: as `member_folds` gives them.
        data: what is trained on, here and for the workers: the model's own, or that of each fold.
    """

    config: Config
    examples: Examples
    splits: Splits
    folds: list[Splits]
    data: list[tuple[TrainingData, SharedData]]

    @classmethod
    def of(cls, config: Config, examples: Examples, splits: Splits, inputs: SharedInputs) -> Whole:
        """Share what the workers need of a run's rows."""
        folds = member_folds(config, examples, splits)
        data = [TrainingData.from_examples(examples, part) for part in folds or [splits]]
        shared = [(part, inputs.share(part)) for part in data]
        return cls(config, examples, all_validated(splits) if folds else splits, folds, shared)

    def jobs(self, name: str, config: Config, linear_c: float | None = None) -> list[Job]:
        """What to train for the model `name`, of this config or a variant of it; `linear_c` as `member_jobs` takes it."""
        return member_jobs(name, config, self.data, linear_c) if self.folds else [Job(name, config, *self.data[0])]

    def kinds(self, name: str, trained: list[Trained]) -> dict[str, list[UrgencyClassifier]]:
        """The members of the ensemble that came of the jobs of `name`, one a fold, by kind: its own go by that name."""
        names = [name, *list(member_configs(self.config))[1:]]
        size = len(self.folds)
        return {kind: [one.model for one in trained[size * place : size * (place + 1)]] for place, kind in enumerate(names)}

    def judge(self, name: str, trained: list[Trained]) -> Judged:
        """Make one model of what came of the jobs of `name`, and score it."""
        if self.folds:
            return self.score(name, join_members(trained, self.examples, self.folds))
        (one,) = trained
        best = max(one.history, key=lambda row: row.val_score)
        words = f"the best is of validation macro-F1 {best.val_macro_f1:.3f}, epoch {best.epoch}"
        log.info("%s: %d epochs, %s", name, len(one.history), words)
        return self._judge(one.model, predict_examples(one.model, self.examples))

    def score(self, name: str, ensemble: UrgencyEnsemble) -> Judged:
        """Score an ensemble whose members were trained on these folds."""
        log.info("%s: %s", name, describe_members(ensemble))
        return self._judge(ensemble, cross_predict(ensemble, self.examples, self.folds))

    def _judge(self, model: Model, probabilities: Probabilities) -> Judged:
        num_resamples, seed = self.config.train.bootstrap_samples, self.config.split.seed
        blocks = score_splits(model, probabilities, self.examples, self.splits, num_resamples=num_resamples, seed=seed)
        return Judged(model, self.splits, blocks, probabilities["urgency"])
