"""Types of what the session's fixtures hand out: see conftest.py for what each of them is."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from urgency_ray.accounts import ExtractAccounts
from urgency_ray.config import Config
from urgency_ray.scoring.blocks import Metrics, SearchSummary
from urgency_ray.synthesize.corpus import Corpus

Result = TypeVar("Result")

KnownCorpus = tuple[Path, Corpus]
Extracted = tuple[str, ExtractAccounts, Config]
Trained = tuple[str, Metrics, Config]
Searched = tuple[str, SearchSummary, Config]


class Share(Protocol):
    """The fixture `share`."""

    def __call__(
        self, name: str, command: Callable[..., Result], call: Callable[[str], Result], copy_of: str | None = None
    ) -> tuple[str, Result]: ...
