"""The local disk below a root, which is not to be trusted: links that loop, folders that are locked, files that are none."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from urgency_ray.calls.archives import Fault
from urgency_ray.errors import Reason

# Of the system's own: resource forks, bins, what fsck found. Files of calls that lie there were deleted.
_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle", "#snapshot"}
)
_KINDS = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
# A folder's own fault; anything else that a listing meets, a disk that is gone, say, is everybody's.
_OF_ONE_FOLDER = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class FileOnDisk(NamedTuple):
    """A file, or a folder that cannot be listed: its path, size and version, and why it is not read."""

    path: str
    num_bytes: int
    version: str
    fault: Fault
    is_folder: bool = False


@lru_cache(maxsize=4096)
def is_hidden(path: str) -> bool:
    """Whether a part of a path is hidden, or a folder of the system's own."""
    return any(part in _SYSTEM_FOLDERS or (part[:1] == "." and part not in (".", "..")) for part in path.split("/"))


def walk(base: str, hidden: list[str]) -> Iterator[FileOnDisk]:
    """The files below a folder, each once; of what is hidden, the first path of each folder or file goes to `hidden`.

    A link to a folder is followed after all that is really there, and no folder is entered twice, or above `base`.

    Raises:
        OSError: the root, or the disk below it, cannot be listed.
    """
    seen = {_identity(above) for above in _above(base)}
    folders, links = [base], list[str]()
    while folders or links:
        if not folders:
            links.sort(reverse=True)  # of two links to one folder always the same is followed
            folders.append(links.pop())
        folder = folders.pop()
        try:
            if (identity := _identity(folder)) in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError as error:
            if folder == base or error.errno not in _OF_ONE_FOLDER:
                raise
            fault = Reason.UNREADABLE_FILE, f"the folder cannot be listed: {type(error).__name__}"
            yield FileOnDisk(_text(folder), 0, "", fault, is_folder=True)
            continue
        for entry in inside:
            if is_hidden(entry.name):
                hidden.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - 10 times faster than Path
                links.append(entry.path)
            else:
                yield _look_at(entry)


def _look_at(entry: os.DirEntry[str]) -> FileOnDisk:
    path = entry.path
    fault: Fault = None
    if not path.isascii() and (text := _text(path)) != path:
        # Old unzip tools leave cp949 names on a disk; pyarrow opens no such file.
        path, fault = (
            text,
            (Reason.UNREADABLE_FILE, "its path is not UTF-8; rename it, for example with convmv -f cp949 -t utf-8"),
        )
    try:
        info = entry.stat()
    except OSError as error:
        what = "a link to what is not there" if entry.is_symlink() else "cannot be looked at"
        return FileOnDisk(path, 0, "", (Reason.UNREADABLE_FILE, f"{what}: {type(error).__name__}"))
    if not stat.S_ISREG(info.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(info.st_mode)), "not a regular file")
        return FileOnDisk(path, 0, "", (Reason.UNREADABLE_FILE, f"{kind}, not a regular file; it is not opened"))
    return FileOnDisk(path, info.st_size, str(info.st_mtime_ns), fault)


def _text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _identity(folder: str) -> tuple[int, int]:
    info = os.stat(folder)  # noqa: PTH116 - 10 times faster than Path
    return info.st_dev, info.st_ino


def _above(base: str) -> Iterator[str]:
    folder = os.path.realpath(base)
    while (above := posixpath.dirname(folder)) != folder:
        yield above
        folder = above
