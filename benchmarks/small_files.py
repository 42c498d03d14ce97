"""What an extract's small files cost, and what is left of that once they are merged: seconds, against reading the bytes.

    python benchmarks/small_files.py [--rows 158973] [--rows-per-file 32] [--pairs 3]

Rows of 768 + 768 floats of noise, in as many files as the pipeline writes for them. Small: `recovery.Left` and `load_examples`
of these files. Merged: the same after `compact`, which is timed itself. The limit is to read all bytes. Each measurement
is a process of its own, after one that has read the files into the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH = 768
GOAL_SEC = 5.0


def write_run(run_dir: Path, num_rows: int, rows_per_file: int) -> None:
    """A finished extract's folder."""
    from urgency_ray import __version__
    from urgency_ray.accounts import ExtractAccounts
    from urgency_ray.embedding.ledger import account
    from urgency_ray.fingerprint import Fingerprint
    from urgency_ray.run_folder import RunFolder, write_json
    from urgency_ray.schema import embedding_schema

    fingerprint = Fingerprint(audio_encoder={"name": "a"}, text_encoder={"name": "t"}, code_version=__version__)
    schema = embedding_schema(WIDTH, WIDTH, fingerprint.model_dump())
    schema = schema.remove(schema.get_field_index("status"))
    noise = pa.array(np.random.default_rng(0).standard_normal(rows_per_file * WIDTH, np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(noise, WIDTH)
    folder = Path(RunFolder(str(run_dir)).embeddings) / "status=embedded"
    folder.mkdir(parents=True)
    for start in range(0, num_rows, rows_per_file):
        ids = [f"{row:024x}_20230207120757" for row in range(start, min(start + rows_per_file, num_rows))]
        row: dict[str, Any] = {name: pa.nulls(len(ids), schema.field(name).type) for name in schema.names}
        row |= {
            "example_id": ids,
            "call_id": ids,
            "provider_split": ["training"] * len(ids),
            "source_version": ["1"] * len(ids),
        }
        row |= {"num_call_rows": [1] * len(ids), "urgency": [1] * len(ids), "text": ["불이 났어요 빨리 와주세요"] * len(ids)}
        row |= {f"{kind}_embedding": vectors.slice(0, len(ids)) for kind in ("audio", "text")}
        pq.write_table(pa.table(row, schema=schema), folder / f"{start:09d}.parquet")
    counts = account(str(folder.parent), plan_of(num_rows))
    accounts = ExtractAccounts.of(counts, wall_sec=0.0, fingerprint=fingerprint, manifest_sha256="0")
    write_json(RunFolder(str(run_dir)).extract, accounts)


def plan_of(num_rows: int) -> pa.Table:
    """The plan of the same calls."""
    from urgency_ray.schema import MANIFEST_SCHEMA

    known: dict[str, Any] = {
        name: pa.nulls(num_rows, kind) for name, kind in zip(MANIFEST_SCHEMA.names, MANIFEST_SCHEMA.types, strict=True)
    }
    known["call_id"] = [f"{row:024x}_20230207120757" for row in range(num_rows)]
    known |= {"version": ["1"] * num_rows, "provider_split": ["training"] * num_rows, "num_bytes": [1] * num_rows}
    return pa.table(known, schema=MANIFEST_SCHEMA)


def recover(run_dir: str, num_rows: int) -> float:
    """What an extract that is begun again does first."""
    from urgency_ray.embedding.recovery import Left
    from urgency_ray.run_folder import RunFolder

    manifest = plan_of(num_rows)
    started = time.perf_counter()
    left = Left(RunFolder(run_dir).embeddings, manifest)
    assert len(left.current) == num_rows and left.is_settled(left.current)
    return time.perf_counter() - started


def load(run_dir: str, num_rows: int) -> float:
    """What training does first."""
    from urgency_ray.examples.dataset import load_examples

    started = time.perf_counter()
    assert len(load_examples(run_dir)) == num_rows
    return time.perf_counter() - started


def merge(run_dir: str, num_rows: int) -> float:
    """What extract does last."""
    from urgency_ray.embedding.compaction import compact
    from urgency_ray.run_folder import RunFolder

    started = time.perf_counter()
    compact(RunFolder(run_dir).embeddings)
    return time.perf_counter() - started


def read_bytes(run_dir: str, num_rows: int) -> float:
    """The limit."""
    started = time.perf_counter()
    for path in Path(run_dir).rglob("*.parquet"):
        path.read_bytes()
    return time.perf_counter() - started


def measure(work: Callable[[str, int], float], run_dir: Path, num_rows: int) -> float:
    """Seconds of one of the above in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, str(run_dir), num_rows).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=158_973)
    parser.add_argument("--rows-per-file", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, merged = Path(folder, "small"), Path(folder, "merged")
        for run_dir in (small, merged):
            write_run(run_dir, options.rows, options.rows_per_file)
        merge_sec = measure(merge, merged, options.rows)
        print("| | files | recover, s | load, s | all bytes, s |\n|---|---|---|---|---|")
        for run_dir in (small, merged):
            measure(read_bytes, run_dir, options.rows)
            steps = (recover, load, read_bytes)
            rounds = [[measure(step, run_dir, options.rows) for step in steps] for _ in range(options.pairs)]
            figures = [statistics.median(each) for each in zip(*rounds, strict=True)]
            files = sum(1 for _ in run_dir.rglob("*.parquet"))
            print(f"| {run_dir.name} | {files:,} | " + " | ".join(f"{sec:.2f}" for sec in figures) + " |", flush=True)
        print(f"\nmerging took {merge_sec:.1f} s; wanted are {GOAL_SEC:g} s each for recover and load of the merged files")


if __name__ == "__main__":
    main()
