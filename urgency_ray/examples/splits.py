"""Train, val and test: by group, stratified by urgency, a pure function of (rows, seed)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from urgency_ray.config import SplitConfig
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits
from urgency_ray.examples.groups import group_examples
from urgency_ray.schema import URGENCY_LABELS


def provider_test(examples: Examples) -> str:
    """The `provider_split` of the rows that the provider, or a manifest, keeps for the test."""
    return "test" if (examples.keys["provider_split"] == "test").any() else "validation"


def split_examples(examples: Examples, config: SplitConfig) -> Splits:
    """Divide labelled rows by group, stratified by urgency: a pure function of (rows, seed).

    The test split is the provider's Validation part where there is one (with all of a group that touches it), else
    `test_fraction` of the groups; val is `val_fraction` of the groups, out of what is left. Where a manifest names test rows,
    these are the test split, and its val rows, if any, the val split.

    Raises:
        RequestError: a class has no rows in a split, or too few groups to share out.
    """
    labelled, group, groups = _labelled_groups(examples, config)
    rest = groups
    if config.use_provider_test and groups["provider"].any():
        test = groups.index[groups["provider"]]
        rest = groups[~groups["provider"]]
    else:
        test = _draw(rest, round(config.test_fraction * len(groups)), config, "test")
        rest = rest.drop(test)
    if config.use_provider_test and rest["provider_val"].any():
        val = rest.index[rest["provider_val"]]
    else:
        val = _draw(rest, round(config.val_fraction * len(groups)), config, "val")
    train = rest.index.difference(val)
    return _collect(examples, labelled, group, (train, val, test), config)


def fold_splits(examples: Examples, config: SplitConfig, num_folds: int) -> list[Splits]:
    """K = `num_folds` splits for cross-validation: a pure function of (rows, seed).

    Their test parts are folds, by group and stratified by urgency, of the labelled rows outside the provider's Validation part
    (where that serves as the test split): each such row is in one of them. Val is drawn from the rest as in `split_examples`.

    Raises:
        RequestError: a class has no rows in a part, or fewer groups than there are folds.
    """
    labelled, group, groups = _labelled_groups(examples, config)
    if config.use_provider_test:
        groups = groups[~groups["provider"]]
    splits = []
    for test in _held_out(groups, num_folds, config, "train.folds"):
        rest = groups.drop(test)
        val = _draw(rest, round(config.val_fraction * len(groups)), config, "val")
        splits.append(_collect(examples, labelled, group, (rest.index.difference(val), val, test), config))
    return splits


def val_folds(examples: Examples, splits: Splits, config: SplitConfig, num_folds: int, field: str) -> list[Splits]:
    """K = `num_folds` splits of the train and val rows of `splits`, by group and stratified: a pure function of (rows, seed).

    Each of these rows is in one val part, and in the train part of the other splits; the test part is that of `splits`; `field`
    is what a message names.

    Raises:
        RequestError: a class has no rows in a part, or fewer groups than there are folds.
    """
    labelled, group, groups = _labelled_groups(examples, config)
    test = groups.index[np.isin(groups.index, group[np.isin(labelled, splits.test)])]
    rest = groups.drop(test)
    return [
        _collect(examples, labelled, group, (rest.index.difference(val), val, test), config)
        for val in _held_out(rest, num_folds, config, field)
    ]


def _held_out(groups: pd.DataFrame, num_folds: int, config: SplitConfig, field: str) -> Iterator[pd.Index[Any]]:
    """The groups of each fold, stratified by urgency; `field` is what a message names."""
    counts = groups["urgency"].value_counts()
    rare = counts.index[counts < num_folds]
    if len(groups) < num_folds or (len(rare) and not config.allow_missing_classes):
        what = f"calls of urgency {_names(list(rare))}" if len(rare) else "calls"
        raise RequestError(f"{field}: too few {what} for {num_folds} folds: give more data, or lower {field}")
    strata = groups["urgency"].where(~groups["urgency"].isin(rare), counts.index[0])
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=config.seed)
    return (groups.index[held_out] for _, held_out in folds.split(strata, strata))


def _labelled_groups(examples: Examples, config: SplitConfig) -> tuple[NDArray[np.int64], NDArray[np.int64], pd.DataFrame]:
    """Labelled rows (L,), the group of each (L,), and the groups by number: urgency, provider (touches its test part, which is
    its Validation part unless a manifest names both), provider_val.
    """
    labelled = np.flatnonzero(examples.urgency >= 0)
    if not len(labelled):
        raise RequestError("the run folder holds no labelled rows to train on")
    split, test = examples.keys["provider_split"], provider_test(examples)
    parts = {"provider": split == test, "provider_val": (split == "validation") & (test != "validation")}
    group, urgency = group_examples(examples.keys)[labelled], examples.urgency[labelled]
    missing = sorted(set(range(NUM_CLASSES)) - set(np.unique(urgency).tolist()))
    if missing and not config.allow_missing_classes:
        raise RequestError(f"no row has urgency {_names(missing)}: give more data, or set split.allow_missing_classes")
    # A group of one call has one label; the most urgent stands for the rare group whose calls disagree.
    most = np.full(group.max() + 1, -1)
    np.maximum.at(most, group, urgency)
    columns = {"urgency": most}
    for name, rows in parts.items():
        columns[name] = np.zeros(len(most), bool)
        columns[name][group[rows.to_numpy(bool)[labelled]]] = True
    groups = pd.DataFrame(columns)[most >= 0]
    return labelled, group, groups.rename_axis("group")


def _collect(
    examples: Examples,
    labelled: NDArray[np.int64],
    group: NDArray[np.int64],
    parts: Sequence[pd.Index[Any]],
    config: SplitConfig,
) -> Splits:
    """The rows of three sets of groups, each with all classes."""
    splits = Splits(*(labelled[np.isin(group, part)] for part in parts))
    for name, rows in splits.items():
        absent = sorted(set(range(NUM_CLASSES)) - set(examples.urgency[rows]))
        if not len(rows) or (absent and not config.allow_missing_classes):
            what = f"no row of urgency {_names(absent)}" if len(rows) else "no rows"
            raise RequestError(f"the {name} split has {what}: give more data, or set split.allow_missing_classes")
    return splits


def _draw(groups: pd.DataFrame, size: int, config: SplitConfig, name: str) -> pd.Index[Any]:
    if groups.empty:
        raise RequestError(
            f"no calls are left for the {name} split: all are the provider's Validation part; give its Training part too, "
            "or set split.use_provider_test to false"
        )
    counts = groups["urgency"].value_counts()
    rare = counts.index[counts < 2]
    if len(rare) and not config.allow_missing_classes:
        raise RequestError(f"too few calls of urgency {_names(list(rare))} to share with the {name} split: give more data")
    strata = groups["urgency"].where(~groups["urgency"].isin(rare), counts.index[0])
    size = min(max(size, len(strata.unique())), len(groups) - len(strata.unique()))
    if size < 1:
        raise RequestError(f"{len(groups)} calls are too few to share with the {name} split: give more data")
    return train_test_split(groups.index, test_size=size, stratify=strata, random_state=config.seed)[1]


def _names(classes: list[int]) -> str:
    return ", ".join(URGENCY_LABELS[label] for label in classes)
