from typing import Any

import numpy as np
import pandas as pd
import pytest

from urgency_ray.config import Config, SamplerConfig, SplitConfig
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import Examples
from urgency_ray.examples.groups import group_examples
from urgency_ray.examples.splits import fold_splits, split_examples, val_folds
from urgency_ray.training.data import column_statistics, epoch_order, worker_batches


def make_examples(urgency: Any, call_id: Any = None, provider: Any = None, sha: Any = None) -> Any:
    size = len(urgency)
    keys = pd.DataFrame(
        {
            "example_id": [f"e{i:06d}" for i in range(size)],
            "call_id": call_id if call_id is not None else [f"c{i:06d}" for i in range(size)],
            "provider_split": provider if provider is not None else ["unknown"] * size,
            "audio_sha256": sha if sha is not None else [f"h{i}" for i in range(size)],
            "text_sha256": None,
        }
    )
    zeros = np.zeros((size, 2), np.float32)
    return Examples(keys, zeros, zeros, np.zeros((size, 5), np.float32), np.asarray(urgency, np.int64), np.full(size, -1), None)


def draw_urgency(size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).choice(3, size=size, p=[0.35, 0.34, 0.31])


def test_splits_cover_every_labelled_row_once() -> None:
    urgency = draw_urgency(1000)
    urgency[::50] = -1
    splits = split_examples(make_examples(urgency), SplitConfig(val_fraction=0.2, test_fraction=0.1))
    together = np.concatenate([splits.train, splits.val, splits.test])
    assert sorted(together) == np.flatnonzero(urgency >= 0).tolist()
    assert (len(splits.val), len(splits.test)) == (196, 98)


def test_splits_are_stratified() -> None:
    urgency = draw_urgency(2000)
    splits = split_examples(make_examples(urgency), SplitConfig(val_fraction=0.1, test_fraction=0.1))
    shares = np.bincount(urgency) / 2000
    for _, rows in splits.items():
        np.testing.assert_allclose(np.bincount(urgency[rows]) / len(rows), shares, atol=0.006)


def test_a_call_is_never_on_two_sides_nor_are_calls_with_the_same_audio() -> None:
    # 300 calls of 3 utterances; each tenth call repeats the audio of the call before it.
    calls = np.repeat(np.arange(300), 3)
    audio = np.where(calls % 10 == 9, calls - 1, calls)
    urgency = draw_urgency(300)[audio]
    examples = make_examples(urgency, [f"c{c}" for c in calls], sha=[f"h{a}" for a in audio])
    splits = split_examples(examples, SplitConfig(val_fraction=0.2, test_fraction=0.2))
    side = np.empty(900, object)
    for name, rows in splits.items():
        side[rows] = name
    assert pd.Series(side).groupby(audio).nunique().max() == 1
    assert pd.Series(side).groupby(calls).nunique().max() == 1


def test_groups_are_joined_transitively_and_unknown_audio_joins_nothing() -> None:
    keys = pd.DataFrame({"call_id": ["a", "b", "b", "c", "d", "e"], "audio_sha256": ["1", "1", "2", "2", None, None]})
    groups = group_examples(keys)
    assert len(set(groups[:4])) == 1
    assert len({groups[0], groups[4], groups[5]}) == 3


def test_the_provider_s_validation_part_is_the_test_split_with_all_that_shares_its_audio() -> None:
    urgency = draw_urgency(300)
    provider = np.where(np.arange(300) < 60, "validation", "training")
    sha = [f"h{i}" for i in range(300)]
    sha[200] = sha[0]
    urgency[200] = urgency[0]
    examples = make_examples(urgency, provider=provider, sha=sha)
    splits = split_examples(examples, SplitConfig())
    assert splits.test.tolist() == [*range(60), 200]
    ignoring = split_examples(examples, SplitConfig(use_provider_test=False, test_fraction=0.1))
    assert len(ignoring.test) in (30, 31)  # groups are drawn, and one has two calls


def test_rows_of_one_group_are_on_one_side_and_those_of_none_are_their_own() -> None:
    urgency = draw_urgency(600)
    speakers = [f"s{i % 100}" if i < 500 else None for i in range(600)]
    examples = make_examples(urgency)
    examples.keys["group"] = speakers
    assert len(set(group_examples(examples.keys))) == 200
    for splits in [split_examples(examples, SplitConfig()), *fold_splits(examples, SplitConfig(), 4)]:
        sides = [{speakers[row] for row in rows} - {None} for _, rows in splits.items()]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 100


def test_a_manifest_s_test_and_val_rows_are_those_splits() -> None:
    urgency = draw_urgency(300)
    provider = np.repeat(["test", "validation", "training", "unknown"], [50, 40, 200, 10])
    examples = make_examples(urgency, provider=provider)
    splits = split_examples(examples, SplitConfig())
    assert (splits.test.tolist(), splits.val.tolist()) == ([*range(50)], [*range(50, 90)])
    assert splits.train.tolist() == [*range(90, 300)]
    without_val = split_examples(
        make_examples(urgency, provider=np.where(provider == "validation", "training", provider)), SplitConfig()
    )
    assert without_val.test.tolist() == [*range(50)]
    assert len(without_val.val) == 30
    drawn = split_examples(examples, SplitConfig(use_provider_test=False))
    assert len(set(drawn.test) & set(range(50))) < 30


def test_a_split_is_a_function_of_the_seed_alone() -> None:
    examples = make_examples(draw_urgency(500))
    first, again = (split_examples(examples, SplitConfig(seed=3)) for _ in range(2))
    other = split_examples(examples, SplitConfig(seed=4))
    assert first.val.tolist() == again.val.tolist() != other.val.tolist()


def test_a_missing_class_is_an_error_unless_allowed() -> None:
    examples = make_examples(np.arange(100) % 2)
    with pytest.raises(RequestError, match=r"no row has urgency 상: .*split\.allow_missing_classes"):
        split_examples(examples, SplitConfig())
    splits = split_examples(examples, SplitConfig(allow_missing_classes=True))
    assert len(splits.train) + len(splits.val) + len(splits.test) == 100


def test_a_corpus_of_the_provider_s_validation_part_alone_is_a_clear_error() -> None:
    examples = make_examples(draw_urgency(60), provider=["validation"] * 60)
    with pytest.raises(RequestError, match=r"all are the provider's Validation part.*split\.use_provider_test"):
        split_examples(examples, SplitConfig())
    split_examples(examples, SplitConfig(use_provider_test=False, test_fraction=0.2, val_fraction=0.2))


@pytest.mark.parametrize("urgency", [[], [-1, -1], [0], [0, 1, 2], [0, 1, 2] * 2])
def test_too_little_data_is_a_clear_error(urgency: Any) -> None:
    with pytest.raises(RequestError, match=r"give more data|no labelled rows"):
        split_examples(make_examples(urgency), SplitConfig())


def test_folds_hold_out_each_row_once_by_group_and_stratified() -> None:
    # 300 calls of 3 utterances; each tenth call repeats the audio of the call before it.
    calls = np.repeat(np.arange(300), 3)
    audio = np.where(calls % 10 == 9, calls - 1, calls)
    urgency = draw_urgency(300)[audio]
    urgency[::100] = -1
    examples = make_examples(urgency, [f"c{c}" for c in calls], sha=[f"h{a}" for a in audio])
    folds = fold_splits(examples, SplitConfig(val_fraction=0.1), 5)
    labelled = np.flatnonzero(urgency >= 0)
    assert sorted(np.concatenate([splits.test for splits in folds])) == labelled.tolist()
    shares = np.bincount(urgency[labelled]) / len(labelled)
    for splits in folds:
        assert sorted(np.concatenate([splits.train, splits.val, splits.test])) == labelled.tolist()
        sides = [set(audio[rows]) for _, rows in splits.items()]
        assert sum(map(len, sides)) == len(set.union(*sides))
        np.testing.assert_allclose(np.bincount(urgency[splits.test]) / len(splits.test), shares, atol=0.03)
        assert len(splits.test) == pytest.approx(len(labelled) / 5, rel=0.06)
        assert len(splits.val) == pytest.approx(len(labelled) / 10, rel=0.15)


def test_folds_leave_the_provider_s_test_part_alone_unless_told() -> None:
    provider = np.where(np.arange(200) < 50, "validation", "training")
    examples = make_examples(draw_urgency(200), provider=provider)
    for splits in fold_splits(examples, SplitConfig(), 3):
        assert min(np.concatenate([splits.train, splits.val, splits.test])) >= 50
    folds = fold_splits(examples, SplitConfig(use_provider_test=False), 3)
    assert sorted(np.concatenate([splits.test for splits in folds])) == list(range(200))


def test_folds_are_a_function_of_the_seed_alone() -> None:
    examples = make_examples(draw_urgency(100))
    first, again, other = (
        [rows.tolist() for splits in fold_splits(examples, SplitConfig(seed=seed), 4) for _, rows in splits.items()]
        for seed in (3, 3, 4)
    )
    assert first == again != other


def test_too_few_calls_for_the_folds_is_a_clear_error_unless_allowed() -> None:
    examples = make_examples([0] * 20 + [1] * 20 + [2] * 3)
    with pytest.raises(RequestError, match=r"train\.folds: too few calls of urgency 상 for 5 folds"):
        fold_splits(examples, SplitConfig(), 5)
    folds = fold_splits(examples, SplitConfig(allow_missing_classes=True), 5)
    assert sorted(np.concatenate([splits.test for splits in folds])) == list(range(43))
    with pytest.raises(RequestError, match=r"train\.folds: too few calls"):
        fold_splits(examples, SplitConfig(allow_missing_classes=True), 50)


def test_folds_for_tuning_leave_test_alone_and_hold_each_other_row_once() -> None:
    rng = np.random.default_rng(1)
    calls = rng.integers(0, 120, 400)
    urgency = (calls % 3).tolist()
    examples = make_examples(urgency, [f"c{call}" for call in calls])
    config = SplitConfig(val_fraction=0.2)
    splits = split_examples(examples, config)
    folds = val_folds(examples, splits, config, 4, "tune.folds")
    assert sorted(np.concatenate([fold.val for fold in folds])) == sorted([*splits.train, *splits.val])
    for fold in folds:
        assert fold.test.tolist() == splits.test.tolist()
        assert sorted([*fold.train, *fold.val]) == sorted([*splits.train, *splits.val])
        assert not set(calls[fold.train]) & set(calls[fold.val])
        assert len(fold.val) == pytest.approx((len(splits.train) + len(splits.val)) / 4, rel=0.25)
    with pytest.raises(RequestError, match=r"tune\.folds: too few calls of urgency"):
        val_folds(examples, splits, config, 90, "tune.folds")


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_weighted_sampler_draws_by_the_recipe_s_formula(power: float) -> None:
    counts = np.array([6000, 3000, 1000])
    labels = np.repeat([0, 1, 2], counts)
    order = epoch_order(labels, SamplerConfig(power=power), seed=1, epoch=1)
    assert len(order) == 10_000
    weights = counts * (10_000 / (3 * counts)) ** power
    shares = np.bincount(labels[order]) / 10_000
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.015)


def test_the_weighted_sampler_needs_no_row_of_a_class() -> None:
    labels = np.repeat([0, 2], [90, 10])
    order = epoch_order(labels, SamplerConfig(power=1.0), seed=1, epoch=1)
    assert np.bincount(labels[order], minlength=3)[[0, 2]].tolist() == pytest.approx([50, 50], abs=15)


@pytest.mark.parametrize("power", [-0.1, 1.1])
def test_a_power_out_of_range_is_refused(power: float) -> None:
    with pytest.raises(RequestError, match=r"sampler\.power: must be a number >= 0 and <= 1 but got"):
        Config().replace({"sampler.power": power})


def test_without_sampler_each_row_comes_once_in_an_order_of_the_epoch() -> None:
    labels = np.zeros(100, np.int64)
    first, again, next_epoch = (epoch_order(labels, SamplerConfig(name="none"), 5, epoch) for epoch in (1, 1, 2))
    assert sorted(first) == list(range(100))
    assert first.tolist() == again.tolist() != next_epoch.tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("size", [5, 24, 25, 31])
def test_workers_share_each_global_batch(world_size: int, size: int) -> None:
    order = np.arange(size)
    per_worker = [list(worker_batches(order, 24 // world_size, rank, world_size)) for rank in range(world_size)]
    single = list(worker_batches(order, 24, 0, 1))
    assert {len(batches) for batches in per_worker} == {len(single)}
    for step, batch in enumerate(single):
        parts = [batches[step] for batches in per_worker]
        if len(batch) >= world_size:
            assert np.concatenate(parts).tolist() == batch.tolist()
        else:
            assert all(part.tolist() == batch.tolist() for part in parts)


def test_column_statistics_match_numpy_and_survive_constants_and_gaps() -> None:
    values = np.random.default_rng(0).normal(50.0, 3.0, (200_000, 3)).astype(np.float32)
    values[:, 1] = 7.0
    values[:, 2] = np.nan
    rows = np.arange(0, 200_000, 2)
    mean, std = column_statistics(values, rows)
    np.testing.assert_allclose(mean, [values[rows, 0].astype(np.float64).mean(), 7.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(std, [values[rows, 0].astype(np.float64).std(), 1.0, 1.0], rtol=1e-4)
