"""The history of a training as TensorBoard event files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path

from tensorboardX import SummaryWriter

from urgency_ray import storage
from urgency_ray.training.history import EpochRow

TAGS = {
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "macro_f1/val": "val_macro_f1",
    "accuracy/val": "val_accuracy",
    "learning_rate": "learning_rate",
}
"""Tag of each curve, and its column of history.json."""
EVENTS_FILE = "events.out.tfevents.train"
"""One name for good: a second training replaces the curves of the first, and the name does not tell the host's."""


def write_events(history: Sequence[EpochRow], location: str) -> None:
    """Write `TAGS` by epoch, a TensorBoard run for each model and each member of an ensemble, to a folder or URI.

    Args:
        history: rows of history.json.
        location: the log folder, of which each run is a subfolder.
    """
    with tempfile.TemporaryDirectory() as folder:
        for (name, member), group in groupby(history, key=lambda row: (row.modalities, row.member)):
            rows = list(group)
            ends = list(accumulate(row.seconds for row in rows))
            run = Path(folder, name if member is None else f"{name}-{member}")
            with SummaryWriter(str(run)) as writer:
                for row, end in zip(rows, ends, strict=True):
                    for tag, column in TAGS.items():
                        # Epochs lie as far apart on the time axis as they took.
                        writer.add_scalar(tag, getattr(row, column), row.epoch, walltime=time.time() - ends[-1] + end)
            (written,) = run.iterdir()
            written.rename(run / EVENTS_FILE)
        storage.copy_dir(folder, location)
