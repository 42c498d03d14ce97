"""The names in a run folder, each written down once: docs/results.md's listing as code. Reading and writing its JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from urgency_ray import storage
from urgency_ray.errors import RequestError

Content = TypeVar("Content")


@dataclass(frozen=True)
class SearchFolder:
    """What `tune` leaves in a run folder's `tune/`.

    Attributes:
        location: its path or URI.
    """

    location: str

    @property
    def config(self) -> str:
        """The config that was searched from."""
        return storage.join(self.location, "config.yaml")

    @property
    def journal(self) -> str:
        """The Optuna journal."""
        return storage.join(self.location, "study.log")

    @property
    def trials(self) -> str:
        """A row a trial."""
        return storage.join(self.location, "trials.parquet")

    @property
    def history(self) -> str:
        """Every epoch of every trial."""
        return storage.join(self.location, "history.parquet")

    @property
    def best(self) -> str:
        """The winner's config."""
        return storage.join(self.location, "best.yaml")

    @property
    def model(self) -> str:
        """The winner's model folder."""
        return storage.join(self.location, "model")

    @property
    def metrics(self) -> str:
        """What the search came to."""
        return storage.join(self.location, "metrics.json")

    @property
    def ray(self) -> str:
        """What Ray Train notes of trials of several workers."""
        return storage.join(self.location, "ray")


@dataclass(frozen=True)
class RunFolder:
    """The files and folders of a run.

    Attributes:
        location: its path or URI.
    """

    location: str

    @property
    def config(self) -> str:
        """The full resolved config."""
        return storage.join(self.location, "config.yaml")

    @property
    def embeddings(self) -> str:
        """The parquet dataset of embedding rows, partitioned by status."""
        return storage.join(self.location, "embeddings")

    @property
    def extract(self) -> str:
        """The accounts of the extract, or import, that made the embeddings."""
        return storage.join(self.location, "extract.json")

    @property
    def model(self) -> str:
        """The trained model's folder."""
        return storage.join(self.location, "model")

    @property
    def checkpoints(self) -> str:
        """Ray Train's storage."""
        return storage.join(self.location, "checkpoints")

    @property
    def tensorboard(self) -> str:
        """Curves of each model."""
        return storage.join(self.location, "tensorboard")

    @property
    def history(self) -> str:
        """Every epoch of every model trained."""
        return storage.join(self.location, "history.json")

    @property
    def metrics(self) -> str:
        """Figures by split and task."""
        return storage.join(self.location, "metrics.json")

    @property
    def predictions(self) -> str:
        """A row an embedded example."""
        return storage.join(self.location, "predictions.parquet")

    @property
    def ceiling(self) -> str:
        """What could be reached at best on a synthetic corpus; the demo writes it."""
        return storage.join(self.location, "ceiling.json")

    @property
    def report(self) -> str:
        """The page."""
        return storage.join(self.location, "report.html")

    @property
    def comparison(self) -> str:
        """The page of this run beside others."""
        return storage.join(self.location, "compare.html")

    def lease(self, command: str) -> str:
        """The lease of a command that is at work on this folder, while it is."""
        return storage.join(self.location, f"{command}.lease")

    @property
    def search(self) -> SearchFolder:
        """What `tune` leaves."""
        return SearchFolder(storage.join(self.location, "tune"))


def read_json(location: str, kind: type[Content], advice: str) -> Content:
    """A JSON file of a run folder, checked against the type that says what is in it.

    Args:
        location: its path or URI.
        kind: a pydantic model, or a list or dict of what pydantic knows.
        advice: what brings the file back, `run train again`, say: the end of the message where it cannot be used.

    Raises:
        RequestError: it is missing, not JSON, or not of this kind (another version's); the text is one line.
        OSError: its place does not answer.
    """
    try:
        return TypeAdapter(kind).validate_json(storage.read_text(location))
    except FileNotFoundError:
        raise RequestError(f"{location}: no such file; {advice}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "missing":
            said = f"{field} is missing"
        else:
            what = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
            said = ": ".join(part for part in (field, what) if part)
    except UnicodeDecodeError:
        said = "not UTF-8 text"
    raise RequestError(f"{location}: cannot be read: {said}; it is damaged or another version's: {advice}")


def write_json(location: str, content: BaseModel | Sequence[BaseModel], indent: int = 1) -> None:
    """Write a JSON file of a run folder: the fields that were set, in the order of their type; None is null."""
    documents = [content] if isinstance(content, BaseModel) else content
    plain = [document.model_dump(exclude_unset=True) for document in documents]
    whole = plain[0] if isinstance(content, BaseModel) else plain
    storage.write_text(location, json.dumps(whole, ensure_ascii=False, indent=indent, allow_nan=False))
