"""Embedding rows that `predict` keeps beside its output until that is written: a killed one goes on with them."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from urgency_ray import storage
from urgency_ray.embedding.ledger import list_files
from urgency_ray.embedding.recovery import Left
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.patience import patiently

log = logging.getLogger(__name__)

SUFFIX = ".unfinished"


class KeptRows:
    """The rows of whole calls that an earlier `predict` of the same calls and transform left; all others are removed.

    Attributes:
        location: the folder that they are in, beside the output.
        fingerprint: of the rows that are there, and of the next ones.
        call_ids: of which calls they are.
    """

    def __init__(self, output: str, fingerprint: Fingerprint, manifest: pa.Table) -> None:
        self.location, self.fingerprint = storage.add_suffix(output, SUFFIX), fingerprint
        left = Left(self.location, manifest)
        if not left.is_by(fingerprint):
            log.info("%s was left by another model or other settings: starting over", self.location)
            self.discard()
            left = Left(self.location, manifest)
        left.keep(left.current)
        self.call_ids = left.current
        self._filesystem, path = storage.open_location(self.location)
        self._files = list_files(self._filesystem, path, allow_not_found=True)

    def tables(self) -> Iterator[pa.Table]:
        """The rows, file by file."""
        for file in self._files:
            read = functools.partial(pq.read_table, file, filesystem=self._filesystem, partitioning=None)
            yield patiently(self.location, read)

    def discard(self) -> None:
        """Remove them, and what has been kept since."""
        storage.remove_folder(self.location)


def keep_rows(table: pa.Table, location: str) -> pa.Table:
    """Ray Data stage: write rows below `location`, and give them on as they are."""
    if len(table):
        storage.write_table(storage.join(location, f"{uuid.uuid4().hex}.parquet"), table)
    return table
