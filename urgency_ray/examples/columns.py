"""The columns of embedded rows, read batch by batch: of many million rows, each is kept in few bytes.

Texts but ids become numbers as they are read, and vectors beyond a share of the memory lie in a file.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from urgency_ray.examples.soundness import Seen, as_vectors
from urgency_ray.numbering import Hashes, hash_texts
from urgency_ray.schema import ACOUSTIC_FEATURES, PROVIDER_SPLITS, SENTIMENT_LABELS, Status

MIN_TEXT_CHARS = 40
"""Shorter texts have no hash: that two people say them word for word is no wonder (a dispatcher's opening line, a "yes")."""
MAPPED_SHARE = 0.1
"""Vectors of one kind that would take more of the memory that is free are mapped."""
_EMBEDDED = pc.field("status") == Status.EMBEDDED
_ROWS_AT_ONCE = 1 << 18
_TURNS = ("speaker", "start_ms", "end_ms")


class Columns:
    """What is small of embedded rows, in the order of the files.

    Attributes:
        example_id, call_id: the ids; the same array where no id differs from the call's.
        texts: further columns of texts, by name.
        provider_split, sentiment: int8, places in `schema.PROVIDER_SPLITS` and `SENTIMENT_LABELS`; -1 is none of these.
        urgency: int8, -1 where unknown.
        acoustic: float32 (R, 5).
        audio: hashes of `audio_sha256`.
        turns: `speaker`, `start_ms` and `end_ms`, where they are asked for.
        seen: what is unsound.
        num_doubled: rows that have the id of another, once they are sorted.

    Args:
        dataset: embedding rows.
        texts: names of further columns of texts.
        by_call: whether `turns` are wanted.
    """

    def __init__(self, dataset: pads.Dataset, texts: list[str], *, by_call: bool) -> None:
        self._ids: dict[str, list[pa.Array]] = {name: [] for name in ("example_id", "call_id", *texts)}
        self._parts: defaultdict[str, list[Any]] = defaultdict(list)
        self.seen, self.num_doubled = Seen(), 0
        names = [*self._ids, "provider_split", "audio_sha256", "urgency", "sentiment", *ACOUSTIC_FEATURES]
        names += ["utterance_id", *_TURNS] if by_call else []
        for batch in _batches(dataset, names):
            if len(batch):
                self._add(batch, by_call)
        is_call = all(one is other for one, other in zip(self._ids["example_id"], self._ids["call_id"], strict=True))
        ids = {name: _join(parts) for name, parts in self._ids.items() if name != "call_id" or not is_call}
        self.example_id, self.call_id = ids["example_id"], ids["example_id" if is_call else "call_id"]
        self.texts = {name: ids[name] for name in texts}
        self._ids.clear()
        self.provider_split, self.sentiment, self.urgency = (
            self._take(name, np.int8) for name in ("provider_split", "sentiment", "urgency")
        )
        self.acoustic = self._take("acoustic", np.float32).reshape(-1, len(ACOUSTIC_FEATURES))
        self.audio = Hashes.join(self._parts.pop("audio", []))
        self.turns = {name: pd.concat(self._parts.pop(name), ignore_index=True) for name in _TURNS if name in self._parts}

    def __len__(self) -> int:
        return len(self.urgency)

    def sort(self, *, by_call: bool) -> NDArray[np.int64]:
        """Put all but `audio` in the order of the ids, with `by_call` of the calls first; returns the order, (R,)."""
        is_call = self.call_id is self.example_id
        order = pc.sort_indices(self.example_id)
        ids = self.example_id.take(order)
        self.num_doubled = int(pc.sum(pc.equal(ids[1:], ids[:-1]), min_count=0).as_py()) if len(ids) else 0
        if by_call:
            calls = self.call_id.take(order)
            order = order.take(pc.sort_indices(calls))
            ids = self.example_id.take(order)
        self.example_id = ids
        self.call_id = ids if is_call else self.call_id.take(order)
        self.texts = {name: values.take(order) for name, values in self.texts.items()}
        places: NDArray[np.int64] = order.to_numpy().astype(np.int64)
        self.turns = {name: values.iloc[places].reset_index(drop=True) for name, values in self.turns.items()}
        for name in ("provider_split", "sentiment", "urgency", "acoustic"):
            setattr(self, name, getattr(self, name)[places])
        return places

    def _take(self, name: str, kind: Any) -> NDArray[Any]:
        return np.concatenate([*self._parts.pop(name, []), np.empty(0, kind)]).astype(kind, copy=False)

    def _add(self, batch: pa.RecordBatch, by_call: bool) -> None:
        for name, parts in self._ids.items():
            column = batch.column(name).cast(pa.large_string())
            # Of whole calls one copy is enough.
            same = self._ids["example_id"][-1] if name == "call_id" else None
            parts.append(same if same is not None and column.equals(same) else column)
        self.seen.add(batch, by_call)
        for name, labels in (("provider_split", PROVIDER_SPLITS), ("sentiment", SENTIMENT_LABELS)):
            places = pc.index_in(batch.column(name).cast(pa.string()), pa.array(labels))
            self._parts[name].append(pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int8))
        urgency = pc.fill_null(batch.column("urgency").cast(pa.int64()), -1)
        self._parts["urgency"].append(urgency.to_numpy(zero_copy_only=False).astype(np.int8))
        features = [batch.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False) for name in ACOUSTIC_FEATURES]
        self._parts["acoustic"].append(np.stack(features, axis=1).reshape(-1))
        self._parts["audio"].append(hash_texts(batch.column("audio_sha256").cast(pa.string())))
        if by_call:
            for name in _TURNS:
                self._parts[name].append(batch.column(name).to_pandas())


def _batches(dataset: pads.Dataset, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Columns of the embedded rows, of some files at a time: Arrow reads ahead as far as it can, for whoever is slower."""
    group: list[pads.Fragment] = []
    num_rows = 0
    for fragment in [*dataset.get_fragments(filter=_EMBEDDED), None]:
        if group and (fragment is None or num_rows + fragment.metadata.num_rows > _ROWS_AT_ONCE):
            part = pads.FileSystemDataset(group, dataset.schema, dataset.format, dataset.filesystem)
            yield from part.to_batches(columns=names, filter=_EMBEDDED)
            group, num_rows = [], 0
        if fragment is not None:
            group.append(fragment)
            num_rows += fragment.metadata.num_rows
    # What Arrow keeps for the next columns, which may be long in coming.
    pa.default_memory_pool().release_unused()


def _join(parts: list[pa.Array]) -> pa.Array:
    return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())


def hash_transcripts(dataset: pads.Dataset) -> Hashes:
    """A hash of each transcript, in the order of the files; the words themselves are not kept."""
    parts = []
    for batch in _batches(dataset, ["text"]):
        texts = [" ".join(normalize("NFC", text or "").split()) for text in batch.column("text").to_pylist()]
        digests = b"".join(hashlib.sha256(words.encode()).digest()[:16] for words in texts)
        halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        parts.append(Hashes(halves[:, 0], halves[:, 1], np.array([len(words) >= MIN_TEXT_CHARS for words in texts], bool)))
    return Hashes.join(parts)


def read_vectors(run_dir: str, dataset: pads.Dataset, name: str, order: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of a column, (R, D), in an order of the rows; beyond `MAPPED_SHARE` of the free memory in a file.

    Raises:
        RequestError: one is absent or not finite.
        OSError: there is no room for the file.
    """
    # The final place of each row as it comes from the scan: the vectors are written there once, never sorted in memory.
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    vectors = _allocate((len(order), dataset.schema.field(name).type.list_size))
    start = 0
    for batch in _batches(dataset, [name]):
        column: pa.FixedSizeListArray = batch.column(name)
        if len(column):
            vectors[places[start : start + len(column)]] = as_vectors(run_dir, name, column)
            start += len(column)
    return vectors


def _allocate(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Room for float32 numbers: in memory, or in a file of the folder for what is temporary that goes with the array."""
    num_bytes = 4 * shape[0] * shape[1]
    if num_bytes <= MAPPED_SHARE * _free_bytes():
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        # Without a place of its own on the disk, a page that finds it full would end the process without a word.
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            # The file goes, and with it what would show afterwards that the disk is too small.
            said = f"{error.strerror}: {num_bytes >> 20} MiB of vectors, below TMPDIR"
            raise OSError(error.errno, said, tempfile.gettempdir()) from None
        return np.frombuffer(mmap.mmap(file.fileno(), num_bytes), np.float32).reshape(shape)


def _free_bytes() -> int:
    """Memory that could be had without swapping: what is free, and what the system keeps of files meanwhile."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return sys.maxsize
