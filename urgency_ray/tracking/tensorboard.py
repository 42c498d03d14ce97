"""Curves as TensorBoard event files: while a training runs, and in full once it has ended."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

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
UPLOAD_SEC = 10.0


class LiveCurves:
    """Curves that grow while a training runs; those of the former one go when the first epoch is there.

    Behind a URI, an object is put there anew every `UPLOAD_SEC`, if the store answers.

    Args:
        location: the log folder, of which each model is a subfolder.
    """

    name = "TensorBoard"

    def __init__(self, location: str) -> None:
        self._location = location
        self._curves: dict[str, _Curves] = {}
        self._copy = tempfile.TemporaryDirectory() if "://" in location else None
        self._folder = Path(storage.absolute(location) if self._copy is None else self._copy.name)
        self._uploaded = time.monotonic()

    def epochs(self, epochs: Epochs) -> None:
        """Add points."""
        if not self._curves:
            storage.remove_folder(self._location)
        for name, row in epochs:
            if name not in self._curves:
                self._curves[name] = _Curves(self._folder / name)
            self._curves[name].add(row, time.time())
        for name in {name for name, _ in epochs}:
            self._curves[name].flush()
        if time.monotonic() > self._uploaded + UPLOAD_SEC:
            self._uploaded = time.monotonic()
            self._upload()

    def trial(self, trial: TrialNote) -> None:
        """A search's curves are in its report."""

    def end(self, ended: Ended) -> None:
        """Make way for `write_events`, which knows the epochs of an interrupted training, too."""
        self._close()

    def fail(self) -> None:
        """Leave what was seen."""
        self._upload()
        self._close()

    def _upload(self) -> None:
        if self._copy is not None and self._curves:
            with contextlib.suppress(OSError):
                storage.copy_dir(self._copy.name, self._location)

    def _close(self) -> None:
        for curves in self._curves.values():
            curves.close()
        if self._copy is not None:
            self._copy.cleanup()


class _Curves:
    """The event file of one model, written at once: the library's own writer has a thread, which a full disk ends unheard."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        (written,) = folder.iterdir()
        written.rename(folder / EVENTS_FILE)
        self.flush = self._writer.flush
        self.close = self._writer.close

    def add(self, row: Mapping[str, Any], walltime: float) -> None:
        """A point of each curve."""
        for tag, column in TAGS.items():
            self._writer.write_event(Event(wall_time=walltime, step=row["epoch"], summary=scalar(tag, row[column])))


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
            curves = _Curves(Path(folder, name if member is None else f"{name}-{member}"))
            for row, end in zip(rows, ends, strict=True):
                # Epochs lie as far apart on the time axis as they took.
                curves.add(row.model_dump(), time.time() - ends[-1] + end)
            curves.close()
        storage.remove_folder(location)
        storage.copy_dir(folder, location)
