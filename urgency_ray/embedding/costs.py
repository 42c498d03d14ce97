"""What embedding some calls costs one process, and what it will cost a cluster to embed all of them."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from urgency_ray.config import Config
from urgency_ray.embedding.stages import EncodeAudio, EncodeText, decode_calls
from urgency_ray.embedding.transcription import Transcribe
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import Status

INTERVAL_Z = 1.96
"""Standard errors of a mean on both sides of it that hold 95 %."""


@dataclass(frozen=True)
class Costs:
    """What some calls cost one process.

    Attributes:
        call_sec: audio seconds of each call that was embedded.
        decode_sec: seconds for reading and decoding, on one CPU.
        encode_sec: seconds for everything after it, on the encoders' device.
        load_sec: seconds until the models were loaded.
        written_bytes: of the rows as parquet.
        peak_bytes: most memory that the process held.
        rejected: calls rejected, by reason.
    """

    call_sec: list[float]
    decode_sec: float
    encode_sec: float
    load_sec: float
    written_bytes: int
    peak_bytes: int
    rejected: dict[str, int]

    @property
    def audio_sec(self) -> float:
        """Audio seconds of all calls that were embedded."""
        return sum(self.call_sec)


def measure_costs(manifest: pa.Table, config: Config, fingerprint: Fingerprint, *, device: str, threads: int) -> Costs:
    """Embed some calls in this process as the pipeline's workers do, and note what it costs.

    Args:
        manifest: rows of `MANIFEST_SCHEMA`, at least one.
        config: whose transform and batch sizes count; its arithmetic is settled.
        fingerprint: as extract would keep it.
        device: torch device of the encoders.
        threads: of torch, as an encoder actor has them.
    """
    started = time.perf_counter()
    stages: list[Callable[[pa.Table], pa.Table]] = []
    if config.transcriber.is_used:
        stages.append(Transcribe(config.transcriber, config.data.require_text, device, threads))
    stages.append(EncodeAudio(config.audio_encoder, device, threads))
    stages.append(EncodeText(config.text_encoder, device, threads, fingerprint, lambda message: None))
    loaded = time.perf_counter()
    # The first batch pays for what kernels and allocators set up once: it is done twice, and counted the second time.
    decode_sec = encode_sec = 0.0
    tables = []
    size = config.extract.batch_size
    for start in (0, *range(0, len(manifest), size)):
        begun = time.perf_counter()
        table = decode_calls(manifest.slice(start, size), config.reading, config.transcriber.used_for)
        decoded = time.perf_counter()
        for stage in stages:
            table = stage(table)
        tables.append(table)
        decode_sec += (decoded - begun) * (len(tables) > 1)
        encode_sec += (time.perf_counter() - decoded) * (len(tables) > 1)
    rows = pa.concat_tables(tables[1:])
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    kept = rows.filter(pc.equal(rows["status"], Status.EMBEDDED.value))
    by_call = kept.group_by("call_id").aggregate([("duration_sec", "sum")])
    lost = rows.filter(pc.and_(pc.equal(rows["status"], Status.REJECTED.value), pc.is_null(rows["utterance_id"])))
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Costs(
        call_sec=by_call["duration_sec_sum"].to_pylist(),
        decode_sec=decode_sec,
        encode_sec=encode_sec,
        load_sec=loaded - started,
        written_bytes=sink.getvalue().size,
        peak_bytes=peak,
        rejected=dict(Counter(lost["reason"].to_pylist())),
    )


@dataclass(frozen=True)
class Estimate:
    """What all calls cost: hours of audio with their 95 % interval, its speed, seconds from start to end, bytes."""

    audio_hours: float
    audio_hours_interval: tuple[float, float]
    audio_sec_per_sec: float
    wall_sec: float
    written_bytes: float


def estimate(
    measured: Sequence[Costs], num_calls: int, *, cpus: float, cpus_measured: float, gpus: int, start_sec: float
) -> Estimate | None:
    """What embedding `num_calls` like those that were measured takes, with every CPU and GPU busy; None if none was embedded.

    Without GPUs all work shares the CPUs, and so many of them do so much more. With GPUs decoding has the CPUs and the encoders
    have the GPUs, and the slower side sets the pace.

    Args:
        measured: of processes that ran side by side, on `cpus_measured` CPUs in all; with GPUs, each with one of its own.
        num_calls: planned calls, those that are rejected like the sample's included.
        cpus, gpus: to estimate for; encoders run on GPUs where `gpus` is above 0.
        cpus_measured: CPUs that the processes kept busy.
        start_sec: seconds before the first batch.
    """
    call_sec = [seconds for costs in measured for seconds in costs.call_sec]
    num_tried = len(call_sec) + sum(sum(costs.rejected.values()) for costs in measured)
    if not call_sec:
        return None
    share = len(call_sec) / num_tried
    audio_sec = fmean(call_sec) * share * num_calls
    error = INTERVAL_Z * stdev(call_sec) / math.sqrt(len(call_sec)) * share * num_calls if len(call_sec) > 1 else audio_sec
    if gpus:
        encoding = fmean(costs.audio_sec / costs.encode_sec for costs in measured) * gpus
        decoding = sum(costs.audio_sec / costs.decode_sec for costs in measured) * cpus / cpus_measured
        rate = min(encoding, decoding)
    else:
        rate = sum(costs.audio_sec / (costs.decode_sec + costs.encode_sec) for costs in measured) * cpus / cpus_measured
    return Estimate(
        audio_hours=audio_sec / 3600,
        audio_hours_interval=(max(0.0, audio_sec - error) / 3600, (audio_sec + error) / 3600),
        audio_sec_per_sec=rate,
        wall_sec=start_sec + audio_sec / rate,
        written_bytes=sum(costs.written_bytes for costs in measured) / num_tried * num_calls,
    )


def spread(manifest: pa.Table, num_calls: int, parts: int) -> list[Any]:
    """At most `num_calls` calls of a plan, spread over it, dealt out to `parts` tables, none of which is empty."""
    usable = manifest.filter(pc.is_null(manifest["reason"]))
    size = min(num_calls, len(usable))
    chosen = [index * len(usable) // size for index in range(size)]
    return [usable.take(pa.array(chosen[part::parts], pa.int64())) for part in range(min(parts, size))]
