"""The published systems' artefacts to a run folder and back; what a run's embedded rows hold survives the trip exactly.

UrgencySense keeps `metadata.csv` beside `embeddings.npz` (arrays `audio` and `text`), UrgencyDetect `processed_data.csv` beside
`wav2vec2_embeddings.npy` (audio alone); row n of the CSV is row n of the arrays. Fields of a run's rows for which a published
CSV has no column are written, and read where present, under their own names (`schema.ROW_FIELDS`, `schema.COUNT_FIELDS`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import logging
import math
import os
import posixpath
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
from numpy.typing import NDArray

from urgency_ray import __version__, schema, storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.calls.transcript import clean
from urgency_ray.config import Config
from urgency_ray.embedding import ledger
from urgency_ray.embedding.artefacts import FIELDS, SENSE, Layout, choose_layout
from urgency_ray.embedding.rows import embedded_rows, scatter_vectors
from urgency_ray.embedding.stages import EncodeText
from urgency_ray.encoders.load import is_built_in, resolve_weights
from urgency_ray.encoders.probe import probe_text_encoder
from urgency_ray.encoders.settings import settle
from urgency_ray.errors import Reason, RequestError
from urgency_ray.examples.dataset import load_examples
from urgency_ray.fingerprint import IMPORTED, Fingerprint, deciding_fields, encoder_fields
from urgency_ray.run_folder import RunFolder, write_json
from urgency_ray.schema import PROVIDER_SPLITS, URGENCY_LABELS, Status

log = logging.getLogger(__name__)

ROWS_PER_FILE = 8192
_ZIP, _NUMPY = b"PK", b"\x93NUMPY"
# What storage, pandas, numpy and zipfile raise on damaged files. So wide a list can hide bugs: keep what is tried short.
_READ_ERRORS = (OSError, ValueError, RuntimeError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


@contextlib.contextmanager
def _reading(option: str, location: str, wanted: str) -> Iterator[Any]:
    """The open file; whatever is wrong with it leaves as a RequestError of one line."""
    try:
        filesystem, path = storage.open_location(location)
        with filesystem.open_input_file(path) as stream:
            yield stream
    except FileNotFoundError:
        raise RequestError(f"{option} {location}: no such file") from None
    except _READ_ERRORS as error:
        raise RequestError(f"{option} {location}: cannot be read as {wanted}: {' '.join(str(error).split())}") from None


def _read_cells(location: str, layout: Layout) -> pd.DataFrame:
    """The CSV's cells as text, "" where empty: a row an example, columns named after fields."""
    with _reading("--metadata", location, "CSV in UTF-8") as stream:
        # All is text: a transcript "null" and an id "007" are neither missing nor numbers.
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_filter": False, "encoding": "utf-8-sig"}
        raw = pd.read_csv(io.BytesIO(stream.read()), **options)
    fault = None
    if missing := [name for name in layout.required if name not in raw]:
        fault = f"has no column {', '.join(missing)}; the files must be as {layout.pair}"
    elif not isinstance(raw.index, pd.RangeIndex):
        # pandas has taken the first column for row names, and each of the others for its neighbour.
        fault = "its rows have more fields than its header"
    elif raw.empty:
        fault = "holds no rows"
    if fault:
        raise RequestError(f"--metadata {location}: {fault}")
    columns = {field.name: layout.column(field.name) for field in FIELDS}
    return pd.DataFrame({field: raw[column] for field, column in columns.items() if column in raw})


def _read_arrays(location: str, layout: Layout, num_rows: int, metadata: str) -> dict[str, NDArray[np.float32]]:
    """The layout's arrays by name, float32 (num_rows, width)."""
    with _reading("--embeddings", location, "arrays of plain numbers") as stream:
        if not stream.read(len(_NUMPY)).startswith((_ZIP, _NUMPY)):
            # numpy takes it for a pickle, and says how to open one.
            raise ValueError("it is neither a .npz nor a .npy")
        stream.seek(0)
        loaded = np.load(stream, allow_pickle=False)
        alone = isinstance(loaded, np.ndarray)
        arrays = {"audio": loaded} if alone else {name: loaded[name] for name in layout.arrays if name in loaded.files}
    for name in layout.arrays:
        array, fault = arrays.get(name), None
        if array is None:
            fault = f"no such array; the files must be as {layout.pair}"
        elif array.ndim != 2 or not array.shape[1]:
            fault = f"must be of shape (rows, width) but got {array.shape}"
        elif not np.issubdtype(array.dtype, np.floating):
            fault = f"must be of floats but got {array.dtype}"
        elif len(array) != num_rows:
            fault = f"must have a row for each of the {num_rows} of --metadata {metadata} but got {len(array)}"
        if fault:
            raise RequestError(f"--embeddings {location}: {name}: {fault}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and its row a reject
        return {name: arrays[name].astype(np.float32, copy=False) for name in layout.arrays}


def _identify(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Fill in what names a row and its call, and number ids that repeat (`id#2`); say which rows repeat one, (N,)."""
    if "example_id" not in cells:
        # As extract names utterances.
        places = cells.groupby("call_id").cumcount()
        cells["example_id"] = [f"{call_id}/{place:04d}" for call_id, place in zip(cells["call_id"], places, strict=True)]
    repeats: NDArray[np.bool_] = cells["example_id"].duplicated().to_numpy()
    ids = cells["example_id"].tolist()
    taken = set(ids)
    for row in np.flatnonzero(repeats):
        ids[row] = next(name for n in itertools.count(2) if (name := f"{ids[row]}#{n}") not in taken)
        taken.add(ids[row])
    cells["example_id"] = ids
    for name, default in (("call_id", cells["example_id"]), ("provider_split", "unknown")):
        given = cells[name] if name in cells else pd.Series("", cells.index)
        cells[name] = given.where(given != "", default)
    return repeats


def _parse_column(cells: Sequence[str], field: Any) -> pa.Array:
    """Cells as an Arrow column of the field's type; empty ones, and NaN, are null."""
    if field.name in ("sentiment", "disaster_large", "disaster_medium"):
        cells = [normalize("NFC", cell).strip() for cell in cells]  # as extract reads them from a label
    if pa.types.is_string(field.type):
        return pa.array([cell or (None if field.nullable else cell) for cell in cells], field.type)
    # Python's float rounds exactly, which pandas' own parsers need not.
    numbers = [float(cell) if cell.strip() else math.nan for cell in cells]
    if pa.types.is_integer(field.type):
        return pa.array([None if math.isnan(number) else round(number) for number in numbers], field.type)
    column = pa.array(numbers, field.type, from_pandas=True)
    if pc.any(pc.is_inf(column)).as_py():
        raise OverflowError
    return column


def _parse_rows(config: Config, cells: pd.DataFrame, finite: NDArray[np.bool_], layout: Layout, metadata: str) -> pa.Table:
    """A table of `FIELDS` and `schema.OUTCOME_FIELDS`, a row an example; `finite` (N,) says whose embeddings are."""
    nameless = cells["example_id" if "example_id" in cells else "call_id"] == ""
    repeats = _identify(cells)
    # pandas writes integers as floats once their column has a gap.
    levels = pd.Series([normalize("NFC", cell).strip().removesuffix(".0") for cell in cells["urgency"]])
    if "text" not in layout.arrays:
        cells["text"] = [clean(text, config.data.text_rules) for text in cells["text"]]  # as extract embeds it
    id_column, urgency_column = layout.column("example_id"), layout.column("urgency")
    # The last of a row's faults is what stays.
    faults = (
        (Reason.INVALID_EMBEDDING, ~finite, "NaN or infinite values in its embeddings"),
        (Reason.NO_TEXT, [not clean(text) for text in cells["text"]], "no words left in the transcript"),
        (Reason.INVALID_LABEL, ~cells["provider_split"].isin(PROVIDER_SPLITS), f"provider_split: none of {PROVIDER_SPLITS}"),
        (Reason.UNKNOWN_URGENCY, ~levels.isin(["", *layout.levels]), f"{urgency_column}: none of {layout.levels}"),
        (Reason.MISSING_URGENCY, (levels == "") & config.data.require_urgency, f"{urgency_column}: empty"),
        (Reason.DUPLICATE_STEM, repeats, f"{id_column}: a row above has the same"),
        (Reason.INVALID_LABEL, nameless, f"{id_column}: empty"),
    )
    outcome = pd.DataFrame({"status": Status.EMBEDDED.value, "reason": None, "detail": None}, cells.index, dtype=object)
    for reason, rows, detail in faults:
        outcome.loc[rows, :] = [Status.REJECTED.value, reason.value, detail]
    urgency = {level: index for index, level in enumerate(layout.levels)}
    columns: dict[str, Any] = {"urgency": [urgency.get(level) for level in levels], **outcome}
    for field in FIELDS:
        if field.name not in columns:
            try:
                cell_texts = cells[field.name].tolist() if field.name in cells else [""] * len(cells)
                columns[field.name] = _parse_column(cell_texts, field)
            except (ValueError, OverflowError):
                fault = f"{layout.column(field.name)}: must be numbers that fit {field.type}, or empty"
                raise RequestError(f"--metadata {metadata}: {fault}") from None
    return pa.table(columns, schema=pa.schema([*FIELDS, *schema.OUTCOME_FIELDS]))


def import_artefacts(config: Config, metadata: str, embeddings: str, run_dir: str) -> ExtractAccounts:
    """Write the run folder that `extract` would have written, from a published pair; return its `extract.json`.

    A row that cannot be used is a reject with its reason. Where the CSV does not say, a row is a call of its own and its
    `provider_split` is unknown; without `audio_sha256` rows are grouped by call alone. UrgencyDetect's pair has no text
    embeddings: `config.text_encoder` makes them.

    Args:
        config: its data.require_urgency, text_encoder and extract.use_gpu.
        metadata: CSV file or URI, in UTF-8, with or without a BOM.
        embeddings: .npz file or URI of UrgencySense's pair, or .npy of UrgencyDetect's; float arrays (N, width).
        run_dir: run folder or URI that holds no embeddings.

    Raises:
        RequestError: a file cannot be read, a column or an array is missing, values or shapes do not fit, the text encoder
            cannot be loaded, or the run folder holds embeddings.
        WorkError: every row was rejected.
    """
    started, folder = time.monotonic(), RunFolder(run_dir)
    for there in (folder.embeddings, folder.extract):
        if storage.exists(there):
            name = posixpath.basename(storage.without_options(there))
            raise RequestError(f"--run-dir {run_dir}: already holds {name}; choose another run folder")
    layout = choose_layout(embeddings)
    cells = _read_cells(metadata, layout)
    arrays = _read_arrays(embeddings, layout, len(cells), metadata)
    digest = hashlib.sha256(pd.util.hash_pandas_object(cells, index=False).to_numpy().data)
    for values in arrays.values():
        digest.update(np.ascontiguousarray(values).data)
    finite = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in arrays.values()])
    rows = _parse_rows(config, cells, finite, layout, metadata)
    encode, text_encoder = None, IMPORTED
    if "text" not in layout.arrays:
        device = _choose_device(config)
        if config.text_encoder.layers != "last":
            raise RequestError(
                f"text_encoder.layers: {config.text_encoder.layers}, but imported rows are of one layer; say last"
            )
        config = config.model_copy(update={"text_encoder": settle(config.text_encoder)})
        probe_text_encoder(config.text_encoder, device)
        encode = EncodeText(config.text_encoder, device, os.cpu_count() or 1, None, lambda _: None)
        text_encoder = encoder_fields(deciding_fields(config)["text_encoder"], resolve_weights(config.text_encoder))
        rows = rows.drop_columns(["num_tokens", "num_tokens_dropped", "num_text_windows"])
    storage.write_text(folder.config, config.to_yaml())
    counted = []
    for start in range(0, len(rows), ROWS_PER_FILE):
        table = rows.slice(start, ROWS_PER_FILE)
        used = embedded_rows(table)
        for name, values in arrays.items():
            vectors = scatter_vectors(used, values[start + used], len(table), values.shape[1])
            table = table.append_column(f"{name}_embedding", vectors)
        if encode is not None:
            table = encode(table)
        table = _write_rows(table, folder, f"part-{start // ROWS_PER_FILE:05d}.parquet")
        counted.append(table.drop_columns(["text", "audio_embedding", "text_embedding"]))
    accounts = ExtractAccounts.of(
        ledger.count_rows(pa.concat_tables(counted)),
        wall_sec=round(time.monotonic() - started, 3),
        fingerprint=Fingerprint(audio_encoder=IMPORTED, text_encoder=text_encoder, code_version=__version__),
        manifest_sha256=digest.hexdigest(),
    )
    write_json(folder.extract, accounts, indent=2)
    log.info(accounts.line())
    return accounts.refuse_empty(run_dir)


def _write_rows(table: pa.Table, folder: RunFolder, file: str) -> pa.Table:
    """Write rows in their final schema, which they come back in, a file of that name for each status."""
    # Without a fingerprint train takes the rows under any encoder section, and predict says that it cannot hear new calls.
    widths = (table.schema.field(f"{name}_embedding").type.list_size for name in ("audio", "text"))
    final = schema.embedding_schema(*widths)
    table = table.select(final.names).cast(final)
    for status in Status:
        piece = table.filter(pc.equal(table["status"], status)).drop_columns(["status"])
        if len(piece):
            storage.write_table(storage.join(folder.embeddings, f"status={status}", file), piece)
    return table


def _choose_device(config: Config) -> str:
    if is_built_in(config.text_encoder) or config.extract.use_gpu is False:
        return "cpu"
    import torch

    if config.extract.use_gpu and not torch.cuda.is_available():
        raise RequestError("extract.use_gpu: true, but this machine has no GPU; set it to false or null")
    return "cuda" if torch.cuda.is_available() else "cpu"


def export_artefacts(config: Config, run_dir: str, metadata: str, embeddings: str) -> int:
    """Write a run's embedded rows as a published pair, sorted by example_id; return how many. What is there is replaced.

    `import_artefacts` makes the same rows of them again; of UrgencyDetect's pair with the run's own text encoder.

    Args:
        config: not read; a run folder says all that is needed.
        run_dir: run folder or URI.
        metadata: CSV file or URI.
        embeddings: .npz file or URI for UrgencySense's pair, .npy for UrgencyDetect's, whose rows are utterances.

    Raises:
        RequestError: no usable embeddings, another suffix, or rows that are not utterances for UrgencyDetect's pair.
    """
    layout, examples = choose_layout(embeddings), load_examples(run_dir)
    filesystem, path = storage.open_location(RunFolder(run_dir).embeddings)
    dataset = pads.dataset(path, filesystem=filesystem, partitioning="hive", format="parquet")
    # Embeddings of an older version lack the newest.
    names = [field.name for field in FIELDS if field.name in dataset.schema.names]
    rows = dataset.to_table(columns=names, filter=pc.field("status") == Status.EMBEDDED).sort_by("example_id")
    assert rows["example_id"].to_pylist() == examples.keys["example_id"].tolist(), "both are in the order of the ids"
    columns = {layout.column(name): rows[name] for name in names}
    for name in schema.ACOUSTIC_FEATURES:
        # The decimals of a float64 read back to the same float32 in any program.
        columns[name] = columns[name].cast(pa.float64())
    buffer = io.BytesIO()
    if layout is SENSE:
        np.savez(buffer, audio=examples.audio, text=examples.text)
    else:
        if rows["utterance_id"].null_count:
            raise RequestError(f"--embeddings {embeddings}: {layout.pair} hold utterances, but --run-dir {run_dir} holds calls")
        columns["wav_file_path"] = pc.binary_join_element_wise(rows["call_id"], ".wav", "")
        columns["urgency_label"] = rows["urgency"]
        columns["urgencyLevel"] = pa.array(URGENCY_LABELS).take(rows["urgency"].combine_chunks())
        np.save(buffer, examples.audio)
    sink = pa.BufferOutputStream()
    pacsv.write_csv(pa.table(columns), sink)  # every text in quotes, which pandas leaves off a lone carriage return
    storage.write_bytes(metadata, sink.getvalue().to_pybytes())
    storage.write_bytes(embeddings, buffer.getvalue())
    log.info("%d rows exported: %s, %s", len(rows), metadata, embeddings)
    return len(rows)
