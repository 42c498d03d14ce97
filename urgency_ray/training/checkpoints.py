"""Which checkpoints a training may go on from: those of the same configs, data, code and initial weights, and no others."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from urgency_ray import storage
from urgency_ray.config import Config, Role, fields_of, read_field
from urgency_ray.model.classifier import UrgencyClassifier

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
IDENTITY_FILE = "identity.json"


class Identity(BaseModel):
    """What the result of a training depends on.

    Attributes:
        configs: of each model by name, the fields that decide a weight.
        data: digest of each model's rows and labels.
        code: `code_digest`.
        weights: digest of each model's initial weights: a text encoder's checkpoint can change under its name.
    """

    model_config = ConfigDict(frozen=True)

    configs: dict[str, dict[str, Any]]
    data: list[str]
    code: str
    weights: list[str]

    @property
    def digest(self) -> str:
        """Names the training."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def describe_change(self, former: Identity) -> str:
        """What is not as it was in a former training, in words."""
        if self.configs.keys() != former.configs.keys():
            return f"it trained {', '.join(former.configs)}, this trains {', '.join(self.configs)}"
        for name, fields in self.configs.items():
            before = former.configs[name]
            for field in sorted(fields.keys() | before.keys()):
                if before.get(field) != fields.get(field):
                    return f"{field} was {before.get(field)}, is {fields.get(field)}"
        if self.data != former.data:
            return "the embeddings, labels or splits have changed"
        return "the code of urgency_ray has changed" if self.code != former.code else "the initial weights have changed"


def identify(configs: dict[str, Config], data: list[str], models: list[UrgencyClassifier]) -> Identity:
    """The identity of a training of some models: their configs by name, digests of their data, and how they begin."""
    trees = {name: config.model_dump(mode="json") for name, config in configs.items()}
    fields = fields_of(Role.RECIPE, Role.SETUP)
    return Identity(
        configs={name: {dotted: read_field(tree, dotted) for dotted in fields} for name, tree in trees.items()},
        data=data,
        code=code_digest(PACKAGE),
        weights=[_weights_digest(model) for model in models],
    )


class Checkpoints:
    """The folder of one training below a run's checkpoints, which Ray Train fills, and the results of its models.

    Attributes:
        root: the run folder's checkpoints.
        name: of the training's folder.
        identity: of the training.
    """

    def __init__(self, root: str, identity: Identity) -> None:
        self.root, self.identity = root, identity
        self.name = f"train-{identity.digest}"

    @property
    def location(self) -> str:
        """The folder of this training."""
        return storage.join(self.root, self.name)

    def result(self, model: str) -> str:
        """Where the result of a model lies once it came to its end."""
        return storage.join(self.location, "results", f"{model}.pt")

    def begin(self) -> None:
        """Note what the training is of; say why it starts over where one that is not it has been interrupted."""
        if storage.exists(storage.join(self.location, IDENTITY_FILE)):
            return
        for folder in self._others():
            former = _read_identity(storage.join(folder, IDENTITY_FILE))
            if former is not None and not Checkpoints(self.root, former).is_ended():
                why = self.identity.describe_change(former)
                log.warning("warning: an interrupted training cannot be gone on with (%s): training starts over", why)
        self.note()

    def note(self) -> None:
        """Write down what the training is of."""
        storage.write_text(storage.join(self.location, IDENTITY_FILE), self.identity.model_dump_json())

    def is_ended(self) -> bool:
        """Whether all models have come to their end."""
        return all(storage.exists(self.result(model)) for model in self.identity.configs)

    def discard(self) -> None:
        """Remove the folder of this training, which led nowhere."""
        storage.remove_folder(self.location)

    def discard_others(self) -> None:
        """Remove what former trainings left."""
        for folder in self._others():
            storage.remove_folder(folder)

    def _others(self) -> list[str]:
        return [storage.join(self.root, name) for name in storage.list_folders(self.root) if name != self.name]


def _read_identity(location: str) -> Identity | None:
    """None where there is none that this version can read."""
    try:
        return Identity.model_validate_json(storage.read_text(location))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def code_digest(package: Path) -> str:
    """Identifies the code that decides a trained weight, below the folder of the package: checkpoints of other code are none.

    Of scoring, it is the figures alone: they pick the best epoch.
    """
    wings = ("examples/*.py", "model/*.py", "scoring/metrics.py", "training/*.py")
    digest = hashlib.sha256()
    for source in sorted(source for wing in wings for source in package.glob(wing)):
        digest.update(f"{source.relative_to(package).as_posix()} {len(source.read_bytes())}\n".encode() + source.read_bytes())
    return digest.hexdigest()


def _weights_digest(model: UrgencyClassifier) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()
