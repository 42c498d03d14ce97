"""Embeddings parquet to arrays, statistics and the order in which rows are visited. No cluster is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from urgency_ray import storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.errors import RequestError
from urgency_ray.examples.columns import Columns, hash_transcripts, read_vectors
from urgency_ray.examples.soundness import refuse_unsound_files, refuse_unsound_rows
from urgency_ray.examples.tokens import Tokens
from urgency_ray.examples.utterances import Utterances, group_utterances
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.numbering import UNKNOWN, Hashes
from urgency_ray.run_folder import RunFolder
from urgency_ray.schema import METADATA_KEY, PROVIDER_SPLITS, URGENCY_LABELS, Status

GroupBy = Literal["speaker", "group"]
GROUP_COLUMNS: dict[GroupBy, str] = {"speaker": "speaker_id", "group": "group_id"}
"""Columns of the rows by which `split.group_by` can group them."""
SPLITS = ("train", "val", "test")
UNFINISHED = "its extract has not finished, or files are missing"
NUM_CLASSES = len(URGENCY_LABELS)


@dataclass(frozen=True)
class Examples:
    """The embedded rows of a run, sorted by `example_id`, so that nothing depends on the order of writing.

    There are R embedding rows: N where an example is a row; where an example is a call of several, `utterances` says which.

    Attributes:
        keys: columns example_id, call_id, provider_split, audio_sha256 and text_sha256, one row an example. The last two are
            numbers, the same where the hashes are; null where unknown, where the text has fewer than `columns.MIN_TEXT_CHARS`
            characters, or an example is a call of several.
        audio: float32 (R, audio_dim).
        text: float32 (R, text_dim).
        acoustic: float32 (R, 5), in the order of `schema.ACOUSTIC_FEATURES`, as measured.
        urgency: int64 (N,), 0 to 2, or -1 where unknown.
        sentiment: int64 (N,), index into `schema.SENTIMENT_LABELS`, or -1 where unknown.
        fingerprint: what made the embeddings; None where the parquet does not say.
        utterances: the rows of each call; None where an example is a row.
        tokens: the transcripts for a model with a text encoder; None where none is wanted.
    """

    keys: pd.DataFrame
    audio: NDArray[np.float32]
    text: NDArray[np.float32]
    acoustic: NDArray[np.float32]
    urgency: NDArray[np.int64]
    sentiment: NDArray[np.int64]
    fingerprint: Fingerprint | None
    utterances: Utterances | None = None
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.urgency)


Keep = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]


def load_examples(
    run_dir: str, *, by_call: bool = False, keep: Keep | None = None, group_by: GroupBy | None = None
) -> Examples:
    """Read `<run_dir>/embeddings`, embedded rows only, each array filled once in its final order.

    Args:
        run_dir: a run folder that extract (or import) has finished.
        by_call: make an example of each call, out of its utterance rows; its id is the call's.
        keep: gets `audio` and `text` as soon as each is read, by name, and gives back what is to stand for it (the same values
            in memory that processes share, say), so that no two of them lie in this process's memory at once.
        group_by: what also makes rows one group, which becomes the column `group` of `keys`.

    Raises:
        RequestError: there are no embeddings, they come from different encoders or settings, a file of theirs or extract.json
            cannot be read, `by_call` and they are those of whole calls, or none has what `group_by` names.
    """
    location = RunFolder(run_dir).embeddings
    if not storage.exists(location):
        raise RequestError(f"--run-dir {run_dir}: holds no embeddings; run extract (or import) on it first")
    if not storage.exists(RunFolder(run_dir).extract):
        raise RequestError(f"--run-dir {run_dir}: {UNFINISHED}; run extract on it again")
    with _reading():
        return _read_examples(run_dir, by_call, keep, group_by)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """A file of the embeddings that Arrow cannot read is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if not storage.is_damage(error):
            raise
        said = " ".join(str(error).split())
        raise RequestError(f"{said}; run extract on it again: what is damaged is made anew") from None


def open_rows(embeddings: str) -> pads.Dataset:
    """The dataset of a run's embedding rows, at a path or URI."""
    filesystem, path = storage.open_location(embeddings)
    return pads.dataset(path, filesystem=filesystem, partitioning="hive", format="parquet")


def _read_examples(run_dir: str, by_call: bool, keep: Keep | None, group_by: GroupBy | None) -> Examples:
    dataset = open_rows(RunFolder(run_dir).embeddings)
    schemas = _read_schemas(dataset)
    if not schemas:
        raise RequestError(f"--run-dir {run_dir}: {UNFINISHED}; run extract on it again")
    refuse_unsound_files(run_dir, schemas)
    fingerprint = _only_fingerprint(run_dir, schemas.values())
    kinds = [name for name in GROUP_COLUMNS.values() if name in dataset.schema.names]  # an older version wrote none
    columns = Columns(dataset, kinds, by_call=by_call)
    if ExtractAccounts.read(run_dir).rows_embedded != len(columns):
        raise RequestError(f"--run-dir {run_dir}: {UNFINISHED}; run extract on it again")
    _refuse_unusable(run_dir, columns, by_call)
    order = columns.sort(by_call=by_call)
    refuse_unsound_rows(run_dir, columns.num_doubled, columns.seen)
    # Before the vectors: to number many hashes takes more memory for a while than the numbers do.
    keys = _make_keys(columns, order, hash_transcripts(dataset))
    vectors = {}
    for name in ("audio", "text"):
        read = read_vectors(run_dir, dataset, f"{name}_embedding", order)
        vectors[name] = keep(name, read) if keep is not None else read
        del read
    urgency, sentiment = columns.urgency.astype(np.int64), columns.sentiment.astype(np.int64)
    utterances = None
    if by_call:
        utterances = group_utterances(pd.DataFrame({"call_id": keys["call_id"], **columns.turns}))
        first = utterances.offsets[:-1]
        keys = keys.iloc[first].reset_index(drop=True)
        keys = keys.assign(example_id=keys["call_id"], text_sha256=None)
        urgency, sentiment = urgency[first], sentiment[first]
    keys = keys.drop(columns=[name for name in kinds if not keys[name].notna().any()])
    if group_by is not None:
        keys["group"] = _group_column(run_dir, keys, group_by)
    return Examples(
        keys=keys,
        audio=vectors["audio"],
        text=vectors["text"],
        acoustic=columns.acoustic,
        urgency=urgency,
        sentiment=sentiment,
        fingerprint=fingerprint,
        utterances=utterances,
    )


def _make_keys(columns: Columns, order: NDArray[np.int64], transcripts: Hashes) -> pd.DataFrame:
    """`Examples.keys` of all rows: `columns` are in the order of the examples, the hashes in that of the files."""
    keys = pa.table({"example_id": columns.example_id, "call_id": columns.call_id, **columns.texts}).to_pandas()
    for name, hashes in (("text_sha256", transcripts), ("audio_sha256", columns.audio)):
        numbers = hashes.numbers(order)
        keys.insert(2, name, pd.arrays.IntegerArray(numbers, numbers == UNKNOWN))
    keys.insert(2, "provider_split", pd.Categorical.from_codes(columns.provider_split, list(PROVIDER_SPLITS)))
    return keys


def _group_column(run_dir: str, keys: pd.DataFrame, group_by: GroupBy) -> pd.Series[str]:
    if GROUP_COLUMNS[group_by] not in keys:
        raise RequestError(
            f"split.group_by: {group_by}, but no row of --run-dir {run_dir} names one; extract a manifest with such a column"
        )
    return keys[GROUP_COLUMNS[group_by]]


def _refuse_unusable(run_dir: str, columns: Columns, by_call: bool) -> None:
    if not len(columns):
        raise RequestError(f"--run-dir {run_dir}: every call was rejected; extract.json counts the reasons")
    if by_call and columns.seen.whole_calls:
        raise RequestError(
            f"--run-dir {run_dir}: holds a row a call, but model.name hierarchical wants a row an utterance; "
            "extract into another folder with data.unit utterance"
        )


def load_transcripts(run_dir: str) -> pa.ChunkedArray:
    """The transcripts of a run's embedded rows, in the order of `load_examples`."""
    dataset = open_rows(RunFolder(run_dir).embeddings)
    with _reading():
        table = dataset.to_table(columns=["example_id", "text"], filter=pc.field("status") == Status.EMBEDDED)
    order = np.argsort(table["example_id"].to_numpy().astype(str), kind="stable")
    # Their offsets are 32 bits wide: all transcripts together can have more bytes than those count.
    return pc.fill_null(table["text"].cast(pa.large_string()), "").take(pa.array(order))


def _read_schemas(dataset: pads.Dataset) -> dict[str, pa.Schema]:
    """Of each file by its path: a request each, so several at once."""
    fragments = list(dataset.get_fragments())
    with ThreadPoolExecutor(storage.AT_ONCE) as pool:
        schemas = pool.map(lambda fragment: fragment.physical_schema, fragments)
        return {fragment.path: schema for fragment, schema in zip(fragments, schemas, strict=True)}


def _only_fingerprint(run_dir: str, schemas: Iterable[pa.Schema]) -> Fingerprint | None:
    by_content = {(schema.metadata or {}).get(METADATA_KEY): schema for schema in schemas}
    first, *others = (Fingerprint.of_schema(by_content[key]) for key in sorted(by_content, key=lambda key: key or b""))
    if any(first is None or other is None or first.differences(other) for other in others):
        raise RequestError(
            f"--run-dir {run_dir}: its embeddings were made with {len(by_content)} different settings; extract afresh"
        )
    return first


@dataclass(frozen=True)
class Splits:
    """Row numbers of each split, ascending; rows without an urgency label are in none."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]

    def items(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """(name, row numbers) of the three splits."""
        return ((name, getattr(self, name)) for name in SPLITS)


def class_counts(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Rows of each class (num_classes,); unknown labels (-1) do not count."""
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def label_counts(examples: Examples, splits: Splits) -> dict[str, list[int]]:
    """Rows of each urgency class, in their order, by split."""
    return {name: class_counts(examples.urgency[rows], NUM_CLASSES).tolist() for name, rows in splits.items()}
