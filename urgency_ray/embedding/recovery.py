"""What earlier extracts, finished or not, left in a run folder, held against the calls that are planned today."""

from __future__ import annotations

import contextlib
import logging
import posixpath
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from urgency_ray import storage
from urgency_ray.embedding.changes import COMPARED_COLUMNS, PLANNED_COLUMNS, digest_rows, sum_digests
from urgency_ray.embedding.ledger import list_files
from urgency_ray.errors import Reason, RequestError
from urgency_ray.fingerprint import Fingerprint, refuse_other

log = logging.getLogger(__name__)

MENDED = (Reason.UNREADABLE_FILE, Reason.UNREADABLE_ARCHIVE, Reason.DUPLICATE_STEM, Reason.AMBIGUOUS_STEM)
"""Reasons that may hold no more though no file of the call has changed: its permissions have, or what lies beside it."""
_GONE = (Reason.MISSING_AUDIO, Reason.MISSING_LABEL, Reason.UNREADABLE_FILE)
"""Why planning rejects a call whose files are not all there."""
_COLUMNS = ["example_id", "call_id", "num_call_rows", *PLANNED_COLUMNS, "reason", "detail"]


class Left:
    """The rows that are there. A file that was never written to its end is removed; nothing else changes before `keep`.

    Ray Data has checkpoints of its own, but reading them takes an actor of a whole CPU and a GiB, which a small machine does
    not have to spare beside the encoders: the pipeline would wait for it for ever.

    Attributes:
        current: ids of the calls that have all their rows, made of the files that are planned.
        doubtful: ids of those that have all their rows, too, but whose files, split or region have changed since, or that were
            rejected for what may be mended by now: `unchanged` says which are as they were.
    """

    def __init__(self, embeddings: str, manifest: pa.Table) -> None:
        self._filesystem, path = storage.open_location(embeddings)
        self._manifest = manifest
        self._parts: dict[str, slice] = {}
        self._fingerprints: list[Fingerprint | None] = []
        tables, start = [], 0
        files = list_files(self._filesystem, path, allow_not_found=True)
        with ThreadPoolExecutor(storage.AT_ONCE) as pool:
            for file, table in zip(files, pool.map(self._read, files), strict=True):
                if table is not None:
                    self._fingerprints.append(Fingerprint.of_schema(table.schema))
                    self._parts[file] = slice(start, start := start + len(table))
                    tables.append(table.replace_schema_metadata())
        self._rows = pa.concat_tables(tables) if tables else None

    @property
    def current(self) -> pa.Array:
        """See above."""
        return self._judged[0]

    @property
    def doubtful(self) -> pa.Array:
        """See above."""
        return self._judged[1]

    @cached_property
    def _judged(self) -> tuple[pa.Array, pa.Array]:
        if self._rows is None:
            return pa.array([], pa.string()), pa.array([], pa.string())
        rows = self._rows.filter(pa.array(self._is_first))
        return _judge(rows, _planned(rows, self._manifest))

    @cached_property
    def _is_first(self) -> NDArray[np.bool_]:
        """Which rows are no second copy of one: of two extracts at once, or of a kill between a merged file and its parts."""
        assert self._rows is not None
        ids = self._rows["example_id"]
        is_first = np.full(len(ids), pc.count_distinct(ids).as_py() == len(ids))
        if not is_first.all():
            numbered = pa.table({"id": ids, "number": np.arange(len(ids))})
            is_first[numbered.group_by("id").aggregate([("number", "min")])["number_min"].to_numpy()] = True
        return is_first

    def is_by(self, fingerprint: Fingerprint) -> bool:
        """Whether all rows were made by what would make the next ones."""
        return all(found is not None and not found.differences(fingerprint) for found in self._fingerprints)

    def refuse_other(self, run_dir: str, fingerprint: Fingerprint) -> None:
        """Refuse what contradicts the rows.

        Raises:
            RequestError: they were made by other encoders or settings, or embedded calls are not planned.
        """
        for found in self._fingerprints:
            refuse_other(run_dir, found, fingerprint)
        if self._rows is not None:
            # A reject may have been of a file that is no row any more: its row goes, as that of a changed call does.
            embedded = self._rows["call_id"].filter(pc.is_null(self._rows["reason"])).unique()
            _refuse_vanished(run_dir, embedded, self._manifest)

    def unchanged(self, digests: pa.Table) -> pa.Array:
        """Ids of the doubtful calls whose rows are what `changes.digest_calls` makes of them now."""
        assert self._rows is not None
        parts, is_doubtful = [], self._is_first & _are_in(self._rows, self.doubtful)
        for file, part in self._parts.items():
            if is_doubtful[part].any():
                rows = self._read_compared(file)
                parts.append(digest_rows(rows.filter(pa.array(is_doubtful[part]))))
        same = _pairs(sum_digests(pa.concat_tables(parts))) & _pairs(digests)
        return pa.array(sorted(call_id for call_id, _ in same), pa.string())

    def _read_compared(self, file: str) -> pa.Table:
        """`COMPARED_COLUMNS` of a file, with nulls for what an older version did not write."""
        there = [name for name in COMPARED_COLUMNS if name in pq.read_schema(file, filesystem=self._filesystem).names]
        rows = pq.read_table(file, filesystem=self._filesystem, columns=there, partitioning=None)
        for name in COMPARED_COLUMNS:
            if name not in there:
                rows = rows.append_column(name, pa.nulls(len(rows), pa.string()))
        return rows

    def is_settled(self, kept: pa.Array) -> bool:
        """Whether `keep` has nothing to do."""
        if self._rows is None:
            return True
        return bool((self._are_of(kept) & _are_equal(self._rows, self._renewed)).all())

    def keep(self, kept: pa.Array) -> None:
        """Leave the rows of some calls as they are, but for what the plan says of them now, and remove those of all others."""
        if self._rows is None:
            return
        is_kept, is_new = self._are_of(kept), _are_equal(self._rows, self._renewed)
        for file, part in self._parts.items():
            if not is_kept[part].any():
                self._filesystem.delete_file(file)
            elif not (is_kept[part] & is_new[part]).all():
                rows = pq.read_table(file, filesystem=self._filesystem, partitioning=None)
                renewed = self._renewed.slice(part.start, len(rows))
                for name in renewed.column_names:
                    position = rows.schema.get_field_index(name)
                    rows = rows.set_column(position, rows.schema.field(position), renewed[name])
                partial = posixpath.join(posixpath.dirname(file), f"{storage.PARTIAL}{posixpath.basename(file)}")
                pq.write_table(rows.filter(pa.array(is_kept[part])), partial, filesystem=self._filesystem)
                self._filesystem.move(partial, file)

    def _are_of(self, kept: pa.Array) -> NDArray[np.bool_]:
        """Which rows stay where some calls do."""
        assert self._rows is not None
        return self._is_first & _are_in(self._rows, kept)

    def _read(self, file: str) -> pa.Table | None:
        try:
            if storage.is_partial(file):
                raise pa.ArrowInvalid("never put into its place")
            with self._filesystem.open_input_file(file) as source:
                return pq.ParquetFile(source).read(_COLUMNS, use_threads=False)
        except pa.ArrowInvalid:
            log.info("removing a file that was not written to its end: %s", posixpath.basename(file))
            # Nobody reads a partial one, and a store may let nobody remove what it has.
            with contextlib.suppress(OSError) if storage.is_partial(file) else contextlib.nullcontext():
                self._filesystem.delete_file(file)
            return None

    @cached_property
    def _renewed(self) -> pa.Table:
        """What the plan has now of each row: version, split and region, and of its rejects why."""
        assert self._rows is not None
        planned = _planned(self._rows, self._manifest)
        detail = pc.if_else(pc.is_valid(planned["reason"]), planned["detail"], self._rows["detail"])
        return planned.select(PLANNED_COLUMNS).append_column("detail", detail)


def _refuse_vanished(run_dir: str, calls: pa.Array, manifest: pa.Table) -> None:
    present = manifest.filter(pc.invert(pc.is_in(manifest["reason"], pa.array(_GONE))))["call_id"].combine_chunks()
    vanished = calls.filter(pc.invert(pc.is_in(calls, present)))
    # A stem that has come to name several calls has its folder before it: the call is there, with another id.
    vanished = vanished.filter(pc.invert(pc.is_in(_stems(vanished), _stems(present).unique())))
    if len(vanished):
        raise RequestError(
            f"--run-dir {run_dir}: holds embeddings of {len(calls)} calls, {len(vanished)} of which are there no more, or lack "
            f"a file ({vanished[0]}, say); bring them back, or choose another run folder"
        )


def _stems(call_ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Ids without folder and number."""
    return pc.replace_substring_regex(call_ids, r"^.*:|#\d+$", "")


def _judge(rows: pa.Table, planned: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Ids of the calls that are `current` and `doubtful`."""
    is_planned, fault = pc.is_valid(planned["call_id"]), planned["reason"]
    is_current = pc.and_(pc.equal(_sources(rows), _sources(planned)), pc.invert(pc.is_in(rows["reason"], pa.array(MENDED))))
    # What planning rejects is rejected for that, whatever its files hold.
    same_fault = pc.fill_null(pc.equal(rows["reason"], fault), False)
    judged = pa.table(
        {
            "call_id": rows["call_id"],
            "num_call_rows": rows["num_call_rows"],
            "is_current": pc.if_else(pc.is_valid(fault), same_fault, pc.and_(is_planned, is_current)),
            "is_kept": pc.if_else(pc.is_valid(fault), same_fault, is_planned),
        }
    )
    aggregates = [("num_call_rows", "max"), ("num_call_rows", "count"), ("is_current", "all"), ("is_kept", "all")]
    calls = judged.group_by("call_id").aggregate(aggregates)
    # Its utterances can be spread over two files, one of them never written.
    calls = calls.filter(pc.equal(calls["num_call_rows_max"], calls["num_call_rows_count"]))
    is_doubtful = pc.and_not(calls["is_kept_all"], calls["is_current_all"])
    return tuple(calls.filter(mask)["call_id"].combine_chunks() for mask in (calls["is_current_all"], is_doubtful))


def _planned(rows: pa.Table, manifest: pa.Table) -> pa.Table:
    """The row of the plan for each row, nulls where there is none."""
    plan = manifest.rename_columns({"version": "source_version"})
    return plan.take(pc.index_in(rows["call_id"], manifest["call_id"].combine_chunks()))


def _sources(table: pa.Table) -> pa.ChunkedArray:
    """A text for each row: what it was made of."""
    return pc.binary_join_element_wise(*(pc.fill_null(table[name], "") for name in PLANNED_COLUMNS), "\n")


def _are_in(rows: pa.Table, call_ids: pa.Array) -> NDArray[np.bool_]:
    """Which rows are of some calls: of all at once, since each look-up reads all ids."""
    return np.asarray(pc.is_in(rows["call_id"], call_ids).to_numpy())


def _are_equal(rows: pa.Table, others: pa.Table) -> NDArray[np.bool_]:
    """Which rows are the same in the columns of `others`."""
    pairs = ((pc.fill_null(rows[name], ""), pc.fill_null(others[name], "")) for name in others.column_names)
    return np.asarray(np.all([pc.equal(*pair).to_numpy() for pair in pairs], axis=0))


def _pairs(digests: pa.Table) -> set[tuple[str, int]]:
    return set(zip(digests["call_id"].to_pylist(), digests["digest"].to_pylist(), strict=True))
