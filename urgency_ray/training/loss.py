"""The training losses: UrgencySense's three (KL to ordinal soft labels, ordinal focal, class-weighted cross-entropy), CORN, the
squared earth mover's distance, and their mixture.

Each part of the loss is a quotient of two sums over rows, kept as (numerator, normaliser) to the end: data-parallel workers
that add up their normalisers first get the loss and the gradient of the global batch exactly. A mean of the workers' own means
would not be that, because each worker would divide by the class weights of its own rows.

Everywhere below: `logits` is (B, C), of B rows and C >= 2 classes, and p its softmax; `targets` is y, int64 (B,), 0 to C - 1 in
the natural order of the classes; `weights` is alpha, one number a class, (C,).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from urgency_ray.config import LossConfig

Counts = Sequence[int] | NDArray[np.integer[Any]]
"""Rows of each class in the training split, (C,)."""


def class_weights(counts: Counts, mode: Literal["balanced", "none"]) -> Tensor:
    """Weight of each class, float32 (C,): N / (C n_c), and 0 for a class without rows; mode `none` gives 1 to all.

    n_c >= 0 are the `counts` and N is their sum.
    """
    rows = torch.as_tensor(np.asarray(counts), dtype=torch.float64)
    if mode == "none":
        return torch.ones(len(rows))
    return torch.where(rows > 0, rows.sum() / (len(rows) * rows.clamp(min=1)), 0.0).float()


def ordinal_soft_labels(targets: Tensor, num_classes: int, mass: float) -> Tensor:
    """Distributions (B, C) that move `mass`, in [0, 1), of each row from its class to the neighbouring ones (UrgencySense).

    An inner class shares it equally between two neighbours; an outer class gives all of it to its only one.

    Raises:
        ValueError: a single class has no neighbour.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2 but got {num_classes}")
    distance = (torch.arange(num_classes, device=targets.device) - targets.unsqueeze(-1)).abs()
    neighbours = (distance == 1).float()
    return (distance == 0) * (1.0 - mass) + mass * neighbours / neighbours.sum(dim=-1, keepdim=True)


def kl_to_soft_labels(logits: Tensor, targets: Tensor, mass: float) -> Tensor:
    """KL divergence of each row (B,): sum over classes of q (log q - log p), with 0 log 0 = 0 (UrgencySense).

    q is `ordinal_soft_labels` of the targets, with `mass` in [0, 1) on the neighbouring classes.
    """
    soft = ordinal_soft_labels(targets, logits.shape[-1], mass).to(logits)
    return functional.kl_div(functional.log_softmax(logits, dim=-1), soft, reduction="none").sum(dim=-1)


def ordinal_focal(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Ordinal focal loss of each row (B,): alpha_y (1 - p_y)^gamma (-log p_y) (1 + |y - argmax p|).

    The focal loss of Lin et al. 2017 (arXiv:1708.02002, eq. 5), `gamma` >= 0, times UrgencySense's 1 + distance, which is a
    constant for the gradient.
    """
    log_probs = functional.log_softmax(logits, dim=-1)
    index = targets.unsqueeze(-1)
    # log(1 - p_y) from the other classes: 1 - p_y itself rounds to 0 on confident rows, where a power below 1 has no gradient.
    log_miss = log_probs.scatter(-1, index, -torch.inf).logsumexp(dim=-1)
    distance = (targets - logits.argmax(dim=-1)).abs()
    return weights[targets] * (gamma * log_miss).exp() * -log_probs.gather(-1, index).squeeze(-1) * (1 + distance)


def row_weights(targets: Tensor, weights: Tensor) -> Tensor:
    """alpha_y of each row (B,): the entry of its class in `weights` (C,), and 0 where the target is -1 (unknown)."""
    return weights[targets.clamp(min=0)] * (targets >= 0)


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy of each row (B,): alpha_y (-log p_y), and 0 where the target is -1 (unknown).

    A batch's value is their sum over the sum of `row_weights`, as in `torch.nn.functional.cross_entropy(weight=)`.
    """
    log_probs = functional.log_softmax(logits, dim=-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return row_weights(targets, weights) * -log_probs


def corn_tasks(targets: Tensor, num_classes: int) -> Tensor:
    """Binary tasks of CORN that each row takes part in, int64 (B,): those of k <= y, of the C - 1 that ask whether y > k."""
    return (targets + 1).clamp(max=num_classes - 1)


def corn(logits: Tensor, targets: Tensor) -> Tensor:
    """CORN loss of each row (B,): sum over k <= y of the binary cross-entropy of "y > k, given y >= k" (Shi, Cao and Raschka
    2021, arXiv:2111.08851).

    By the chain rule the conditional probabilities of a row's tasks multiply up to p_y, so the sum is -log p_y. A batch's value
    is the sum over rows divided by the sum of `corn_tasks`, as in the authors' coral-pytorch.

    Args:
        logits: log-probabilities that `classifier.CornHead` made of the conditional logits.
        targets: as above.
    """
    return functional.cross_entropy(logits, targets, reduction="none")


def squared_emd(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared earth mover's distance of each row (B,): sum over k of (P(class <= k) - [y <= k])^2, from 0 to C - 1.

    Hou, Yu and Samaras 2016 (arXiv:1611.05916), with one-hot targets. It is the ranked probability score (Epstein 1969):
    strictly proper, and a miss costs the more the further it is, as in quadratic kappa; unlike kappa it is a sum over rows.
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)[..., :-1]
    reached = targets.unsqueeze(-1) <= torch.arange(cumulative.shape[-1], device=targets.device)
    return (cumulative - reached.to(cumulative)).square().sum(dim=-1)


@dataclass(frozen=True)
class Terms:
    """The K parts of the loss over one worker's rows; added up over workers, they are those of the global batch.

    Attributes:
        numerators: (K,), sum over rows of each part, times its weight in the mixture.
        normalisers: (K,), what each is to be divided by: a number of rows, or a sum of class weights. Without gradient.
    """

    numerators: Tensor
    normalisers: Tensor

    def total(self, normalisers: Tensor | None = None) -> Tensor:
        """The loss, a scalar: the sum of numerator / normaliser; a part whose normaliser is 0 adds 0.

        Args:
            normalisers: those of the global batch (all-reduced by sum); None is this worker's own. The workers' totals add up
                to the global loss, so where gradients are averaged (DDP), multiply by the number of workers.
        """
        divisors = self.normalisers if normalisers is None else normalisers
        return (self.numerators / divisors.where(divisors > 0, 1.0)).sum()


class UrgencyLoss(nn.Module):
    """The loss of a `LossConfig`: (1 - s) * urgency mixture + s * class-weighted cross-entropy of sentiment.

    s is `sentiment_weight`: 0 for UrgencySense, 0.4 for UrgencyDetect.

    Args:
        config: the loss section.
        urgency_counts: of the classes of urgency.
        sentiment_counts: of the classes of sentiment; not needed when s is 0.

    Raises:
        ValueError: s is above 0 and `sentiment_counts` is empty.
    """

    urgency_weights: Tensor
    sentiment_weights: Tensor

    def __init__(self, config: LossConfig, urgency_counts: Counts, sentiment_counts: Counts = ()) -> None:
        super().__init__()
        if config.sentiment_weight > 0 and not len(sentiment_counts):
            raise ValueError("sentiment_counts must be given where sentiment_weight is above 0")
        self.config = config
        self.register_buffer("urgency_weights", class_weights(urgency_counts, config.class_weights))
        self.register_buffer("sentiment_weights", class_weights(sentiment_counts, config.class_weights))

    def mixture(self, draw: float) -> list[float]:
        """Weights of KL, focal, cross-entropy, CORN and EMD at a step, of sum 1; `stochastic` gives 1 to the one `draw` picks.

        Args:
            draw: uniform in [0, 1), the same on all workers; mode `expected` pays no heed to it.

        Raises:
            ValueError: `draw` is out of range.
        """
        if not 0.0 <= draw < 1.0:
            raise ValueError(f"draw must be in [0, 1) but got {draw}")
        config = self.config
        # A loss added here goes to the end: what the draws of an older config pick must not change.
        weights = (
            config.kl_weight,
            config.focal_weight,
            config.cross_entropy_weight,
            config.corn_weight,
            config.emd_weight,
        )
        bounds = list(accumulate(weights))
        if config.mode == "expected":
            return [weight / bounds[-1] for weight in weights]
        # The last bound becomes exactly 1, above every draw; a loss of weight 0 has two equal bounds and is never picked.
        picked = bisect_right([bound / bounds[-1] for bound in bounds], draw)
        return [float(index == picked) for index in range(len(weights))]

    def terms(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], draw: float) -> Terms:
        """The parts of the loss of weight above 0; with the same `draw`, the same parts in the same order on every worker.

        Args:
            logits: (B, C) under "urgency" and, where `sentiment_weight` is above 0, under "sentiment".
            targets: (B,) under the same names; rows of sentiment -1 (unknown) do not count for sentiment.
            draw: as in `mixture`.
        """
        urgency, truth, alpha = logits["urgency"], targets["urgency"], self.urgency_weights
        share = self.config.sentiment_weight
        kl, focal, cross_entropy, corn_share, emd = ((1.0 - share) * weight for weight in self.mixture(draw))
        num_rows = alpha.new_full((), len(truth))
        parts: list[tuple[Tensor, Tensor]] = []
        if kl:
            parts.append((kl * kl_to_soft_labels(urgency, truth, self.config.soft_label_mass).sum(), num_rows))
        if focal:
            parts.append((focal * ordinal_focal(urgency, truth, alpha, self.config.focal_gamma).sum(), num_rows))
        if cross_entropy:
            rows = weighted_cross_entropy(urgency, truth, alpha)
            parts.append((cross_entropy * rows.sum(), row_weights(truth, alpha).sum()))
        if corn_share:
            tasks = corn_tasks(truth, urgency.shape[-1]).sum().to(alpha)
            parts.append((corn_share * corn(urgency, truth).sum(), tasks))
        if emd:
            parts.append((emd * squared_emd(urgency, truth).sum(), num_rows))
        if share:
            rows = weighted_cross_entropy(logits["sentiment"], targets["sentiment"], self.sentiment_weights)
            parts.append((share * rows.sum(), row_weights(targets["sentiment"], self.sentiment_weights).sum()))
        numerators, normalisers = zip(*parts, strict=True)
        return Terms(torch.stack(numerators), torch.stack(normalisers))

    def forward(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], draw: float) -> Tensor:
        """The loss of a batch on a single worker, a scalar; arguments as in `terms`."""
        return self.terms(logits, targets, draw).total()
