"""How far a training is: a line for each epoch, and on a terminal a bar of all that are left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from urgency_ray.progress import Bar
from urgency_ray.training.worker import LAST

log = logging.getLogger(__name__)

Told = Callable[[list[tuple[str, dict[str, Any]]]], None]
"""Takes names of models, each with the figures of one of its epochs."""


class EpochProgress(Bar):
    """Says of each epoch how it went, to the user and to whoever else is told.

    Args:
        most_epochs: of each model that has not ended; one that stops early takes the rest of its own out of the whole.
        told: of each epoch as it ends.
    """

    def __init__(self, most_epochs: Mapping[str, int], told: Told | None, console: Any = None) -> None:
        super().__init__("epochs", sum(most_epochs.values()), console)
        self._most, self._told = dict(most_epochs), told
        # A model may go on from a checkpoint: what it had done before is no part of the pace.
        self._before: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def __call__(self, epochs: list[tuple[str, dict[str, Any]]]) -> None:
        """Take what workers send."""
        told = [(name, {key: value for key, value in row.items() if key != LAST}) for name, row in epochs]
        if self._told is not None:
            self._told(told)
        for name, row in epochs:
            losses = f"train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}"
            log.info(
                "%s epoch %d: %s, val macro-F1 %.4f, %.2f s", name, row["epoch"], losses, row["val_macro_f1"], row["seconds"]
            )
            self._before.setdefault(name, row["epoch"] - 1)
            self._done[name] = row["epoch"]
            if row[LAST]:
                self._most[name] = row["epoch"]
        before = sum(self._before.values())
        self.total = sum(self._most.values()) - before
        done, elapsed = sum(self._done.values()) - before, self.elapsed()
        self.show(done, f"{done / elapsed:,.1f} epochs/s", elapsed)
