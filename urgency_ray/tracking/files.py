"""Files of a run, wherever it lies, in a local folder, for trackers that take such a one."""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyarrow import fs

from urgency_ray import storage


@contextlib.contextmanager
def fetch(locations: Sequence[str]) -> Iterator[Path]:
    """A folder, for as long as it is needed, with copies of files and folders, each by its own name.

    Args:
        locations: paths or URIs; what is not there is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        for location in locations:
            filesystem, path = storage.open_location(location)
            kind = filesystem.get_file_info(path).type
            place = Path(folder, posixpath.basename(storage.without_options(location).rstrip("/")))
            if kind == fs.FileType.Directory:
                storage.copy_dir(location, str(place))
            elif kind == fs.FileType.File:
                storage.copy_file(location, str(place))
        yield Path(folder)
