"""Several classifiers as one: its probabilities are the weighted mean of theirs.

Shapes: B examples, R embedding rows, C classes, K members, as in `model.classifier`.
"""

# No `from __future__ import annotations`: the Hub's mixin reads the types of __init__ to decode config.json.
import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from urgency_ray import __version__
from urgency_ray.config import ModelConfig
from urgency_ray.model.batch import Batch
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.merged import MergedMembers, Said
from urgency_ray.model.saved import TASKS, SavedModel


class MemberConfig(BaseModel):
    """A member of an ensemble.

    Attributes:
        model: its sizes, trunk and modalities.
        fold: number of the fold that it was not trained on, from 0.
        weight: its share of the ensemble's probabilities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig
    fold: int = Field(ge=0)
    weight: float = Field(ge=0.0, le=1.0)


class EnsembleConfig(BaseModel):
    """The members of an ensemble, at least one, of weights that sum to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: tuple[MemberConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        total = sum(member.weight for member in self.members)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"the members' weights must sum to 1 but sum to {total:g}")
        return self


class UrgencyEnsemble(
    SavedModel,
    ModelHubMixin,
    library_name="urgency_ray",
    coders={EnsembleConfig: (lambda config: config.model_dump(mode="json"), EnsembleConfig.model_validate)},
):
    """Class probabilities that are the weighted mean of its members', each of which is calibrated on its own fold.

    An average of models that err in different ways errs less than they do in the mean (Krogh and Vedelsby 1995).

    Args:
        ensemble: its members.
        audio_dim, text_dim, with_sentiment, transform, architecture, num_layers, urgency_ray_version: of each member, as
            `UrgencyClassifier` takes them; a member without that head has no say on sentiment.

    Attributes:
        members: the K classifiers.
    """

    def __init__(
        self,
        ensemble: EnsembleConfig,
        audio_dim: int,
        text_dim: int,
        with_sentiment: bool = False,
        transform: dict[str, Any] | None = None,
        *,
        architecture: dict[str, Any] | None = None,
        num_layers: dict[str, int] | None = None,
        urgency_ray_version: str = __version__,
    ) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.transform = transform or {}
        options: dict[str, Any] = {"architecture": architecture, "num_layers": num_layers}
        self.members = nn.ModuleList(
            UrgencyClassifier(
                member.model, audio_dim, text_dim, with_sentiment and not member.model.is_fitted, transform, **options
            )
            for member in ensemble.members
        )
        self.widths = {"audio": audio_dim, "text": text_dim}
        self._merged: MergedMembers | None = None

    @classmethod
    def of(cls, members: Sequence[UrgencyClassifier], folds: Sequence[int], weights: Sequence[float]) -> Self:
        """An ensemble of trained models of the same data, the fold that each was not trained on, and their weights."""
        parts = zip(members, folds, weights, strict=True)
        config = EnsembleConfig(
            members=tuple(MemberConfig(model=model.config, fold=fold, weight=weight) for model, fold, weight in parts)
        )
        first, with_sentiment = members[0], any(model.sentiment is not None for model in members)
        audio_dim, text_dim = first.widths["audio"], first.widths["text"]
        options: dict[str, Any] = {"architecture": first.architecture, "num_layers": first.num_layers}
        ensemble = cls(config, audio_dim, text_dim, with_sentiment, first.transform, **options)
        ensemble.members = nn.ModuleList(members)
        ensemble.tokenizer = next((model.tokenizer for model in members if model.tokenizer is not None), None)
        return ensemble.eval()

    @property
    def reads(self) -> bool:
        """Whether a member uses words."""
        return any(bool(member.reads) for member in self.members)

    @property
    def config(self) -> ModelConfig:
        """The first member's: what all have in common can be read there."""
        return self.ensemble.members[0].model

    @property
    def width(self) -> int:
        """The first member's, as `UrgencyClassifier.width`."""
        return next(iter(self._classifiers())).width

    @property
    def reads_tokens(self) -> bool:
        """Whether a text encoder is part of one of the members."""
        return any(member.reads_tokens for member in self._classifiers())

    @property
    def takes_calls(self) -> bool:
        """Whether an example is a call of several utterances."""
        return any(member.takes_calls for member in self._classifiers())

    @property
    def layer_weights(self) -> dict[str, list[float]]:
        """The mean over the members, as much as each counts, of `UrgencyClassifier.layer_weights`."""
        told: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for share, member in zip((member.weight for member in self.ensemble.members), self._classifiers(), strict=True):
            for name, weights in member.layer_weights.items():
                told.setdefault(name, []).append((torch.tensor([share]), torch.tensor([weights])))
        return {name: _mean(parts).tolist() for name, parts in told.items()}

    @property
    def num_folds(self) -> int:
        """Folds that its members were trained on."""
        return 1 + max(member.fold for member in self.ensemble.members)

    def held_out(self, fold: int) -> Self:
        """The ensemble of those members that have not seen the rows of a fold, at its temperature; they share their weights."""
        kept = [place for place, member in enumerate(self.ensemble.members) if member.fold == fold]
        shares = [self.ensemble.members[place].weight for place in kept]
        total = sum(shares)
        classifiers = list(self._classifiers())
        part = self.of([classifiers[place] for place in kept], [fold] * len(kept), [share / total for share in shares])
        part.temperature.copy_(self.temperature)
        return part

    def explain(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        """Logarithms of the mean probabilities, which are logits, and of hierarchical members the mean weights (R,)."""
        told: dict[str, list[tuple[Tensor, Tensor]]] = {}
        weights: list[tuple[Tensor, Tensor]] = []
        members = list(self._classifiers())
        for said in self._hear_members(members, batch):
            shares = torch.tensor([self.ensemble.members[place].weight for place in said.places], device=self.device)
            temperatures = torch.stack([members[place].temperature for place in said.places])
            for task, logits in said.logits.items():
                temperature = temperatures[:, TASKS.index(task), None, None]
                told.setdefault(task, []).append((shares, (logits.float() / temperature).softmax(dim=-1)))
            if said.weights is not None:
                weights.append((shares, said.weights))
        return {task: _mean(values).log() for task, values in told.items()}, _mean(weights) if weights else None

    def _hear_members(self, members: Sequence[UrgencyClassifier], batch: Batch) -> Iterable[Said]:
        """What the members say: of those that can be merged at once, unless they are trained, of others one by one."""
        alone = [*range(len(members))]
        if not self.training and not torch.is_grad_enabled():
            if self._merged is None or not self._merged.is_current(members):
                self._merged = MergedMembers(members)
            if (said := self._merged.explain(batch)) is not None:
                yield from said
                alone = self._merged.others
        for place in alone:
            logits, attended = members[place].explain(batch)
            stacked = {task: values.unsqueeze(0) for task, values in logits.items()}
            yield Said([place], stacked, None if attended is None else attended.unsqueeze(0))

    def _classifiers(self) -> Iterable[UrgencyClassifier]:
        # nn.ModuleList knows no type of its modules.
        return (member for member in self.members if isinstance(member, UrgencyClassifier))


def describe_members(ensemble: UrgencyEnsemble) -> str:
    """How many members there are of each kind, and what they count together, in words."""
    shares: dict[str, list[float]] = {}
    for member in ensemble.ensemble.members:
        shares.setdefault(member.model.name, []).append(member.weight)
    return ", ".join(f"{len(weights)} members {name} of weight {sum(weights):.2f}" for name, weights in shares.items())


def _mean(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean (...) of values (K, ...), weighted by shares (K,) that are scaled so as to sum to 1, both given in parts."""
    shares, values = (torch.cat(part) for part in zip(*parts, strict=True))
    shares = (shares / shares.sum()).view(-1, *[1] * (values.dim() - 1))
    return (values * shares).sum(dim=0)
