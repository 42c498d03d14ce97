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
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy, Dataset

from urgency_ray import __version__, cluster, storage
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import ENCODERS, Config, ConfigError
from urgency_ray.embedding import ledger
from urgency_ray.embedding.stages import EncodeAudio, EncodeText, decode_calls
from urgency_ray.encoders.load import BUILT_IN_AUDIO, BUILT_IN_TEXT, resolve_weights

log = logging.getLogger(__name__)

PROGRESS_SEC = 5.0
SMALL_NODE_CPUS = 8
ROWS_PER_DIGEST = 8192
COMMIT = re.compile("[0-9a-f]{40}")


def extract(config: Config, run_dir: str) -> dict[str, Any]:
    """Embed every call below `config.data.root` into `<run_dir>/embeddings`; write `extract.json` and return its content.

    A finished run folder of the same calls, encoders and settings is left as it is; in an unfinished one, calls that have their
    rows are not done again.

    Raises:
        ConfigError: no calls there, an encoder cannot be loaded, or the run folder holds something else, or is among the calls.
        UnreachableError: a file of a call cannot be reached; what is done is kept.
    """
    started = time.monotonic()
    if config.data.root is not None and _is_below(run_dir, config.data.root):
        raise ConfigError(
            f"--run-dir {run_dir}: lies below data.root, where its files would be taken for calls; choose another"
        )
    config = pin_arithmetic(pin_revisions(config))
    fingerprint = make_fingerprint(config)
    manifest = plan_calls(config.data)
    plan = {"fingerprint": fingerprint, "manifest_sha256": _digest(manifest)}
    embeddings, summary_path = storage.join(run_dir, "embeddings"), storage.join(run_dir, "extract.json")
    if storage.exists(summary_path):
        summary: dict[str, Any] = json.loads(storage.read_text(summary_path))
        ledger.refuse_other_fingerprint(run_dir, summary["fingerprint"], fingerprint)
        if summary["manifest_sha256"] != plan["manifest_sha256"]:
            raise ConfigError(f"--run-dir {run_dir}: holds the embeddings of other calls; choose another run folder")
        if _is_whole(embeddings, manifest, summary):
            log.info("%s holds the embeddings of these calls already: nothing to do", run_dir)
            return summary
        log.warning("warning: %s lacks files that it once had: their calls are done again", embeddings)

    finished = ledger.recover(run_dir, embeddings, fingerprint, manifest)
    unfinished = manifest
    if len(finished):
        unfinished = manifest.filter(pc.invert(pc.is_in(manifest["call_id"], finished)))
        log.info(
            "%d of %d calls have their rows already: going on with the rest", len(manifest) - len(unfinished), len(manifest)
        )
    storage.write_text(storage.join(run_dir, "config.yaml"), config.to_yaml())
    if len(unfinished):
        cluster.connect(config.ray)
        with cluster.Relay(Progress(len(unfinished)), PROGRESS_SEC) as send:
            rows = embed_calls(unfinished, config, fingerprint, send)
            filesystem, path = storage.open_location(embeddings)
            rows.write_parquet(path, filesystem=filesystem, partition_cols=["status"], ray_remote_args={"num_cpus": 0.25})

    summary = {**ledger.account(embeddings, manifest), "wall_sec": round(time.monotonic() - started, 3), **plan}
    line = ledger.accounting_line(summary)
    storage.write_text(summary_path, json.dumps(summary, ensure_ascii=False, indent=2))
    log.info(line)
    return summary


def _is_below(location: str, root: str) -> bool:
    below, above = (storage.without_options(storage.absolute(place)).rstrip("/") + "/" for place in (location, root))
    return below.startswith(above)


def _is_whole(embeddings: str, manifest: pa.Table, summary: dict[str, Any]) -> bool:
    try:
        return ledger.account(embeddings, manifest).items() <= summary.items()
    except (RuntimeError, FileNotFoundError, pa.ArrowInvalid):
        return False


def pin_revisions(config: Config) -> Config:
    """`config` with the commits that the encoders' names stand for today, so that every actor, and `predict`, loads the same.

    Raises:
        ConfigError: an encoder's name stands for nothing that can be loaded.
    """
    sections = {key: getattr(config, key) for key in ENCODERS}
    weights = {key: resolve_weights(section) for key, section in sections.items() if not Path(section.name).is_dir()}
    commits = {f"{key}.revision": value for key, value in weights.items() if COMMIT.fullmatch(value)}
    return config.replace(commits) if commits else config


def pin_arithmetic(config: Config) -> Config:
    """`config` with what `auto` stands for on this cluster: a rerun elsewhere must not mix bfloat16 with float32.

    Raises:
        ConfigError: there is no GPU, and the config wants one.
    """
    names = {"audio_encoder": BUILT_IN_AUDIO, "text_encoder": BUILT_IN_TEXT}
    open_keys = [
        key for key, built_in in names.items() if getattr(config, key).dtype == "auto" and getattr(config, key).name != built_in
    ]
    if not open_keys:
        return config
    cluster.connect(config.ray)
    dtype = "bfloat16" if _uses_gpu(config, cluster.num_gpus()) else "float32"
    return config.replace({f"{key}.dtype": dtype for key in open_keys})


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
    columns = manifest.select(["call_id", "num_bytes", "version", "provider_split", "region", "reason"])
    digest = hashlib.sha256()
    for start in range(0, len(columns), ROWS_PER_DIGEST):
        digest.update(json.dumps(columns.slice(start, ROWS_PER_DIGEST).to_pydict()).encode())
    return digest.hexdigest()


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


def plan_actors(config: Config, node_cpus: Sequence[float], num_gpus: int) -> tuple[Actors, Actors]:
    """Audio and text encoder actors for nodes of `node_cpus` logical CPUs each, with `num_gpus` cards in all.

    The actors ask Ray for at most half of the CPUs, in pieces that fit the smallest node, whatever threads they use: a decode
    task (at most 0.4 of a node), a write task and predict's classifier (0.1 CPUs) always find a slot. On GPUs all text encoders
    together ask for a quarter of one card, and the audio encoders of a card for the rest of it: however Ray places the former,
    the latter fit.

    Raises:
        ConfigError: the request does not fit the cluster.
    """
    smallest, largest, total = min(node_cpus), max(node_cpus), sum(node_cpus)
    if config.extract.decode_cpus > 0.4 * largest:
        raise ConfigError(
            f"extract.decode_cpus: {config.extract.decode_cpus:g} leaves no room for encoders on nodes of {largest:g} CPUs; "
            f"set at most {0.4 * largest:g}"
        )
    built_in = config.audio_encoder.name == BUILT_IN_AUDIO
    if _uses_gpu(config, num_gpus):
        for key in ENCODERS:
            if getattr(config, key).dtype == "int8":
                raise ConfigError(f"{key}.dtype: int8 runs on CPUs; choose auto, or set extract.use_gpu to false")
        num_audio = config.extract.num_audio_encoders or num_gpus
        num_text = config.extract.num_text_encoders or num_gpus
        audio_gpus = _round_down(0.75 / math.ceil(num_audio / num_gpus))
        hear_cpus, read_cpus = min(0.5, 0.4 * smallest / num_audio), min(0.25, 0.1 * smallest / num_text)
        return (
            Actors(num_audio, _round_down(hear_cpus), audio_gpus, 4),
            Actors(num_text, _round_down(read_cpus), _round_down(0.25 / num_text), 4),
        )
    # Threads of one actor wait for the slowest, which on a small machine shares its core with the text encoder. On a large one,
    # the weights and activations of an actor for each core would fill the memory.
    cores = 2 if built_in else 1 if largest <= SMALL_NODE_CPUS else 4
    num_audio = config.extract.num_audio_encoders or sum(max(1, int(cpus // cores)) for cpus in node_cpus)
    num_text = config.extract.num_text_encoders or math.ceil(num_audio / 4)
    threads = 1 if built_in else max(1, int(total // num_audio))
    return (
        Actors(num_audio, _round_down(min(0.4 * total / num_audio, 0.4 * smallest, threads)), 0, threads),
        Actors(num_text, _round_down(min(0.1 * total / num_text, 0.1 * smallest, threads)), 0, threads),
    )


def _uses_gpu(config: Config, num_gpus: int) -> bool:
    wanted = config.extract.use_gpu if config.extract.use_gpu is not None else num_gpus > 0
    if wanted and not num_gpus:
        raise ConfigError("extract.use_gpu: true, but the cluster has no GPU; set it to false or null")
    return wanted and config.audio_encoder.name != BUILT_IN_AUDIO


def _round_down(share: float) -> float:
    # Ray counts in thousandths and more; rounded up, shares of a card would add up to more than it.
    return max(0.001, math.floor(share * 1000) / 1000)


def embed_calls(manifest: pa.Table, config: Config, fingerprint: dict[str, Any], send: Callable[[Any], None]) -> Dataset:
    """The pipeline: manifest rows in, rows of `schema.embedding_schema` out, one a call or one an utterance.

    Args:
        manifest: rows of `schema.MANIFEST_SCHEMA`.
        config: its data, encoder and extract sections.
        fingerprint: kept in the schema of the rows.
        send: told (calls, audio seconds) of every batch that is through.
    """
    audio, text = plan_actors(config, cluster.node_cpus(), cluster.num_gpus())
    # Cut here and not by a repartition: its tasks want a whole CPU each, which the actors of a small machine do not leave.
    blocks = Blocks(manifest, config.extract.rows_per_block)
    # Not `from_arrow`: a task for each block, of a whole CPU, would tell its length; each costs the driver 44 KiB for good.
    source: Dataset = ray.data.from_blocks(blocks)  # type: ignore[arg-type]
    return (
        source.map_batches(
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


class Blocks(Sequence[pa.Table]):
    """The plan in blocks of `size` calls, each made when it is asked for: no second copy of the whole plan is there.

    They are in the order of the archives: a worker then reads one archive at a time.
    """

    def __init__(self, manifest: pa.Table, size: int) -> None:
        self.manifest = manifest
        self.order = pc.sort_indices(manifest, [("audio_container", "ascending"), ("audio_member", "ascending")])
        self.size = size

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.size)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.manifest.take(self.order.slice(index * self.size, self.size))


class Progress:
    """Logs calls done, rate and time left from what the text encoders send: (calls, audio seconds) of each batch."""

    def __init__(self, num_calls: int) -> None:
        self.num_calls = num_calls
        self.calls = 0.0
        self.audio_sec = 0.0
        self.started = time.monotonic()

    def __call__(self, batches: list[tuple[float, float]]) -> None:
        """Count some batches and log one line."""
        self.calls += sum(calls for calls, _ in batches)
        self.audio_sec += sum(seconds for _, seconds in batches)
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.num_calls - self.calls) / self.calls
        rate = f"{self.calls / elapsed:,.1f} calls/s, {self.audio_sec / elapsed:,.0f}x real time, {_duration(left)} left"
        log.info("encoded %s of %s calls, %s", f"{self.calls:,.0f}", f"{self.num_calls:,}", rate)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
