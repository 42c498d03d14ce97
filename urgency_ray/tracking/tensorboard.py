"""Curves as TensorBoard event files: while a training runs, and in full once it has ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path

from tensorboardX import SummaryWriter

from urgency_ray import storage
from urgency_ray.tracking.tracker import Ended, Epochs, TrialNote
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
FLUSH_SEC = 1
UPLOAD_SEC = 10.0


class LiveCurves:
    """Curves that grow while a training runs; those of the former one go when the first epoch is there.

    Behind a URI, an object is put there anew every `UPLOAD_SEC`.

    Args:
        location: the log folder, of which each model is a subfolder.
    """

    name = "TensorBoard"

    def __init__(self, location: str) -> None:
        self._location = location
        self._writers: dict[str, SummaryWriter] = {}
        self._copy = tempfile.TemporaryDirectory() if "://" in location else None
        self._folder = Path(storage.absolute(location) if self._copy is None else self._copy.name)
        self._uploaded = time.monotonic()

    def epochs(self, epochs: Epochs) -> None:
        """Add points."""
        if not self._writers:
            storage.remove_folder(self._location)
        for name, row in epochs:
            if name not in self._writers:
                self._writers[name] = _open(self._folder / name)
            for tag, column in TAGS.items():
                self._writers[name].add_scalar(tag, row[column], row["epoch"])
        if self._copy is not None and time.monotonic() > self._uploaded + UPLOAD_SEC:
            self._uploaded = time.monotonic()
            storage.copy_dir(self._copy.name, self._location)

    def trial(self, trial: TrialNote) -> None:
        """A search's curves are in its report."""

    def end(self, ended: Ended) -> None:
        """Curves of all epochs, those of an interrupted training included, in place of what was seen of them."""
        self.fail()
        write_events(ended.history, self._location)

    def fail(self) -> None:
        """Leave what was seen."""
        for writer in self._writers.values():
            writer.close()
        if self._copy is not None:
            if self._writers:
                storage.copy_dir(self._copy.name, self._location)
            self._copy.cleanup()


def write_events(history: Sequence[EpochRow], location: str) -> None:
    """Write `TAGS` by epoch, a TensorBoard run for each model and each member of an ensemble, and nothing else, to a folder.

    Args:
        history: rows of history.json.
        location: path or URI of the log folder, of which each run is a subfolder.
    """
    with tempfile.TemporaryDirectory() as folder:
        for (name, member), group in groupby(history, key=lambda row: (row.modalities, row.member)):
            rows = list(group)
            ends = list(accumulate(row.seconds for row in rows))
            with _open(Path(folder, name if member is None else f"{name}-{member}")) as writer:
                for row, end in zip(rows, ends, strict=True):
                    for tag, column in TAGS.items():
                        # Epochs lie as far apart on the time axis as they took.
                        writer.add_scalar(tag, getattr(row, column), row.epoch, walltime=time.time() - ends[-1] + end)
        storage.remove_folder(location)
        storage.copy_dir(folder, location)


def _open(folder: Path) -> SummaryWriter:
    """A writer into `EVENTS_FILE`: the library's own name for it changes from time to time."""
    writer = SummaryWriter(str(folder), flush_secs=FLUSH_SEC)
    (written,) = folder.iterdir()
    written.rename(folder / EVENTS_FILE)
    return writer
