"""Memory of `urgency-ray train` on many rows: what driver and workers hold, with shared memory counted once.

    python benchmarks/train_memory.py [--rows 1000000] [--train.num_workers 2 --train.folds 2 ...]

Makes a run folder of random embeddings (768 + 768 floats and five acoustic features a row, in files of 8,192 rows), then
measures `load_examples` in a process of its own and the real command, one epoch of a tiny model; more options go to it.
Linux only: figures are read from smaps twice a second, over the command and all its descendants. PSS counts a page that several
processes share in parts, so its sum is what the machine gives; USS is what would come back if a process ended. The object store
is the PSS of its mappings: in shared memory, and in files below /tmp/ray where it is larger than Ray lets it be (30 % of the
memory that is free when the cluster starts).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from corpus import timed

from urgency_ray import __version__, schema, storage
from urgency_ray.accounts import ExtractAccounts, ExtractCounts
from urgency_ray.fingerprint import IMPORTED, Fingerprint
from urgency_ray.run_folder import RunFolder, write_json

ROWS_PER_FILE = 8192
DIM = 768
ONE_EPOCH = {
    "ray.address": "local",
    "train.epochs": 1,
    "train.batch_size": 512,
    "model.hidden_dim": 64,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.feedforward_dim": 64,
    "model.head_dim": 64,
}


def write_run(run_dir: str, num_rows: int) -> None:
    """A run folder as extract leaves it: a call a row, one in five of the provider's Validation part."""
    rng = np.random.default_rng(0)
    wanted = schema.embedding_schema(DIM, DIM)
    for start in range(0, num_rows, ROWS_PER_FILE):
        numbers = range(start, min(start + ROWS_PER_FILE, num_rows))
        size = len(numbers)
        ids = [f"{number:024x}" for number in numbers]
        columns = {
            "example_id": ids,
            "call_id": ids,
            "provider_split": ["validation" if number % 5 == 0 else "training" for number in numbers],
            "text": [
                f"{number} 번째 신고 전화의 내용을 적은 글로서 그 길이는 언제나 마흔 글자를 넘습니다" for number in numbers
            ],
            "urgency": pa.array(rng.integers(0, 3, size), pa.int8()),
            "sentiment": rng.choice(schema.SENTIMENT_LABELS, size).tolist(),
            "audio_sha256": [f"{number:064x}" for number in numbers],
            **{name: rng.random(size, np.float32) for name in schema.ACOUSTIC_FEATURES},
        }
        for name in ("audio_embedding", "text_embedding"):
            vectors = rng.standard_normal(size * DIM, np.float32)
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIM)
        fields = [field for field in wanted if field.name != "status"]
        table = pa.table([columns.get(f.name, pa.nulls(size, f.type)) for f in fields], schema=pa.schema(fields))
        storage.write_table(f"{run_dir}/embeddings/status=embedded/part-{start // ROWS_PER_FILE:05d}.parquet", table)
    counts = ExtractCounts(
        calls_read=num_rows,
        calls_embedded=num_rows,
        calls_rejected=0,
        rejected_by_reason={},
        rows_embedded=num_rows,
        rows_rejected=0,
        rows_rejected_by_reason={},
        audio_sec=0.0,
        rows_windowed=0,
        texts_windowed=0,
        texts_truncated=0,
        tokens_dropped=0,
    )
    fingerprint = Fingerprint(audio_encoder=IMPORTED, text_encoder=IMPORTED, code_version=__version__)
    accounts = ExtractAccounts.of(counts, wall_sec=0.0, fingerprint=fingerprint, manifest_sha256="")
    write_json(RunFolder(run_dir).extract, accounts)


def load(run_dir: str) -> tuple[float, float]:
    """Seconds of `load_examples`, and the peak RSS of a process that does only that, in MiB."""
    # The imports are no part of the loading.
    from urgency_ray.examples.dataset import load_examples

    seconds = timed(lambda: load_examples(run_dir))
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert peak is not None
    return seconds, int(peak[1]) / 1024


def role(process: psutil.Process, driver: int) -> str:
    """`driver`, `worker` (of Ray Train) or `ray` (all else below the driver)."""
    if process.pid == driver:
        return "driver"
    return "worker" if "RayTrainWorker" in " ".join(process.cmdline()) else "ray"


def read_kib(path: str) -> dict[str, int]:
    """The `Name: 12 kB` lines of a file of /proc, the last of each name."""
    text = Path(path).read_text(encoding="ascii", errors="replace")
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def store_kib(pid: int) -> dict[str, float]:
    """PSS of a process's mappings of the object store: in shared memory (`store`) and in files (`spill`)."""
    found = {"store": 0.0, "spill": 0.0}
    kind = None
    with Path(f"/proc/{pid}/smaps").open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                kind = None if "plasma" not in line else "store" if "/dev/shm/" in line else "spill"
            elif kind and line.startswith("Pss:"):
                found[kind] += int(line.split()[1])
    return found


def measure(process: psutil.Process) -> dict[str, dict[str, float]]:
    """MiB of a process and its descendants now, summed by role; `all` is their total."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error, OSError):
            rollup = read_kib(f"/proc/{one.pid}/smaps_rollup")
            private = rollup["Private_Clean"] + rollup["Private_Dirty"]
            figures = {"rss": rollup["Rss"], "pss": rollup["Pss"], "uss": private, **store_kib(one.pid)}
            for name, value in figures.items():
                for who in (role(one, process.pid), "all"):
                    found[who][name] += value / 1024
    return found


def train(run_dir: str, extras: list[str]) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds of the command, and the peaks of `measure` while it ran."""
    options = [text for name, value in ONE_EPOCH.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "urgency_ray.cli", "train", "--run-dir", run_dir, *options, *extras]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    peaks: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    started = time.perf_counter()
    process = psutil.Popen(command, env=environment)
    while process.poll() is None:
        for who, figures in measure(process).items():
            for name, value in figures.items():
                peaks[who][name] = max(peaks[who][name], value)
        time.sleep(0.5)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, peaks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options, extras = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = timed(lambda: write_run(folder, options.rows))
        arrays = options.rows * 4 * (2 * DIM + len(schema.ACOUSTIC_FEATURES)) / 2**20
        print(f"{options.rows:,} rows, {arrays:,.0f} MiB of arrays, written in {seconds:.0f} s", flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, peak = pool.submit(load, folder).result()
        print(f"load_examples alone: {seconds:.1f} s, peak RSS {peak:,.0f} MiB, {peak / arrays:.2f} x the arrays", flush=True)
        seconds, peaks = train(folder, extras)
    print(f"train: {seconds:.0f} s; peaks in MiB:\n{'':<8}{'RSS':>9}{'PSS':>9}{'USS':>9}")
    for who in ("driver", "worker", "ray", "all"):
        print(f"{who:<8}" + "".join(f"{peaks[who][name]:>9,.0f}" for name in ("rss", "pss", "uss")))
    total = peaks["all"]["pss"]
    in_memory, in_files = peaks["all"]["store"], peaks["all"]["spill"]
    print(
        f"object store: {in_memory:,.0f} in shared memory, {in_files:,.0f} in files; in all {total / arrays:.2f} x the arrays"
    )


if __name__ == "__main__":
    main()
