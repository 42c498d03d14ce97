"""Embeddings in Ray's object store: put there once, read by all processes of a node without a copy of their own."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray

from urgency_ray import cluster
from urgency_ray.config import RayConfig
from urgency_ray.training.data import TrainingData

T = TypeVar("T")

DERIVED = frozenset({"groups"})
"""Fields that say nothing which the others do not: a study that was begun before they were there knows the data by the rest."""


@dataclass(frozen=True)
class SharedData:
    """A `TrainingData` that workers read from the object store; the handle itself is small enough to be sent around.

    Attributes:
        refs: references to single fields, by name.
        rest: reference to a dictionary of the other fields.
        digest: identifies the content of all fields.
    """

    refs: Mapping[str, Any]
    rest: Any
    digest: str

    def get(self) -> TrainingData:
        """The data; its arrays are read-only views of the store."""
        *values, rest = ray.get([*self.refs.values(), self.rest])
        return TrainingData(**dict(zip(self.refs, values, strict=True)), **rest)


class SharedInputs:
    """What is large and the same for every split, fold and variant, moved to the object store as soon as it is read."""

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self.refs: dict[str, Any] = {}
        self.digests: dict[str, str] = {}

    def keep(self, name: str, value: T) -> T:
        """Put a field of `TrainingData` into the store; returns it as it lies there, and the caller drops the original."""
        if not self.refs and cluster.is_private(self.config):
            # PyTorch's first optimizer imports its compiler, which takes as long as Ray's processes need to start; on a
            # cluster, whose processes are there already, others train.
            threading.Thread(target=importlib.import_module, args=("torch._dynamo",)).start()
        cluster.connect(self.config)
        self.digests[name] = digest(value)
        self.refs[name] = ray.put(value)
        kept: T = ray.get(self.refs[name])
        return kept

    def share(self, data: TrainingData) -> SharedData:
        """A handle on data whose large fields are those kept here; the others are put into the store with it."""
        names = [field.name for field in dataclasses.fields(data) if field.name not in self.refs]
        rest = {name: getattr(data, name) for name in names}
        digests = self.digests | {name: digest(value) for name, value in rest.items() if name not in DERIVED}
        whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        return SharedData(dict(self.refs), ray.put(rest), whole)


def digest(value: Any) -> str:
    """Identifies the content of an array or of a tuple of them; None has one, too."""
    found = hashlib.sha256()
    for part in value if isinstance(value, tuple) else () if value is None else (value,):
        array = np.ascontiguousarray(part)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()
