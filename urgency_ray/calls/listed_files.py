"""The files that a manifest names -> where each is, on a disk, in a store or in an archive, or why it is not read."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import quote, unquote

from pyarrow import fs

from urgency_ray import storage
from urgency_ray.calls.archives import is_archive_name
from urgency_ray.calls.files import Listing
from urgency_ray.errors import Reason, RequestError, UnreachableError

_CHAIN = "::"
_SCHEMES = ("zip://", "tar://")
_A_FOLDER = "a folder, not a file"
NO_FILE = "no such file"
"""The fault of a path at which nothing is."""


class Named(NamedTuple):
    """A file as a row names it.

    Attributes:
        name: its path as it is written; of a member, that of the archive and its own behind it.
        location: where it lies, or the archive that it is in.
        member: its path in the archive; None of a file.
        is_chained: whether the name says that it is a member, and no path that only looks so.
    """

    name: str
    location: str
    member: str | None = None
    is_chained: bool = False

    @property
    def place(self) -> tuple[str, str | None]:
        """What two names of one file share."""
        return self.location, self.member

    @property
    def suffix(self) -> str:
        """That of its name, in lower case."""
        return storage.suffix(self.name).lower()

    @property
    def stem(self) -> str:
        """Its name without folder and suffix."""
        return posixpath.splitext(posixpath.basename(storage.without_options(self.name)))[0]


class FileFound(NamedTuple):
    """A file that a row names: where it is, as `files.read_file` takes it; or why it is not read.

    Attributes:
        reason: where it is there and cannot be used; None where there is none.
    """

    location: str
    member: str | None = None
    num_bytes: int = 0
    version: str = ""
    fault: str | None = None
    reason: Reason | None = None


def folder_of(manifest: str) -> str:
    """The folder that the paths in a manifest are relative to."""
    return storage.folder_of(storage.absolute(manifest))


def resolve(base: str, name: str) -> Named:
    """The file that a row names: a URI, an absolute path, or one relative to `base`.

    A member of an archive is named as fsspec, and so Hugging Face's datasets, do it: `zip://calls/a.wav::TS_x.zip`, or by a
    path that goes on behind the archive's: `TS_x.zip/calls/a.wav`.
    """
    *inner, outer = name.split(_CHAIN)
    if inner and all(part.startswith(_SCHEMES) for part in inner):
        member = "/".join(part.partition("://")[2].strip("/") for part in reversed(inner))
        return Named(normalize("NFC", f"{outer}/{member}"), _locate(base, outer), member, is_chained=True)
    location = _locate(base, name)
    address = storage.without_options(location)
    parts = address.split("/")
    depth = next((depth for depth, part in enumerate(parts[:-1], 1) if is_archive_name(part)), None)
    if depth is None:
        return Named(normalize("NFC", name), location)
    member = "/".join(parts[depth:])
    archive = "/".join(parts[:depth]) + location[len(address) :]
    return Named(normalize("NFC", name), archive, unquote(member) if "://" in location else member)


def _locate(base: str, name: str) -> str:
    if "://" in name:
        return name if name.isascii() and " " not in name else quote(name, safe="/:%?&=+")
    if name.startswith(("/", "~")):
        return storage.absolute(name)
    if "://" not in base:
        return storage.absolute(posixpath.join(base, name))
    scheme, _, folder = storage.join(base, quote(name)).partition("://")
    return f"{scheme}://{posixpath.normpath(folder)}"


def look_up(names: Iterable[Named]) -> dict[Named, FileFound]:
    """What is there of each file.

    A store is asked once for all files of a folder, and an archive once for all its members.

    Raises:
        UnreachableError: a place cannot be reached.
    """
    wanted = list(dict.fromkeys(names))
    files = _look_into_folders(name.location for name in wanted)
    found = {name: files[name.location] for name in wanted if name.member is None}
    members: defaultdict[str, list[Named]] = defaultdict(list)
    folders: dict[Named, str] = {}
    for name in wanted:
        if name.member is None:
            continue
        archive = files[name.location]
        if archive.fault is None:
            members[archive.location].append(name)
        elif archive.fault == _A_FOLDER and not name.is_chained:
            folders[name] = storage.join(name.location, quote(name.member) if "://" in name.location else name.member)
        else:
            found[name] = archive
    inside = _look_into_folders(folders.values())
    found |= {name: inside[location] for name, location in folders.items()}
    for location, some in members.items():
        found |= _look_into_archive(location, some)
    return found


def _look_into_archive(location: str, names: list[Named]) -> dict[Named, FileFound]:
    """What is there of the members of an archive; a name that differs in its Unicode form alone is the same."""
    known: dict[str, FileFound] = {}
    broken: FileFound | None = None
    try:
        listing = Listing(location)
        inside = f"{listing.base.rstrip('/')}/{posixpath.basename(storage.open_location(location)[1])}/"
        for entry in listing.entries():
            reason, fault = entry.fault or (None, None)
            file = FileFound(entry.container, entry.member, entry.num_bytes, entry.version, fault, reason)
            if entry.member is None:
                broken = file
            path = normalize("NFC", f"{entry.folder}/{entry.filename}"[len(inside) :])
            if fault is None or path not in known:
                known[path] = file
    except RequestError:
        words = "no archive of a kind that is read (.zip, .tar)"
        broken = FileFound(location, fault=words, reason=Reason.UNREADABLE_ARCHIVE)
    missing = FileFound(location, fault="no such file in the archive")
    return {name: broken or _find(known, normalize("NFC", name.member or "")) or missing for name in names}


def _find(known: dict[str, FileFound], path: str) -> FileFound | None:
    """A member by its path, or the archive in its path that cannot be read."""
    if path in known:
        return known[path]
    above = posixpath.dirname(path)
    while above and above not in known:
        above = posixpath.dirname(above)
    return known[above] if above and known[above].fault else None


def _look_into_folders(places: Iterable[str]) -> dict[str, FileFound]:
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for place in dict.fromkeys(places):
        by_folder[posixpath.dirname(storage.without_options(place))].append(place)
    return {place: file for some in by_folder.values() for place, file in _look_into(some)}


def _look_into(places: list[str]) -> Iterator[tuple[str, FileFound]]:
    """What is there of the files of one folder; a name that differs in its Unicode form alone is the same."""
    try:
        filesystem, path = storage.open_location(places[0])
        infos = filesystem.get_file_info(fs.FileSelector(posixpath.dirname(path), allow_not_found=True))
    except RequestError:
        words = "no path, nor a URI of a kind that is read (s3://, gs://)"
        yield from ((place, FileFound(place, fault=words)) for place in places)
        return
    except (OSError, ValueError) as error:
        if "://" in places[0]:
            said = " ".join(str(error).split())
            raise UnreachableError(f"{posixpath.dirname(places[0])}: cannot be reached: {said}") from None
        yield from ((place, FileFound(place, fault="its folder cannot be read")) for place in places)
        return
    known = {info.base_name: info for info in infos}
    alike = {normalize("NFC", name): info for name, info in known.items()}
    for place in places:
        name = posixpath.basename(unquote(storage.without_options(place)) if "://" in place else place)
        info = known.get(name) or alike.get(normalize("NFC", name))
        yield place, _found(place, info)


def _found(place: str, info: fs.FileInfo | None) -> FileFound:
    if info is None or info.type == fs.FileType.NotFound:
        return FileFound(place, fault=NO_FILE)
    if info.type == fs.FileType.Directory:
        return FileFound(place, fault=_A_FOLDER)
    name = quote(info.base_name) if "://" in place else info.base_name
    address, mark, options = place.partition("?") if "://" in place else (place, "", "")
    location = f"{posixpath.dirname(address)}/{name}{mark}{options}"
    return FileFound(location, None, info.size or 0, str(info.mtime_ns or ""))
