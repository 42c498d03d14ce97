"""The whole set's plan, and the driver's memory while calls pass: seconds and peak RSS against limits and the bare `zipfile`.

    python benchmarks/planning.py [--calls 158973] [--pairs 3] [--rows 1000 10000 100000]

Plan: `--calls` calls as tiny members of 24 archives, WAV and label in different ones, paired by `plan_calls`; the limit is the
bare listing of the same archives with `zipfile`, which pairs nothing. Rows: that many calls of 0.1 s through the real pipeline
(decode, built-in encoders, parquet), 288 + 1248 floats a row, as many as of data2vec and ko-sroberta. Each measurement is a
process of its own; peaks are Linux's VmHWM, the driver's in MiB after each of its steps, and `shared` what it maps by then of
Ray's object store, where the plan's blocks lie: a part of the peaks, but the store's memory.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

LIMIT_SEC, LIMIT_GIB = 60.0, 1.5
NUM_PAIRS_OF_ARCHIVES = 12


def write_archives(root: Path, num_calls: int) -> None:
    """A corpus in the provider's layout: 12 archives of WAVs, 12 of labels."""
    sound = io.BytesIO()
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(800), 8000, format="WAV", subtype="PCM_16")
    turn = {"id": "a", "startAt": 0, "endAt": 100, "text": "불이 났어요 빨리 와주세요", "speaker": 1}
    label = json.dumps({"utterances": [turn], "urgencyLevel": "상", "sentiment": "불안/걱정"}, ensure_ascii=False).encode()
    folders = {suffix: root / "Training" / name for suffix, name in ((".wav", "1.원천데이터"), (".json", "2.라벨링데이터"))}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for archive in range(NUM_PAIRS_OF_ARCHIVES):
        for (suffix, folder), kind, content in zip(folders.items(), ("TS", "TL"), (sound.getvalue(), label), strict=True):
            with zipfile.ZipFile(folder / f"{kind}_광주_{archive}.zip", "w") as file:
                for call in range(archive, num_calls, NUM_PAIRS_OF_ARCHIVES):
                    file.writestr(f"{call:024x}_20230207120757{suffix}", content)


def resident_mib(field: str = "VmHWM") -> float:
    """Largest resident memory of this process so far, or another field of its status."""
    figure = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert figure is not None
    return int(figure[1]) / 1024


def plan(root: str) -> dict[str, float]:
    """Pair all calls."""
    # The imports are not part of the plan.
    from urgency_ray.calls.plan import plan_calls
    from urgency_ray.config import DataConfig

    before, started = resident_mib(), time.perf_counter()
    manifest = plan_calls(DataConfig(root=root))
    assert not manifest["reason"].drop_null()
    figures = {"sec": time.perf_counter() - started, "mib": resident_mib(), "growth_mib": resident_mib() - before}
    return figures | {"calls": len(manifest), "manifest_mib": manifest.nbytes / 2**20}


def list_archives(root: str) -> dict[str, float]:
    """The limit: every directory entry read by `zipfile`, all kept, nothing paired."""
    before, started = resident_mib(), time.perf_counter()
    members = [zipfile.ZipFile(path).infolist() for path in sorted(Path(root).rglob("*.zip"))]
    figures = {"sec": time.perf_counter() - started, "mib": resident_mib(), "growth_mib": resident_mib() - before}
    return figures | {"calls": sum(map(len, members)) / 2}


def pass_rows(root: str) -> dict[str, float]:
    """Calls through the pipeline; the driver's peak after each step."""
    from urgency_ray import cluster, storage
    from urgency_ray.calls.plan import plan_calls
    from urgency_ray.config import Config
    from urgency_ray.embedding import ledger
    from urgency_ray.embedding.pipeline import embed_calls
    from urgency_ray.embedding.transform import make_fingerprint

    config = Config().replace({"data.root": root, "text_encoder.hashing_dim": 1248, "ray.address": "local"})
    cluster.connect(config.ray)
    figures = {"connected": resident_mib()}
    manifest = plan_calls(config.data)
    figures |= {"planned": resident_mib(), "manifest": manifest.nbytes / 2**20}
    started = time.perf_counter()
    with cluster.Relay(lambda _: None, 5.0) as send, tempfile.TemporaryDirectory(dir=root) as folder:
        filesystem, path = storage.open_location(folder)
        rows = embed_calls(manifest, config, make_fingerprint(config), send)
        rows.write_parquet(path, filesystem=filesystem, partition_cols=["status"], ray_remote_args={"num_cpus": 0.25})
        figures |= {"sec": time.perf_counter() - started, "passed": resident_mib(), "shared": resident_mib("RssShmem")}
        counts = ledger.account(folder, manifest)
    assert counts.calls_embedded == len(manifest)
    return figures | {"accounted": resident_mib(), "calls": len(manifest)}


def alone(measure: Callable[[str], dict[str, float]], root: Path) -> dict[str, float]:
    """`measure` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, str(root)).result()


def show_plans(num_calls: int, num_pairs: int) -> None:
    """Plan and list, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        write_archives(Path(folder), num_calls)
        runs: list[dict[str, Any]] = [
            {"plan_calls": alone(plan, Path(folder)), "zipfile": alone(list_archives, Path(folder))} for _ in range(num_pairs)
        ]
    for name in ("plan_calls", "zipfile"):
        sec, mib, growth = (statistics.median(run[name][key] for run in runs) for key in ("sec", "mib", "growth_mib"))
        print(f"{name:<12}{sec:>8.2f} s, peak RSS {mib:>6.0f} MiB, {growth:>5.0f} of them its own ({num_calls:,} calls)")
    sec, mib = (max(run["plan_calls"][key] for run in runs) for key in ("sec", "mib"))
    ratio = statistics.median(run["plan_calls"]["sec"] / run["zipfile"]["sec"] for run in runs)
    print(f"plan_calls / zipfile {ratio:.2f}; of the limits at worst {sec / LIMIT_SEC:.0%} of {LIMIT_SEC:.0f} s, ", end="")
    print(f"{mib / 1024 / LIMIT_GIB:.0%} of {LIMIT_GIB} GiB; manifest {runs[0]['plan_calls']['manifest_mib']:.0f} MiB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=158_973)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    if options.pairs:
        show_plans(options.calls, options.pairs)
    steps = ("connected", "planned", "passed", "shared", "accounted")
    print(f"{'rows':>8}{'rows/s':>8}{'manifest':>10}" + "".join(f"{step:>11}" for step in steps))
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_archives(Path(folder), num_rows)
            figures = alone(pass_rows, Path(folder))
        peaks = "".join(f"{figures[step]:>11.0f}" for step in steps)
        print(f"{num_rows:>8,}{num_rows / figures['sec']:>8.0f}{figures['manifest']:>10.1f}{peaks}", flush=True)


if __name__ == "__main__":
    main()
