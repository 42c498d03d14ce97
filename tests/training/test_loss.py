"""The losses against figures worked out by hand and by other routes through torch."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from urgency_ray.config import LossConfig
from urgency_ray.model.classifier import CornHead
from urgency_ray.training.loss import (
    UrgencyLoss,
    class_weights,
    corn,
    corn_tasks,
    kl_to_soft_labels,
    ordinal_focal,
    ordinal_soft_labels,
    row_weights,
    squared_emd,
    weighted_cross_entropy,
)

URGENCY_COUNTS = [50, 30, 20]
SENTIMENT_COUNTS = [54, 38, 7, 1]
ONLY_KL: dict[str, Any] = {"kl_weight": 1.0, "focal_weight": 0.0, "cross_entropy_weight": 0.0}
ONLY_FOCAL: dict[str, Any] = {"kl_weight": 0.0, "focal_weight": 1.0, "cross_entropy_weight": 0.0}
ONLY_CROSS_ENTROPY: dict[str, Any] = {"kl_weight": 0.0, "focal_weight": 0.0, "cross_entropy_weight": 1.0}
NONE_OF_THE_RECIPE: dict[str, Any] = {"kl_weight": 0.0, "focal_weight": 0.0, "cross_entropy_weight": 0.0}
ONLY_CORN: dict[str, Any] = NONE_OF_THE_RECIPE | {"corn_weight": 1.0}
ONLY_EMD: dict[str, Any] = NONE_OF_THE_RECIPE | {"emd_weight": 1.0}
WEIGHTS = ("kl_weight", "focal_weight", "cross_entropy_weight", "corn_weight", "emd_weight")


def logits_of(*rows: Any) -> Any:
    """Logits whose softmax are the given probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def make_batch(num_rows: int, seed: int = 0, unknown: Any = 0.3) -> Any:
    generator = torch.Generator().manual_seed(seed)
    logits = {
        "urgency": torch.randn(num_rows, 3, generator=generator, dtype=torch.float64) * 2,
        "sentiment": torch.randn(num_rows, 4, generator=generator, dtype=torch.float64) * 2,
    }
    targets = {
        "urgency": torch.randint(3, (num_rows,), generator=generator),
        "sentiment": torch.randint(4, (num_rows,), generator=generator),
    }
    targets["sentiment"][torch.rand(num_rows, generator=generator) < unknown] = -1
    return logits, targets


def test_class_weights_are_inverse_frequencies() -> None:
    assert class_weights([50, 30, 20], "balanced").tolist() == pytest.approx([100 / 150, 100 / 90, 100 / 60])
    assert class_weights(np.array([50, 30, 20]), "none").tolist() == [1.0, 1.0, 1.0]


def test_class_without_rows_weighs_nothing() -> None:
    assert class_weights([6, 0, 3], "balanced").tolist() == pytest.approx([9 / 18, 0.0, 9 / 9])
    assert class_weights([0, 0, 0], "balanced").tolist() == [0.0, 0.0, 0.0]


def test_soft_labels_share_the_mass_among_neighbours() -> None:
    soft = ordinal_soft_labels(torch.tensor([0, 1, 2]), 3, 0.2)
    assert soft.tolist() == [pytest.approx(row) for row in ([0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8])]
    assert ordinal_soft_labels(torch.tensor([1]), 2, 0.2).tolist() == [pytest.approx([0.2, 0.8])]
    assert ordinal_soft_labels(torch.tensor([2]), 5, 0.5).tolist() == [pytest.approx([0.0, 0.25, 0.5, 0.25, 0.0])]


def test_soft_labels_without_mass_are_one_hot() -> None:
    targets = torch.tensor([2, 0, 1, 1])
    assert torch.equal(ordinal_soft_labels(targets, 3, 0.0), functional.one_hot(targets, 3).float())


def test_soft_labels_need_a_neighbour() -> None:
    with pytest.raises(ValueError, match="at least 2 but got 1"):
        ordinal_soft_labels(torch.tensor([0]), 1, 0.2)


def test_kl_by_hand() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.25, 0.25, 0.5])
    first = 0.8 * math.log(0.8 / 0.7) + 0.2 * math.log(0.2 / 0.2)
    second = 0.1 * math.log(0.1 / 0.25) + 0.8 * math.log(0.8 / 0.25) + 0.1 * math.log(0.1 / 0.5)
    assert kl_to_soft_labels(logits, torch.tensor([0, 1]), 0.2).tolist() == pytest.approx([first, second])


def test_kl_is_zero_where_the_model_says_the_soft_labels() -> None:
    assert kl_to_soft_labels(logits_of([0.1, 0.8, 0.1]), torch.tensor([1]), 0.2).item() == pytest.approx(0.0, abs=1e-7)


def test_mean_kl_is_torch_batchmean() -> None:
    logits, targets = make_batch(64)
    table = torch.tensor([[0.7, 0.3, 0.0], [0.15, 0.7, 0.15], [0.0, 0.3, 0.7]], dtype=torch.float64)
    expected = functional.kl_div(logits["urgency"].log_softmax(-1), table[targets["urgency"]], reduction="batchmean")
    loss = UrgencyLoss(LossConfig(**ONLY_KL, soft_label_mass=0.3), URGENCY_COUNTS)
    assert loss(logits, targets, 0.5).item() == pytest.approx(expected.item(), abs=1e-6)


def test_focal_by_hand() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1])
    weights = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    expected = [
        0.5 * 0.3**2 * -math.log(0.7) * 1,  # right
        1.0 * 0.8**2 * -math.log(0.2) * 2,  # one class off
        3.0 * 0.9**2 * -math.log(0.1) * 3,  # two classes off
    ]
    assert ordinal_focal(logits, torch.tensor([0, 1, 2]), weights, 2.0).tolist() == pytest.approx(expected)


def test_focal_without_gamma_is_cross_entropy_times_distance() -> None:
    logits, targets = make_batch(64)
    distance = (targets["urgency"] - logits["urgency"].argmax(-1)).abs()
    expected = functional.cross_entropy(logits["urgency"], targets["urgency"], reduction="none") * (1 + distance)
    assert torch.allclose(ordinal_focal(logits["urgency"], targets["urgency"], torch.ones(3), 0.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_has_the_gradient_of_a_constant_distance(gamma: float) -> None:
    logits, targets = make_batch(16)
    urgency = logits["urgency"].requires_grad_()
    weights = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ordinal_focal(x, targets["urgency"], weights, gamma), urgency)

    loss: Any = ordinal_focal(urgency, targets["urgency"], weights, gamma).sum()
    loss.backward()
    constants = [1 + abs(y - x) for y, x in zip(targets["urgency"].tolist(), urgency.argmax(-1).tolist(), strict=True)]
    found, urgency.grad = urgency.grad, None
    p = urgency.softmax(-1)[torch.arange(16), targets["urgency"]]
    plain = weights[targets["urgency"]] * (1 - p) ** gamma * -p.log() * torch.tensor(constants)
    plain.sum().backward()
    assert torch.allclose(found, urgency.grad, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("margin", [100.0, -100.0])
def test_focal_of_a_certain_row_has_a_finite_gradient(gamma: float, margin: float) -> None:
    logits = torch.tensor([[margin, 0.0, 0.0]], requires_grad=True)
    loss: Any = ordinal_focal(logits, torch.tensor([0]), torch.ones(3), gamma).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_weighted_cross_entropy_by_hand() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5])
    weights = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    rows = weighted_cross_entropy(logits, torch.tensor([0, 2, -1]), weights)
    assert rows.tolist() == pytest.approx([0.5 * -math.log(0.7), 3.0 * -math.log(0.5), 0.0])
    assert row_weights(torch.tensor([0, 2, -1]), weights).tolist() == [0.5, 3.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num_rows=st.integers(1, 40))
def test_cross_entropy_of_a_batch_is_torchs(seed: int, num_rows: int) -> None:
    logits, targets = make_batch(num_rows, seed)
    weights = torch.tensor([100 / 150, 100 / 90, 100 / 60], dtype=torch.float64)
    expected = functional.cross_entropy(logits["urgency"], targets["urgency"], weight=weights)
    loss = UrgencyLoss(LossConfig(**ONLY_CROSS_ENTROPY), URGENCY_COUNTS)
    assert loss(logits, targets, 0.0).item() == pytest.approx(expected.item(), rel=1e-6)


def coral_pytorch_corn_loss(conditional: Any, targets: Any, num_classes: int) -> Any:
    """CORN loss as the paper's authors compute it in coral-pytorch: task by task over its own subset, on the raw logits."""
    total: Any = 0.0
    num_examples = 0
    for task in range(num_classes - 1):
        subset = targets >= task
        labels = (targets[subset] > task).to(conditional)
        num_examples += len(labels)
        total += functional.binary_cross_entropy_with_logits(conditional[subset, task], labels, reduction="sum")
    return total / num_examples


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num_rows=st.integers(1, 40), num_classes=st.integers(2, 6))
def test_corn_of_a_batch_is_that_of_its_authors_with_the_same_gradient(seed: int, num_rows: int, num_classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = 3 * torch.randn(num_rows, 7, generator=generator)
    targets = torch.randint(num_classes, (num_rows,), generator=generator)
    torch.manual_seed(seed)
    head = CornHead(7, num_classes)
    expected = coral_pytorch_corn_loss(functional.linear(hidden, head.weight, head.bias), targets, num_classes)
    wanted = torch.autograd.grad(expected, head.weight)[0]
    loss = UrgencyLoss(LossConfig(**ONLY_CORN), [1] * num_classes)({"urgency": head(hidden)}, {"urgency": targets}, 0.5)
    # A loss of nearly nothing has few digits: both are sums of logarithms near 0.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(torch.autograd.grad(loss, head.weight)[0], wanted, rtol=1e-4, atol=1e-6)


def test_corn_by_hand() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.25, 0.25, 0.5])
    # Given y >= 1, class 1 has 0.2 / 0.3; the second row answers "y > 0" with 0.3 and "y > 1" with 1 - 0.2 / 0.3.
    expected = [-math.log(0.7), -math.log(0.3) - math.log(0.2 / 0.3), -math.log(0.75) - math.log(0.5 / 0.75)]
    targets = torch.tensor([0, 1, 2])
    assert corn(logits, targets).tolist() == pytest.approx(expected)
    assert corn_tasks(targets, 3).tolist() == [1, 2, 2]
    loss = UrgencyLoss(LossConfig(**ONLY_CORN), URGENCY_COUNTS)
    assert loss({"urgency": logits}, {"urgency": targets}, 0.5).item() == pytest.approx(sum(expected) / 5)


def test_squared_emd_by_hand() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1])
    # Cumulated: 0.7 and 0.9; those of the targets: 1 and 1, 0 and 1, 0 and 0.
    expected = [0.3**2 + 0.1**2, 0.7**2 + 0.1**2, 0.7**2 + 0.9**2]
    assert squared_emd(logits, torch.tensor([0, 1, 2])).tolist() == pytest.approx(expected)
    certain = torch.tensor([[100.0, 0.0, 0.0]]).expand(3, 3)
    assert squared_emd(certain, torch.tensor([0, 1, 2])).tolist() == pytest.approx([0, 1, 2])  # the distance in classes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num_classes=st.integers(2, 6))
def test_squared_emd_is_the_ranked_probability_score_and_has_its_gradient(seed: int, num_classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, num_classes, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(num_classes, (8,), generator=generator)
    rows = []
    for row, target in zip(logits.softmax(-1).tolist(), targets.tolist(), strict=True):
        rows.append(sum((sum(row[: k + 1]) - (target <= k)) ** 2 for k in range(num_classes)))
    assert squared_emd(logits, targets).tolist() == pytest.approx(rows)
    assert torch.autograd.gradcheck(lambda x: squared_emd(x, targets), logits)


def test_squared_emd_is_least_at_the_true_distribution() -> None:
    """Strictly proper: over rows of classes 0.5, 0.3, 0.2 the best constant prediction is 0.5, 0.3, 0.2."""
    targets = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer: Any = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Any:
        optimizer.zero_grad()
        loss: Any = squared_emd(logits.expand(10, 3), targets).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert logits.softmax(-1).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-4)


def test_sentiment_takes_its_share_and_skips_unknown_rows() -> None:
    logits, targets = make_batch(64)
    alpha = torch.tensor([100 / (3 * n) for n in URGENCY_COUNTS], dtype=torch.float64)
    beta = torch.tensor([100 / (4 * n) for n in SENTIMENT_COUNTS], dtype=torch.float64)
    urgency = functional.cross_entropy(logits["urgency"], targets["urgency"], weight=alpha)
    sentiment = functional.cross_entropy(logits["sentiment"], targets["sentiment"], weight=beta, ignore_index=-1)
    loss = UrgencyLoss(LossConfig(**ONLY_CROSS_ENTROPY, sentiment_weight=0.4), URGENCY_COUNTS, SENTIMENT_COUNTS)
    assert loss(logits, targets, 0.0).item() == pytest.approx(0.6 * urgency.item() + 0.4 * sentiment.item(), rel=1e-6)


def test_batch_without_known_sentiment_has_a_finite_loss_and_gradient() -> None:
    logits, targets = make_batch(8, unknown=1.1)
    loss = UrgencyLoss(LossConfig(**ONLY_KL, sentiment_weight=0.4), URGENCY_COUNTS, SENTIMENT_COUNTS)
    sentiment = logits["sentiment"].requires_grad_()
    total = loss(logits, targets, 0.0)
    total.backward()
    urgency = UrgencyLoss(LossConfig(**ONLY_KL), URGENCY_COUNTS)(logits, targets, 0.0)
    assert total.item() == pytest.approx(0.6 * urgency.item())
    assert torch.equal(sentiment.grad, torch.zeros_like(sentiment))


def test_batch_of_classes_without_weight_has_no_loss() -> None:
    logits, targets = make_batch(8)
    targets["urgency"][:] = 1
    logits["urgency"].requires_grad_()
    total = UrgencyLoss(LossConfig(**ONLY_CROSS_ENTROPY), [5, 0, 5])(logits, targets, 0.0)
    total.backward()
    assert total.item() == 0.0
    assert torch.equal(logits["urgency"].grad, torch.zeros(8, 3, dtype=torch.float64))


def test_sentiment_needs_its_counts() -> None:
    with pytest.raises(ValueError, match="sentiment_counts must be given"):
        UrgencyLoss(LossConfig(sentiment_weight=0.4), URGENCY_COUNTS)


@pytest.mark.parametrize("draw", [0.0, 0.24, 0.25, 0.64, 0.65, 1 - 2**-53])
def test_draw_picks_by_cumulative_weight(draw: Any) -> None:
    picked = [float(index == (draw >= 0.25) + (draw >= 0.65)) for index in range(5)]
    loss = UrgencyLoss(LossConfig(kl_weight=0.25, focal_weight=0.40, cross_entropy_weight=0.35), URGENCY_COUNTS)
    assert loss.mixture(draw) == picked


def test_picked_loss_is_that_loss() -> None:
    logits, targets = make_batch(32)
    mixed = UrgencyLoss(LossConfig(), URGENCY_COUNTS)
    for draw, only in ((0.1, ONLY_KL), (0.5, ONLY_FOCAL), (0.9, ONLY_CROSS_ENTROPY)):  # at the defaults
        alone = UrgencyLoss(LossConfig(**only), URGENCY_COUNTS)
        assert mixed(logits, targets, draw).item() == alone(logits, targets, 0.0).item()


@given(
    weights=st.tuples(*[st.one_of(st.just(0.0), st.floats(1e-6, 1e6))] * 5).filter(any),
    draw=st.floats(0.0, 1.0, exclude_max=True),
)
def test_draws_pick_one_loss_and_never_one_of_weight_zero(weights: Any, draw: Any) -> None:
    loss = UrgencyLoss(LossConfig(**dict(zip(WEIGHTS, weights, strict=True))), URGENCY_COUNTS)
    mixture = loss.mixture(draw)
    assert sorted(mixture) == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert weights[mixture.index(1.0)] > 0


@pytest.mark.parametrize("draw", [-0.1, 1.0, math.nan])
def test_draw_out_of_range_is_refused(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"draw must be in \[0, 1\)"):
        UrgencyLoss(LossConfig(), URGENCY_COUNTS).mixture(draw)


def test_expected_is_the_average_over_draws() -> None:
    logits, targets = make_batch(32)
    weights: dict[str, Any] = {"kl_weight": 2.0, "focal_weight": 5.0, "cross_entropy_weight": 1.0, "sentiment_weight": 0.4}
    expected = UrgencyLoss(LossConfig(mode="expected", **weights), URGENCY_COUNTS, SENTIMENT_COUNTS)
    stochastic = UrgencyLoss(LossConfig(**weights), URGENCY_COUNTS, SENTIMENT_COUNTS)
    # Eight equally spaced draws meet weights of 2, 5 and 1 eighths exactly.
    average = sum(stochastic(logits, targets, (step + 0.5) / 8).item() for step in range(8)) / 8
    assert expected(logits, targets, 0.0).item() == pytest.approx(average, rel=1e-6)
    assert expected.mixture(0.9) == [2 / 8, 5 / 8, 1 / 8, 0.0, 0.0]


@pytest.mark.parametrize("mode", ["stochastic", "expected"])
@pytest.mark.parametrize("draw", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("cut", [1, 11, 16])
@pytest.mark.parametrize("weights", [{}, ONLY_CORN, ONLY_EMD, dict.fromkeys(WEIGHTS, 0.2)])
def test_workers_that_share_normalisers_reproduce_the_global_batch(
    mode: Literal["stochastic", "expected"], draw: float, cut: int, weights: Any
) -> None:
    loss = UrgencyLoss(LossConfig(mode=mode, sentiment_weight=0.4, **weights), URGENCY_COUNTS, SENTIMENT_COUNTS)
    logits, targets = make_batch(32)
    targets["sentiment"][0] = -1  # at cut 1, a worker that knows no sentiment at all
    whole = {task: values.clone().requires_grad_() for task, values in logits.items()}
    total = loss(whole, targets, draw)
    total.backward()

    leaves = {task: values.clone().requires_grad_() for task, values in logits.items()}
    workers = [
        loss.terms({t: v[rows] for t, v in leaves.items()}, {t: v[rows] for t, v in targets.items()}, draw)
        for rows in (slice(0, cut), slice(cut, 32))
    ]
    normalisers = workers[0].normalisers + workers[1].normalisers
    losses = [worker.total(normalisers) * len(workers) for worker in workers]
    average: Any = sum(losses) / len(workers)  # what DDP does to the gradients of the workers' losses
    average.backward()
    assert average.item() == pytest.approx(total.item(), abs=1e-6)
    for task, leaf in leaves.items():
        assert torch.allclose(leaf.grad, whole[task].grad, atol=1e-6)


def test_mean_of_worker_means_is_another_loss() -> None:
    """The reason for numerators and normalisers: a worker with a heavy class would count too little."""
    loss = UrgencyLoss(LossConfig(**ONLY_CROSS_ENTROPY), URGENCY_COUNTS)
    logits = {"urgency": logits_of([0.7, 0.2, 0.1], [0.7, 0.2, 0.1])}
    targets = {"urgency": torch.tensor([0, 2])}
    means = [loss({"urgency": logits["urgency"][[row]]}, {"urgency": targets["urgency"][[row]]}, 0.0) for row in (0, 1)]
    light, heavy = 100 / 150, 100 / 60
    expected = (light * -math.log(0.7) + heavy * -math.log(0.1)) / (light + heavy)
    assert loss(logits, targets, 0.0).item() == pytest.approx(expected)
    assert (sum(means) / 2).item() == pytest.approx((-math.log(0.7) - math.log(0.1)) / 2)


def test_normalisers_have_no_gradient() -> None:
    logits, targets = make_batch(8)
    logits["urgency"].requires_grad_()
    terms = UrgencyLoss(LossConfig(mode="expected"), URGENCY_COUNTS).terms(logits, targets, 0.0)
    assert terms.numerators.requires_grad
    assert not terms.normalisers.requires_grad
    assert terms.normalisers.tolist()[:2] == [8.0, 8.0]
