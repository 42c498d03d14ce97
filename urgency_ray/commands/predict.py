"""A saved model on new calls, through exactly the transform that made its training embeddings."""

from __future__ import annotations

import logging
import posixpath
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from urgency_ray import cluster, storage
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import Config
from urgency_ray.embedding.pipeline import PROGRESS_SEC, Progress, embed_calls
from urgency_ray.embedding.transform import repeat_transform
from urgency_ray.errors import RequestError
from urgency_ray.examples.tokens import describe_cut
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.model.classifier import load_model
from urgency_ray.prediction.by_call import CALL_OUTPUT_SCHEMA, classify_calls, whole_calls
from urgency_ray.prediction.by_row import OUTPUT_SCHEMA, Classify
from urgency_ray.schema import URGENCY_KEYS

log = logging.getLogger(__name__)


def predict(config: Config, model_location: str, output: str) -> dict[str, Any]:
    """Classify every call below `config.data.root`; write `output` (.parquet or .csv), rejects included.

    A row is what the model was trained on, a call or an utterance (`by_row.OUTPUT_SCHEMA`). Of a hierarchical model it is a
    call, with the utterances that drove the decision (`by_call.CALL_OUTPUT_SCHEMA`; a .csv has the one that weighs most).

    Args:
        config: its data.root, extract and ray sections; the transform comes from the model.
        model_location: model folder of a run.
        output: file or URI.

    Returns:
        Counts: calls_read, calls_predicted, calls_rejected, rows_predicted, rows_rejected, rejected_by_reason, predicted (by
        label key); of a hierarchical model also utterances and utterances_rejected.

    Raises:
        RequestError: no model, no calls, an output of another kind, or a transform that cannot be repeated here.
    """
    if storage.suffix(output) not in (".parquet", ".csv"):
        raise RequestError(f"--output {output}: must end in .parquet or .csv")
    model = load_model(model_location)
    config = repeat_transform(config, model.transform)
    manifest = plan_calls(config.data)
    cluster.connect(config.ray)
    cut: list[NDArray[np.int64]] = []
    with cluster.Relay(Progress(manifest.num_rows), PROGRESS_SEC) as send, cluster.Relay(cut.extend, 1.0) as send_cut:
        rows = embed_calls(manifest, config, Fingerprint.model_validate(model.transform["fingerprint"]), send)
        if model.attention is None:
            classified = rows.map_batches(
                Classify,
                fn_constructor_args=(model, send_cut),
                batch_format="pyarrow",
                batch_size=1024,
                compute=ActorPoolStrategy(size=1),
                num_cpus=0.1,
            )
            tables = classified.iter_batches(batch_format="pyarrow", batch_size=None)
            counts = _write(tables, OUTPUT_SCHEMA, manifest, output)
        else:
            # The utterances of a call can be spread over blocks; they meet here, where one that was lost cannot go unseen.
            calls = whole_calls(rows.iter_batches(batch_format="pyarrow", batch_size=None))
            tables = (classify_calls(model, table) for table in calls)
            counts = _write(tables, CALL_OUTPUT_SCHEMA, manifest, output)
    log.info(
        "%d calls read = %d predicted + %d rejected",
        *(counts[key] for key in ("calls_read", "calls_predicted", "calls_rejected")),
    )
    if "utterances" in counts:
        log.info("%d of %d utterances were rejected and had no say", counts["utterances_rejected"], counts["utterances"])
    log.info("%d rows predicted: %s", counts["rows_predicted"], output)
    if cut:
        log.info("%s", describe_cut(np.concatenate(cut)))
    return counts


def _write(tables: Iterable[Any], schema: pa.Schema, manifest: pa.Table, output: str) -> dict[str, Any]:
    """Write rows as they come; the output appears, whole, only when every planned call has come out once."""
    is_csv = storage.suffix(output) == ".csv"
    if is_csv:
        schema = pa.schema([field for field in schema if not pa.types.is_nested(field.type)])
    filesystem, path = storage.open_location(output)
    filesystem.create_dir(posixpath.dirname(path), recursive=True)
    partial = f"{path}.partial"
    open_writer = pacsv.CSVWriter if is_csv else pq.ParquetWriter
    num_predicted, num_rejected = Counter[str](), Counter[str]()
    labels, reasons, examples = Counter[str](), Counter[str](), Counter[str]()
    utterances = Counter[str]()
    with filesystem.open_output_stream(partial) as stream, open_writer(stream, schema) as writer:
        for table in tables:
            writer.write_table(table.select(schema.names).cast(schema))
            for name in {"num_utterances", "num_utterances_rejected"} & set(schema.names):
                utterances[name] += pc.sum(table[name]).as_py()
            examples.update(table["example_id"].to_pylist())
            labels.update(URGENCY_KEYS[label] for label in table["urgency_pred"].drop_null().to_pylist())
            reasons.update(table["reason"].drop_null().to_pylist())
            num_predicted.update(table.filter(pc.is_valid(table["urgency_pred"]))["call_id"].to_pylist())
            num_rejected.update(table.filter(pc.is_null(table["urgency_pred"]))["call_id"].to_pylist())
    found = num_predicted.keys() | num_rejected.keys()
    if found != set(manifest["call_id"].to_pylist()) or examples.total() != len(examples):
        filesystem.delete_file(partial)
        raise RuntimeError(f"accounting: {len(manifest)} calls planned, {len(found)} came out, in {examples.total()} rows")
    filesystem.move(partial, path)
    return {
        "calls_read": len(found),
        "calls_predicted": len(num_predicted),
        "calls_rejected": len(found) - len(num_predicted),
        "rows_predicted": labels.total(),
        "rows_rejected": reasons.total(),
        "rejected_by_reason": dict(reasons.most_common()),
        "predicted": dict(labels),
        **{name.replace("num_utterances", "utterances"): count for name, count in utterances.items()},
    }
