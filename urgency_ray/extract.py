"""Calls to embeddings: one streaming Ray Data pipeline, from the list of calls to parquet, with every call accounted for.

    manifest -> decode (CPU tasks) -> audio encoder (actors) -> text encoder (actors) -> parquet, partitioned by status

Blocks of some tens of calls stream through, so memory does not grow with the number of calls. A call that cannot be used flows
on as a row with `status=rejected`, a reason and a detail; an exception is a bug and stops the run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import ray
from ray.data import ActorPoolStrategy, Dataset

from urgency_ray import __version__, cluster, storage
from urgency_ray.calls import plan_calls
from urgency_ray.config import Config, ConfigError
from urgency_ray.encoders import BUILT_IN_AUDIO, resolve_weights
from urgency_ray.schema import Status
from urgency_ray.stages import EncodeAudio, EncodeText, decode_calls

log = logging.getLogger(__name__)

PROGRESS_SEC = 5.0


def extract(config: Config, run_dir: str) -> dict[str, Any]:
    """Embed every call below `config.data.root` into `<run_dir>/embeddings`; write `extract.json` and return its content.

    A finished run folder of the same calls, encoders and settings is left as it is.

    Raises:
        ConfigError: no calls there, an encoder cannot be loaded, or the run folder holds something else.
    """
    started = time.monotonic()
    fingerprint = make_fingerprint(config)
    manifest = plan_calls(config.data)
    plan = {"fingerprint": fingerprint, "manifest_sha256": _digest(manifest)}
    summary_path = storage.join(run_dir, "extract.json")
    if storage.exists(summary_path):
        summary: dict[str, Any] = json.loads(storage.read_text(summary_path))
        _refuse_other_plan(run_dir, {key: summary[key] for key in plan}, plan)
        log.info("%s holds the embeddings of these calls already: nothing to do", run_dir)
        return summary

    embeddings = storage.join(run_dir, "embeddings")
    storage.delete_dir(embeddings)
    storage.write_text(storage.join(run_dir, "config.yaml"), config.to_yaml())
    cluster.connect(config.ray)
    with cluster.Relay(Progress(manifest.num_rows), PROGRESS_SEC) as send:
        rows = embed_calls(manifest, config, fingerprint, send)
        filesystem, path = storage.open_location(embeddings)
        rows.write_parquet(path, filesystem=filesystem, partition_cols=["status"], ray_remote_args={"num_cpus": 0.25})

    summary = {**account(embeddings, manifest), "wall_sec": round(time.monotonic() - started, 3), **plan}
    storage.write_text(summary_path, json.dumps(summary, ensure_ascii=False, indent=2))
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["rejected_by_reason"].items())
    log.info(
        "%d calls read = %d embedded + %d rejected%s",
        summary["calls_read"],
        summary["calls_embedded"],
        summary["calls_rejected"],
        f" ({reasons})" if reasons else "",
    )
    return summary


def make_fingerprint(config: Config) -> dict[str, Any]:
    """What decides an embedding's value: unit, speakers, encoders with their weights, pooling, window, code version.

    Raises:
        ConfigError: an encoder's name stands for nothing that can be loaded.
    """
    encoders = {
        key: section.model_dump(exclude={"batch_size"}) | {"weights": resolve_weights(section)}
        for key, section in (("audio_encoder", config.audio_encoder), ("text_encoder", config.text_encoder))
    }
    return {**config.data.model_dump(exclude={"root"}), **encoders, "code_version": __version__}


def _digest(manifest: pa.Table) -> str:
    # Where the corpus lies does not matter, what it holds does.
    columns = manifest.select(["call_id", "num_bytes", "reason"]).to_pydict()
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


def _refuse_other_plan(run_dir: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if found == wanted:
        return
    differences = fingerprint_differences(found["fingerprint"], wanted["fingerprint"])
    what = "; ".join(differences) or "other calls below data.root"
    raise ConfigError(f"--run-dir {run_dir}: already holds other embeddings ({what}); choose another run folder")


def fingerprint_differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Lines such as `audio_encoder.name: spectral there, facebook/data2vec-audio-base here`."""
    flat_found, flat_wanted = _flatten(found), _flatten(wanted)
    return [
        f"{key}: {flat_found.get(key)} there, {flat_wanted.get(key)} here"
        for key in sorted(flat_found.keys() | flat_wanted.keys())
        if flat_found.get(key) != flat_wanted.get(key)
    ]


def _flatten(tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= {f"{key}.{k}": v for k, v in _flatten(value).items()} if isinstance(value, dict) else {key: value}
    return flat


@dataclass(frozen=True)
class Actors:
    """How many actors an encoder gets, and what each may use."""

    num_actors: int
    num_cpus: float
    num_gpus: float
    threads: int

    @property
    def device(self) -> str:
        return "cuda" if self.num_gpus else "cpu"


def plan_actors(config: Config, num_cpus: float, num_gpus: int) -> tuple[Actors, Actors]:
    """Audio and text encoder actors for a cluster of `num_cpus` and `num_gpus`.

    On CPUs the actors ask Ray for at most half of the cluster, whatever threads they use: decode, read and write tasks always
    find a slot, and two pools can never starve each other. On GPUs the two encoders share each card.

    Raises:
        ConfigError: `extract.use_gpu` is true and the cluster has none.
    """
    use_gpu = config.extract.use_gpu if config.extract.use_gpu is not None else num_gpus > 0
    if use_gpu and not num_gpus:
        raise ConfigError("extract.use_gpu: true, but the cluster has no GPU; set it to false or null")
    built_in = config.audio_encoder.name == BUILT_IN_AUDIO
    if use_gpu and not built_in:
        num_audio = config.extract.num_audio_encoders or num_gpus
        num_text = config.extract.num_text_encoders
        share = num_gpus / (num_audio + num_text / 4)
        audio_gpus = 1.0 if share >= 1 else math.floor(share * 1000) / 1000
        return Actors(num_audio, 0.5, audio_gpus, 4), Actors(num_text, 0.25, math.floor(share / 4 * 1000) / 1000, 4)
    num_audio = config.extract.num_audio_encoders or max(1, int(num_cpus // (2 if built_in else 4)))
    share = 0.4 * num_cpus / num_audio
    threads = 1 if built_in else max(1, int(num_cpus // num_audio))
    text_share = 0.1 * num_cpus / config.extract.num_text_encoders
    return (
        Actors(num_audio, round(min(share, threads), 3), 0, threads),
        Actors(config.extract.num_text_encoders, round(text_share, 3), 0, threads),
    )


def embed_calls(manifest: pa.Table, config: Config, fingerprint: dict[str, Any], send: Callable[[Any], None]) -> Dataset:
    """The pipeline: manifest rows in, rows of `schema.embedding_schema` out, one a call or one an utterance.

    Args:
        manifest: rows of `schema.MANIFEST_SCHEMA`.
        config: its data, encoder and extract sections.
        fingerprint: kept in the schema of the rows.
        send: told (calls, audio seconds) of every batch that is through.
    """
    audio, text = plan_actors(config, cluster.num_cpus(), cluster.num_gpus())
    # In the order of the archives: a worker then reads one archive at a time.
    manifest = manifest.sort_by([("audio_container", "ascending"), ("audio_member", "ascending")])
    size = config.extract.rows_per_block
    # Cut here and not by a repartition: its tasks want a whole CPU each, which the actors of a small machine do not leave.
    blocks = [manifest.slice(start, size) for start in range(0, len(manifest), size)]
    return (
        ray.data.from_arrow(blocks)
        .map_batches(
            functools.partial(decode_calls, data=config.data),
            batch_format="pyarrow",
            batch_size=config.extract.batch_size,
            num_cpus=config.extract.decode_cpus,
        )
        .map_batches(
            EncodeAudio,
            fn_constructor_args=(config.audio_encoder, audio.device, audio.threads),
            batch_format="pyarrow",
            batch_size=config.extract.batch_size,
            compute=ActorPoolStrategy(size=audio.num_actors),
            num_cpus=audio.num_cpus,
            num_gpus=audio.num_gpus,
        )
        .map_batches(
            EncodeText,
            fn_constructor_args=(config.text_encoder, text.device, text.threads, fingerprint, send),
            batch_format="pyarrow",
            batch_size=max(config.extract.batch_size, config.text_encoder.batch_size),
            compute=ActorPoolStrategy(size=text.num_actors),
            num_cpus=text.num_cpus,
            num_gpus=text.num_gpus,
        )
    )


class Progress:
    """Logs calls done, rate and time left from what the text encoders send: (calls, audio seconds) of each batch."""

    def __init__(self, num_calls: int) -> None:
        self.num_calls = num_calls
        self.calls = 0
        self.audio_sec = 0.0
        self.started = time.monotonic()

    def __call__(self, batches: list[tuple[int, float]]) -> None:
        """Count some batches and log one line."""
        self.calls += sum(calls for calls, _ in batches)
        self.audio_sec += sum(seconds for _, seconds in batches)
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.num_calls - self.calls) / self.calls
        rate = f"{self.calls / elapsed:,.1f} calls/s, {self.audio_sec / elapsed:,.0f}x real time, {_duration(left)} left"
        log.info("encoded %s of %s calls, %s", f"{self.calls:,}", f"{self.num_calls:,}", rate)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def account(embeddings: str, manifest: pa.Table) -> dict[str, Any]:
    """Count what became of each planned call, from the parquet that was written.

    A call is embedded when one of its rows is; else it is rejected, for its first row's reason.

    Raises:
        RuntimeError: a planned call has no row, a row no planned call, or a row is there twice.
    """
    columns = ["example_id", "call_id", "status", "reason", "duration_sec", "num_windows", "num_tokens_dropped"]
    filesystem, path = storage.open_location(embeddings)
    rows = pads.dataset(path, filesystem=filesystem, partitioning="hive", format="parquet").to_table(columns=columns)
    frame = rows.to_pandas()
    if frame["example_id"].duplicated().any():
        raise RuntimeError(f"accounting: {int(frame['example_id'].duplicated().sum())} rows were written twice in {embeddings}")
    planned, found = set(manifest["call_id"].to_pylist()), set(frame["call_id"])
    if planned != found:
        raise RuntimeError(f"accounting: {len(planned - found)} planned calls have no row, {len(found - planned)} rows no plan")
    embedded = frame[frame["status"] == Status.EMBEDDED]
    rejected = frame[frame["status"] == Status.REJECTED]
    lost = rejected[~rejected["call_id"].isin(embedded["call_id"])].sort_values("example_id").drop_duplicates("call_id")
    calls_embedded = embedded["call_id"].nunique()
    assert len(planned) == calls_embedded + len(lost), "calls read = calls embedded + calls rejected"
    return {
        "calls_read": len(planned),
        "calls_embedded": calls_embedded,
        "calls_rejected": len(lost),
        "rejected_by_reason": dict(Counter(lost["reason"]).most_common()),
        "rows_embedded": len(embedded),
        "rows_rejected": len(rejected),
        "rows_rejected_by_reason": dict(Counter(rejected["reason"]).most_common()),
        "audio_sec": round(float(embedded["duration_sec"].sum()), 3),
        "rows_windowed": int((embedded["num_windows"] > 1).sum()),
        "texts_truncated": int((embedded["num_tokens_dropped"] > 0).sum()),
        "tokens_dropped": int(embedded["num_tokens_dropped"].sum()),
    }
