"""A saved model on new calls, through exactly the transform that made its training embeddings."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, Dataset

from urgency_ray import cluster, lease, storage
from urgency_ray.calls.plan import describe_plan, plan_calls
from urgency_ray.config import Config
from urgency_ray.embedding.pipeline import embed_calls
from urgency_ray.embedding.placement import ACTOR_CPUS
from urgency_ray.embedding.progress import Progress
from urgency_ray.embedding.transform import make_fingerprint, places_read
from urgency_ray.encoders.probe import probe_encoders
from urgency_ray.errors import WorkError
from urgency_ray.examples.tokens import describe_cut
from urgency_ray.model.load import Model, load_model
from urgency_ray.patience import patiently
from urgency_ray.prediction.by_call import CALL_OUTPUT_SCHEMA, classify_calls, whole_calls
from urgency_ray.prediction.by_row import OUTPUT_SCHEMA, Classify
from urgency_ray.prediction.kept import KeptRows, keep_rows
from urgency_ray.prediction.output import check_output, describe_counts, write_predictions
from urgency_ray.prediction.prepare import adopt_transform, repeat_arithmetic
from urgency_ray.secret import refuse_listed_secrets

log = logging.getLogger(__name__)


def predict(config: Config, model_location: str, output: str) -> dict[str, Any]:
    """Classify every call below `config.data.root`; write `output` (.parquet or .csv), rejects included.

    A row is what the model was trained on, a call or an utterance (`by_row.OUTPUT_SCHEMA`). Of a hierarchical model it is a
    call, with the utterances that drove the decision (`by_call.CALL_OUTPUT_SCHEMA`; a .csv has the one that weighs most).

    The embeddings are kept beside the output until that is written: a `predict` that was killed goes on with them.

    Args:
        config: its data.root, extract and ray sections; the transform comes from the model.
        model_location: model folder of a run.
        output: file or URI.

    Returns:
        Counts: calls_read, calls_predicted, calls_rejected, rows_predicted, rows_rejected, rejected_by_reason, predicted (by
        label key); of a hierarchical model also utterances and utterances_rejected.

    Raises:
        RequestError: no model, no calls, an output that cannot be written, here or from a node, or a transform that cannot be
            repeated here.
        WorkError: every call was rejected; the output says why.
    """
    check_output(output)
    model = load_model(model_location)
    config = adopt_transform(model, config)
    probe_encoders(config)
    manifest = plan_calls(config.reading)
    refuse_listed_secrets(manifest, "--data.manifest")
    for line in describe_plan(manifest):
        log.info(line)
    cluster.connect(config.ray)
    cluster.check_reach({"--output": storage.folder_of(output)}, places_read(config))
    config = repeat_arithmetic(model, config, cluster.num_gpus(), cluster.ask_nodes)
    cut: list[NDArray[np.int64]] = []
    with lease.hold(storage.add_suffix(output, ".lease"), f"predict into {output}"):
        kept = patiently(output, lambda: KeptRows(output, make_fingerprint(config), manifest))
        counts = _classify(model, config, manifest, kept, output=output, cut=cut)
        kept.discard()
    log.info("%s", describe_counts(counts))
    if "utterances" in counts:
        log.info("%d of %d utterances were rejected and had no say", counts["utterances_rejected"], counts["utterances"])
    log.info("%d rows predicted: %s", counts["rows_predicted"], output)
    if cut:
        log.info("%s", describe_cut(np.concatenate(cut)))
    if not counts["calls_predicted"]:
        raise WorkError(f"{output}: not one call could be classified: {describe_counts(counts)}; the file says why of each")
    return counts


def _classify(
    model: Model, config: Config, manifest: pa.Table, kept: KeptRows, *, output: str, cut: list[NDArray[np.int64]]
) -> dict[str, Any]:
    """Write what `model` says of all planned calls, and give their counts; `cut` gets the tokens cut off each transcript."""
    unfinished = manifest.filter(pc.invert(pc.is_in(manifest["call_id"], kept.call_ids)))
    if len(kept.call_ids):
        log.info("%d of %d calls are embedded already: going on with the rest", len(kept.call_ids), len(manifest))
    with (
        Progress(len(unfinished), "predict") as progress,
        cluster.Relay(progress, progress.every_sec) as send,
        cluster.Relay(cut.extend, 1.0) as send_cut,
    ):
        rows = _embed(config, unfinished, kept, send) if len(unfinished) else None
        if model.takes_calls:
            # The utterances of a call can be spread over blocks; they meet here, where one that was lost cannot go unseen.
            calls = whole_calls(chain(kept.tables(), _stream(rows)))
            return write_predictions((classify_calls(model, table) for table in calls), CALL_OUTPUT_SCHEMA, manifest, output)
        rows = rows if rows is None else _classify_rows(rows, model, send_cut)
        tables = chain(map(Classify(model, cut.append), kept.tables()), _stream(rows))
        return write_predictions(tables, OUTPUT_SCHEMA, manifest, output)


def _embed(config: Config, manifest: pa.Table, kept: KeptRows, send: Callable[[Any], None]) -> Dataset:
    """Embedding rows, kept beside the others as they pass."""
    keep = functools.partial(keep_rows, location=kept.location)
    rows = embed_calls(manifest, config, kept.fingerprint, send)
    return rows.map_batches(keep, batch_format="pyarrow", batch_size=None, num_cpus=0.1)


def _classify_rows(rows: Dataset, model: Model, send_cut: Callable[[Any], None]) -> Dataset:
    """Rows of `OUTPUT_SCHEMA`, from embedding rows; a classifier a node is enough for the encoders that it has."""
    return rows.map_batches(
        Classify,
        fn_constructor_args=(model, send_cut),
        batch_format="pyarrow",
        batch_size=1024,
        compute=ActorPoolStrategy(size=len(cluster.nodes())),
        num_cpus=ACTOR_CPUS,
    )


def _stream(rows: Dataset | None) -> Iterable[pa.Table]:
    return [] if rows is None else rows.iter_batches(batch_format="pyarrow", batch_size=None)
