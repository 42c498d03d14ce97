"""The file that studies are kept in: opened where locks are odd, and mended where a lost machine or a bad disk left its mark.

Whoever opens it holds the lease of the search: nobody else writes, and a lock that is there was left by a process that is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

from urgency_ray import storage
from urgency_ray.run_folder import SearchFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Journal:
    """Where studies are kept, and what to call when a trial has ended."""

    storage: BaseStorage
    publish: Callable[[], None]


@contextlib.contextmanager
def open_journal(folder: SearchFolder) -> Iterator[Journal]:
    """The studies in the folder's journal.

    Optuna appends to a local file; behind a URI, the whole file is put there anew after each trial.
    """
    if "://" not in folder.location:
        filesystem, path = storage.open_location(folder.journal)
        filesystem.create_dir(posixpath.dirname(path), recursive=True)
        yield Journal(_open_file(Path(path)), lambda: None)
        return
    with tempfile.TemporaryDirectory() as local:
        copy = Path(local, "study.log")
        if storage.exists(folder.journal):
            storage.copy_file(folder.journal, str(copy))
        yield Journal(_open_file(copy), lambda: storage.copy_file(str(copy), folder.journal))


def _open_file(path: Path) -> BaseStorage:
    if path.exists():
        mend(path)
    Path(f"{path}.lock").unlink(missing_ok=True)
    lock = JournalFileSymlinkLock if _can_link(path) else JournalFileOpenLock
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock(str(path))))


def mend(path: Path) -> None:
    """Cut what cannot be read off the end of a journal, so that Optuna neither fails on it nor appends to half a line.

    A lost machine leaves a last line without its end: it goes without a word, since its trial runs again. A line that cannot be
    read in between takes all that came after it along, into `<journal>.damaged`, with a warning: Optuna's records build on each
    other.
    """
    content, start = path.read_bytes(), 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                break
            json.loads(line)
        except ValueError:
            damaged = path.with_name(f"{path.name}.damaged")
            damaged.write_bytes(content[start:])
            log.warning("warning: %s: line %d cannot be read; it and what follows lie in %s now", path, number, damaged.name)
            break
        start += len(line)
    if start < len(content):
        with path.open("r+b") as file:
            file.truncate(start)


def _can_link(path: Path) -> bool:
    """Whether symbolic links can be made beside the journal; exFAT, mounted drives and some network disks have none."""
    link = Path(f"{path}.link")
    try:
        link.symlink_to(path)
    except OSError:
        return False
    link.unlink()
    return True
