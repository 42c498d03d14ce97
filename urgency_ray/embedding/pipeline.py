"""Calls to embeddings: one streaming Ray Data pipeline, from the list of calls to parquet, with every call accounted for.

    manifest -> decode (CPU tasks) -> audio encoder (actors) -> text encoder (actors) -> parquet, partitioned by status

Where a transcriber is used, its actors stand before the audio encoders, which drop the waveforms.

Blocks of some tens of calls stream through, so memory does not grow with the number of calls. A call that cannot be used flows
on as a row with `status=rejected`, a reason and a detail; an exception is a bug and stops the run.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray
from ray.data import Dataset

from urgency_ray import cluster
from urgency_ray.calls.spool import Chunks
from urgency_ray.cluster import Node
from urgency_ray.config import Config
from urgency_ray.embedding.changes import digest_calls
from urgency_ray.embedding.placement import Placement, follow_nodes
from urgency_ray.embedding.stages import EncodeAudio, EncodeText, decode_calls
from urgency_ray.embedding.transcription import Transcribe
from urgency_ray.embedding.transform import encoders_on_gpus
from urgency_ray.encoders.load import is_built_in
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint

log = logging.getLogger(__name__)

SMALL_NODE_CPUS = 8
GPU_THREADS = 4
BLOCKS_PER_ENCODER = 4
"""Least number of blocks for each: of a few, the encoder that is there first would get all, and Ray Data end the others."""


@dataclass(frozen=True)
class Actors:
    """How many actors an encoder gets, and what each may use."""

    num_actors: int
    num_gpus: float
    threads: int

    @property
    def device(self) -> str:
        """The torch device of each."""
        return "cuda" if self.num_gpus else "cpu"


def plan_actors(config: Config, node_cpus: Sequence[float], num_gpus: int) -> tuple[Actors, Actors]:
    """Audio and text encoder actors for nodes of `node_cpus` logical CPUs each, with `num_gpus` GPUs in all.

    Of the CPUs they ask for next to nothing, whatever threads they use (`placement`). Where both encoders are on GPUs, all text
    encoders together ask for a quarter of one GPU, and the audio encoders of a GPU for the rest of it: however Ray places the
    former, the latter fit.

    Raises:
        RequestError: the request does not fit the cluster.
    """
    largest, total = max(node_cpus), sum(node_cpus)
    extract = config.extract
    if extract.decode_cpus > 0.9 * largest:
        raise RequestError(
            f"extract.decode_cpus: {extract.decode_cpus:g} leaves no room for encoders on nodes of {largest:g} CPUs; "
            f"set at most {0.9 * largest:g}"
        )
    on_gpus = encoders_on_gpus(config, num_gpus)
    shared = len(on_gpus) > 1
    if "audio_encoder" in on_gpus:
        num_audio = extract.num_audio_encoders or num_gpus
        audio = _on_gpus(num_audio, (0.75 if shared else 1.0) / math.ceil(num_audio / num_gpus))
    else:
        # Threads of one actor wait for the slowest, which on a small machine shares its core with the text encoder. On a large
        # one, the weights and activations of an actor for each core would fill the memory.
        built_in = is_built_in(config.audio_encoder)
        cores = 2 if built_in else 1 if largest <= SMALL_NODE_CPUS else 4
        num_audio = extract.num_audio_encoders or sum(max(1, int(cpus // cores)) for cpus in node_cpus)
        audio = Actors(num_audio, 0.0, 1 if built_in else max(1, int(total // num_audio)))
    if "text_encoder" in on_gpus:
        num_text = extract.num_text_encoders or num_gpus
        return audio, _on_gpus(num_text, 0.25 / num_text if shared else 1.0 / math.ceil(num_text / num_gpus))
    num_text = extract.num_text_encoders or math.ceil(num_audio / 4)
    return audio, Actors(num_text, 0.0, 1 if is_built_in(config.text_encoder) else max(1, int(total // num_audio)))


def plan_transcribers(config: Config, node_cpus: Sequence[float], num_gpus: int) -> Actors | None:
    """Transcriber actors for the same cluster, None where none is used.

    On GPUs they take their place beside the encoders by `share_gpus`.
    """
    if not config.transcriber.is_used:
        return None
    wanted = config.extract.num_transcribers
    if "transcriber" in encoders_on_gpus(config, num_gpus):
        num_actors = wanted or num_gpus
        return _on_gpus(num_actors, 1.0 / math.ceil(num_actors / num_gpus))
    cores = 1 if max(node_cpus) <= SMALL_NODE_CPUS else 4
    num_actors = wanted or sum(max(1, int(cpus // cores)) for cpus in node_cpus)
    return Actors(num_actors, 0.0, max(1, int(sum(node_cpus) // num_actors)))


def share_gpus(pools: Sequence[Actors], num_gpus: int) -> list[Actors]:
    """The pools with an equal share of a GPU for each actor that asked for any: however Ray places them, all of them fit."""
    num_actors = sum(pool.num_actors for pool in pools if pool.num_gpus)
    share = _round_down(1.0 / math.ceil(num_actors / num_gpus)) if num_actors else 0.0
    return [replace(pool, num_gpus=share if pool.num_gpus else 0.0) for pool in pools]


def _on_gpus(num_actors: int, share: float) -> Actors:
    return Actors(num_actors, _round_down(share), GPU_THREADS)


def _round_down(share: float) -> float:
    # Ray counts in thousandths and more; rounded up, shares of a GPU would add up to more than it.
    return max(0.001, math.floor(share * 1000) / 1000)


def embed_calls(manifest: pa.Table, config: Config, fingerprint: Fingerprint, send: Callable[[Any], None]) -> Dataset:
    """The pipeline: manifest rows in, rows of `schema.embedding_schema` out, one a call or one an utterance.

    Args:
        manifest: rows of `schema.MANIFEST_SCHEMA`.
        config: its data, encoder and extract sections.
        fingerprint: kept in the schema of the rows.
        send: told of every batch that is through, as `rows.Passed`.
    """
    nodes = cluster.nodes_by_id()
    pools = _plan_for(config, nodes.values(), on_gpus=cluster.num_gpus() > 0)
    hearing, reading, *writing = (
        Placement(functools.partial(_count, config, kind, pools), each.num_gpus, nodes) for kind, each in enumerate(pools)
    )
    audio, text, *transcribers = pools
    placements: dict[type, Placement] = {EncodeAudio: hearing, EncodeText: reading}
    if writing:
        placements[Transcribe] = writing[0]
    follow_nodes(placements, config.extract.decode_cpus, config.ray.wait_sec)
    calls = _read_calls(manifest, config, decode_calls, num_blocks=BLOCKS_PER_ENCODER * audio.num_actors)
    for placement, each in zip(writing, transcribers, strict=True):
        calls = placement.map_batches(
            calls,
            Transcribe,
            fn_constructor_args=(config.transcriber, config.data.require_text, each.device, each.threads),
            batch_size=config.extract.batch_size,
        )
    heard = hearing.map_batches(
        calls,
        EncodeAudio,
        fn_constructor_args=(config.audio_encoder, audio.device, audio.threads),
        batch_size=config.extract.batch_size,
    )
    return reading.map_batches(
        heard,
        EncodeText,
        fn_constructor_args=(config.text_encoder, text.device, text.threads, fingerprint, send),
        batch_size=max(config.extract.batch_size, config.text_encoder.batch_size),
    )


def _plan_for(config: Config, nodes: Collection[Node], *, on_gpus: bool) -> list[Actors]:
    """The pools for some nodes: audio and text encoders, and transcribers where they are used.

    GPUs that join a cluster without any are no use to encoders of another arithmetic.
    """
    node_cpus, num_gpus = [node.cpus for node in nodes], int(sum(node.gpus for node in nodes)) if on_gpus else 0
    audio, text = plan_actors(config, node_cpus, num_gpus)
    transcribers = plan_transcribers(config, node_cpus, num_gpus)
    return [audio, text] if transcribers is None else share_gpus([audio, text, transcribers], num_gpus)


def _count(config: Config, kind: int, first: Sequence[Actors], nodes: Sequence[Node]) -> int:
    """How many actors of one of `_plan_for`'s pools some nodes have; `first` are those that the pipeline began with."""
    return _plan_for(config, nodes, on_gpus=any(each.num_gpus for each in first))[kind].num_actors


def digest_planned(manifest: pa.Table, config: Config) -> pa.Table:
    """What `changes.digest_calls` says of planned calls: their files are read and decoded, no encoder is asked.

    Args:
        manifest: rows of `schema.MANIFEST_SCHEMA`, at least one.
        config: its data and extract sections.
    """
    digests = _read_calls(manifest, config, digest_calls)
    return pa.concat_tables(digests.iter_batches(batch_format="pyarrow", batch_size=None))


def _read_calls(manifest: pa.Table, config: Config, read: Callable[..., pa.Table], *, num_blocks: int = 1) -> Dataset:
    """A plan, in at least `num_blocks` if it has the calls, through `read`, which takes some rows, `data`, `transcribes`."""
    # Cut here and not by a repartition: its tasks want a whole CPU each, which the actors of a small machine do not leave.
    blocks = Blocks(manifest, max(1, min(config.extract.rows_per_block, len(manifest) // num_blocks)))
    # Not `from_arrow`: a task for each block, of a whole CPU, would tell its length; each costs the driver 44 KiB for good.
    source: Dataset = ray.data.from_blocks(blocks)  # type: ignore[arg-type]
    return source.map_batches(
        functools.partial(read, data=config.reading, transcribes=config.transcriber.used_for),
        batch_format="pyarrow",
        batch_size=config.extract.batch_size,
        num_cpus=config.extract.decode_cpus,
    )


class Blocks(Sequence[pa.Table]):
    """The plan in blocks of `size` calls, in the order of the archives: a worker then reads one archive at a time.

    Their order alone is kept beside the plan.
    """

    def __init__(self, manifest: pa.Table, size: int) -> None:
        self.size = size
        keys = [("audio_container", "ascending"), ("audio_member", "ascending")]
        self._order: NDArray[np.int64] = pc.sort_indices(manifest, keys).to_numpy().astype(np.int64)
        self._chunks = Chunks(manifest.replace_schema_metadata())

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self.size)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        # Not a slice, which may be sent with all that it is a view of.
        return self._chunks.take(self._order[index * self.size : (index + 1) * self.size])
