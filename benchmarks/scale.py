"""Millions of calls through plan, extract, accounts, load and an epoch of training: seconds and memory of the driver.

    python benchmarks/scale.py [--rows 5000000] [--folder DIR] [--stages plan extract merge recover accounts load train]
    python benchmarks/scale.py --stages plan write recover accounts load train

No audio: the calls are names in the directories of 24 archives, as the provider packs them, one in a hundred without its label.
Plan, pipeline (Ray Data, its blocks, its files), recovery, accounts, loading and training are the product's own; decoding
and the encoders are stubs, which make a row of each name: ids, words, 16 + 16 floats, urgency. So disk and seconds are those of
small rows (about 0.5 KiB each), the driver's memory that of real ones but where vectors lie in it.

`write`, in place of `extract` and `merge`, has the stubs make the rows in one process, without Ray.

Each stage is a process of its own. `own` is the peak of what it has for itself (RssAnon), `shared` of what it maps of Ray's
object store, `files` of what it maps of files, which the system takes back when it needs the room; `rss` is the peak of all
three together (VmHWM), `start` what it had before the stage, imports and Ray. Bytes a row are of `own` beyond the start.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from urgency_ray import cluster, storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.config import Config
from urgency_ray.embedding import pipeline
from urgency_ray.embedding.stages import DECODED_SCHEMA, EncodeText
from urgency_ray.embedding.transform import make_fingerprint
from urgency_ray.encoders.base import TextEmbeddings
from urgency_ray.run_folder import RunFolder, write_json
from urgency_ray.schema import ACOUSTIC_FEATURES, SENTIMENT_LABELS, Status

GOAL_MIB = 2048
DIM = 16
NUM_PAIRS_OF_ARCHIVES = 12
NUM_REGIONS = 4
ROWS_PER_FILE, ROWS_PER_GROUP = 1 << 18, 1 << 15
UNLABELLED = 100
"""One call in so many has no label."""
OPTIONS = {
    "ray.address": "local",
    "extract.rows_per_block": 2048,
    "extract.batch_size": 2048,
    "train.epochs": 1,
    "train.batch_size": 4096,
    "train.ablation": False,
    "train.baselines": False,
    "train.bootstrap_samples": 100,
    "model.hidden_dim": 32,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.feedforward_dim": 32,
    "model.head_dim": 32,
}


def write_archives(root: Path, num_calls: int) -> None:
    """Zips of empty members in the provider's layout; one in four pairs is of the Validation part."""
    for archive in range(NUM_PAIRS_OF_ARCHIVES):
        part, letter = ("Validation", "V") if archive % 4 == 3 else ("Training", "T")
        calls = range(archive, num_calls, NUM_PAIRS_OF_ARCHIVES)
        for kind, suffix, folder in (("S", "wav", "1.원천데이터"), ("L", "json", "2.라벨링데이터")):
            place = root / part / folder / f"{letter}{kind}_지역{archive % NUM_REGIONS}_{archive}.zip"
            place.parent.mkdir(parents=True, exist_ok=True)
            names = (f"{call:024x}_20230207120757.{suffix}" for call in calls if kind == "S" or call % UNLABELLED)
            write_zip(place, names)


def write_zip(place: Path, names: Iterator[str]) -> None:
    """A zip64 of empty stored members; `zipfile` takes ten times as long to write one."""
    directory, offset, count = bytearray(), 0, 0
    with place.open("wb") as file:
        for name in names:
            raw = name.encode()
            fields = (20, 0x800, 0, 0, 0x21, 0, 0, 0, len(raw), 0)
            header = b"PK\x03\x04" + struct.pack("<5H3L2H", *fields) + raw
            file.write(header)
            directory += b"PK\x01\x02" + struct.pack("<6H3L5H2L", 20, *fields, 0, 0, 0, 0, offset) + raw
            offset, count = offset + len(header), count + 1
        file.write(directory)
        size = len(directory)
        file.write(b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, size, offset))
        file.write(b"PK\x06\x07" + struct.pack("<LQL", 0, offset + size, 1))
        file.write(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, size, offset, 0))


def numbers_of(call_ids: pa.ChunkedArray) -> list[int]:
    """The numbers that `write_archives` made ids of."""
    return [int(call_id[:24], 16) for call_id in call_ids.to_pylist()]


def stub_decode(manifest: pa.Table, data: Any, transcribes: Any) -> pa.Table:
    """Decoded rows of calls that nobody reads; `data` and `transcribes` as the pipeline gives them."""
    numbers, size = numbers_of(manifest["call_id"]), len(manifest)
    rng = np.random.default_rng(numbers[0])
    is_lost = pa.compute.is_valid(manifest["reason"])
    columns: dict[str, Any] = {name: manifest[name] for name in ("call_id", "provider_split", "region", "reason", "detail")}
    columns |= {"example_id": manifest["call_id"], "source_version": manifest["version"], "num_call_rows": [1] * size}
    columns["status"] = pa.compute.if_else(is_lost, Status.REJECTED.value, Status.EMBEDDED.value)
    columns["text"] = [f"{number} 번째 신고 전화의 내용을 적은 글로서 길이는 언제나 마흔 글자를 넘습니다" for number in numbers]
    columns["audio_sha256"] = [f"{number:064x}" for number in numbers]
    columns["urgency"] = pa.array([number // NUM_PAIRS_OF_ARCHIVES % 3 for number in numbers], pa.int8())
    columns["sentiment"] = rng.choice(SENTIMENT_LABELS, size).tolist()
    columns["waveform"] = pa.array([b""] * size, pa.large_binary())
    columns |= {name: pa.array(rng.random(size, np.float32)) for name in ACOUSTIC_FEATURES}
    columns["duration_sec"] = pa.array(np.full(size, 64.0, np.float32))
    arrays = [columns.get(field.name, pa.nulls(size, field.type)) for field in DECODED_SCHEMA]
    return pa.table(arrays, names=DECODED_SCHEMA.names).cast(DECODED_SCHEMA)


class StubAudio:
    """In place of `EncodeAudio`: noise, and where the urgency is in it."""

    def __init__(self, *options: Any) -> None:
        pass

    def __call__(self, table: pa.Table) -> pa.Table:
        size = len(table)
        vectors = np.random.default_rng(numbers_of(table["call_id"])[0]).standard_normal((size, DIM), np.float32)
        vectors[np.arange(size), table["urgency"].to_numpy()] += 1.0
        missing = pa.compute.equal(table["status"], Status.REJECTED.value).combine_chunks()
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM, mask=missing)
        table = table.drop_columns(["waveform"]).append_column("audio_embedding", column)
        return table.append_column("num_windows", pa.array(np.ones(size, np.int32)))


class StubText(EncodeText):
    """`EncodeText` around noise."""

    def __init__(self, config: Any, device: str, threads: int, fingerprint: Any, send: Callable[[Any], None]) -> None:
        self.encoder: Any = StubTextEncoder()
        self.fingerprint, self.send = fingerprint, send


class StubTextEncoder:
    """In place of a text encoder."""

    dim = DIM

    def encode(self, texts: list[str]) -> TextEmbeddings:
        """Noise (N, DIM)."""
        ones = np.ones(len(texts), np.int32)
        vectors = np.random.default_rng(zlib.crc32(texts[0].encode())).standard_normal((len(texts), DIM), np.float32)
        return TextEmbeddings(vectors, ones, 0 * ones, ones)


def read_status() -> dict[str, float]:
    """The memory of this process, in MiB, by the fields of Linux."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return {name: int(value) / 1024 for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


FIELDS = {"own": "RssAnon", "shared": "RssShmem", "files": "RssFile"}


@contextmanager
def measured(figures: dict[str, float]) -> Iterator[None]:
    """Fill in the seconds of a block, and its peaks in MiB, fifty readings a second."""
    peaks, ended = dict.fromkeys(FIELDS, 0.0), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            found = read_status()
            for name, field in FIELDS.items():
                peaks[name] = max(peaks[name], found[field])

    start, started = read_status(), time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    figures |= {"sec": time.perf_counter() - started, "start": start["RssAnon"], "rss": read_status()["VmHWM"], **peaks}


def config_of(folder: Path) -> Config:
    """What all stages go by."""
    return Config().replace(OPTIONS | {"data.root": str(folder / "calls")})


def plan(folder: Path, figures: dict[str, float]) -> None:
    """Pair all calls; what comes of it is left for the other stages."""
    from urgency_ray.calls.plan import plan_calls

    with measured(figures):
        manifest = plan_calls(config_of(folder).data)
    with pa.OSFile(str(folder / "plan.arrow"), "wb") as file, pa.ipc.new_file(file, manifest.schema) as writer:
        writer.write_table(manifest)


def planned(folder: Path) -> pa.Table:
    """What `plan` left."""
    return pa.ipc.open_file(pa.memory_map(str(folder / "plan.arrow"))).read_all()


def extract(folder: Path, figures: dict[str, float]) -> None:
    """Pass all calls through the pipeline."""
    config, embeddings = config_of(folder), RunFolder(str(folder / "run")).embeddings
    for name, stub in (("decode_calls", stub_decode), ("EncodeAudio", StubAudio), ("EncodeText", StubText)):
        setattr(pipeline, name, stub)
    manifest = planned(folder)
    cluster.connect(config.ray)
    with measured(figures), cluster.Relay(lambda _: None, 5.0) as send:
        rows = pipeline.embed_calls(manifest, config, make_fingerprint(config), send)
        filesystem, path = storage.open_location(embeddings)
        rows.write_parquet(path, filesystem=filesystem, partition_cols=["status"], ray_remote_args={"num_cpus": 0.25})


def write(folder: Path, figures: dict[str, float]) -> None:
    """What `extract` leaves, by the same stubs in this process: for the stages after it, where that would take hours."""
    decoded: dict[str, Any] = {"data": None, "transcribes": None}
    audio, text = StubAudio(), StubText(None, "cpu", 1, make_fingerprint(config_of(folder)), lambda _: None)
    blocks = pipeline.Blocks(planned(folder), ROWS_PER_FILE)
    with measured(figures):
        for number, block in enumerate(blocks):
            rows = text(audio(stub_decode(block, **decoded)))
            for status in Status:
                some = rows.filter(pa.compute.equal(rows["status"], status.value)).drop_columns(["status"])
                place = Path(RunFolder(str(folder / "run")).embeddings, f"status={status}", f"{number:05d}.parquet")
                place.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(some, place, row_group_size=ROWS_PER_GROUP)


def merge(folder: Path, figures: dict[str, float]) -> None:
    """Merge the small files of the pipeline."""
    from urgency_ray.embedding.compaction import compact

    with measured(figures):
        compact(RunFolder(str(folder / "run")).embeddings)


def recover(folder: Path, figures: dict[str, float]) -> None:
    """What an extract that is begun again does first."""
    from urgency_ray.embedding.recovery import Left

    manifest = planned(folder)
    with measured(figures):
        left = Left(RunFolder(str(folder / "run")).embeddings, manifest)
        assert len(left.current) == len(manifest) and left.is_settled(left.current)


def accounts(folder: Path, figures: dict[str, float]) -> None:
    """Count the rows, and leave extract.json."""
    from urgency_ray.embedding.ledger import account

    run, manifest = RunFolder(str(folder / "run")), planned(folder)
    with measured(figures):
        counts = account(run.embeddings, manifest)
    print(counts.line(), file=sys.stderr)
    made_with = make_fingerprint(config_of(folder))
    write_json(run.extract, ExtractAccounts.of(counts, wall_sec=0.0, fingerprint=made_with, manifest_sha256="0"))


def load(folder: Path, figures: dict[str, float]) -> None:
    """What train does before Ray is there."""
    from urgency_ray.examples.dataset import load_examples
    from urgency_ray.examples.splits import split_examples

    with measured(figures):
        examples = load_examples(str(folder / "run"))
        split_examples(examples, config_of(folder).split)


def train(folder: Path, figures: dict[str, float]) -> None:
    """The whole command, one epoch of a tiny model in this process."""
    from urgency_ray.commands.train import format_scores
    from urgency_ray.commands.train import train as run_train

    # A model of the same rows that has come to its end would not be trained again.
    storage.remove_folder(RunFolder(str(folder / "run")).checkpoints)
    with measured(figures):
        metrics = run_train(config_of(folder), str(folder / "run"))
    print(format_scores(metrics), file=sys.stderr)


STAGES = {each.__name__: each for each in (plan, extract, write, merge, recover, accounts, load, train)}


def alone(stage: str, folder: Path) -> dict[str, float]:
    """A stage in a process of its own."""
    # As the command line does: threads that wait by spinning take turns with those of neighbours.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, "--run", stage, "--folder", str(folder)]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return figures


def show(stages: list[str], folder: Path, num_rows: int) -> None:
    """Measure and print a line for each stage."""
    (folder / "calls").mkdir(parents=True, exist_ok=True)
    if "plan" in stages:
        started = time.perf_counter()
        write_archives(folder / "calls", num_rows)
        print(f"{num_rows:,} calls in archives, written in {time.perf_counter() - started:.0f} s\n", flush=True)
    print("| stage | seconds | rows/s | start, MiB | own | shared | files | rss | bytes a row |" + "\n" + "|---" * 9 + "|")
    worst = 0.0
    for stage in stages:
        found = alone(stage, folder)
        worst = max(worst, found["own"])
        sizes = " | ".join(f"{found[name]:,.0f}" for name in ("start", "own", "shared", "files", "rss"))
        each = (found["own"] - found["start"]) * 2**20 / num_rows
        print(f"| {stage} | {found['sec']:,.1f} | {num_rows / found['sec']:,.0f} | {sizes} | {each:,.0f} |", flush=True)
    print(f"\nat most {worst:,.0f} MiB of the driver's own; wanted are {GOAL_MIB:,}")


def main() -> None:
    """Measure and print, or run one stage for the process that does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", help="where archives and run folder go, and stay; a temporary one is removed")
    parser.add_argument("--stages", nargs="*", choices=list(STAGES), default=[name for name in STAGES if name != "write"])
    parser.add_argument("--run", choices=list(STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        figures: dict[str, float] = {}
        STAGES[options.run](Path(options.folder), figures)
        print(json.dumps(figures))
    elif options.folder:
        show(options.stages, Path(options.folder), options.rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            show(options.stages, Path(folder), options.rows)


if __name__ == "__main__":
    main()
