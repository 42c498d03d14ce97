"""A saved model on new calls, through exactly the transform that made its training embeddings."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from urgency_ray import cluster
from urgency_ray.calls.plan import files_seen, plan_calls
from urgency_ray.config import Config
from urgency_ray.embedding.pipeline import PROGRESS_SEC, Progress, embed_calls
from urgency_ray.embedding.transform import repeat_transform
from urgency_ray.encoders.probe import probe_encoders
from urgency_ray.errors import WorkError
from urgency_ray.examples.tokens import describe_cut
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.model.load import load_model
from urgency_ray.prediction.by_call import CALL_OUTPUT_SCHEMA, classify_calls, whole_calls
from urgency_ray.prediction.by_row import OUTPUT_SCHEMA, Classify
from urgency_ray.prediction.output import check_output, describe_counts, write_predictions

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
        RequestError: no model, no calls, an output that cannot be written, or a transform that cannot be repeated here.
        WorkError: every call was rejected; the output says why.
    """
    check_output(output)
    model = load_model(model_location)
    config = repeat_transform(config, model.transform)
    if not model.reads:
        config = config.replace({"data.require_text": False})
    probe_encoders(config)
    manifest = plan_calls(config.data)
    for line in files_seen(manifest).lines():
        log.info(line)
    cluster.connect(config.ray)
    cut: list[NDArray[np.int64]] = []
    with cluster.Relay(Progress(manifest.num_rows), PROGRESS_SEC) as send, cluster.Relay(cut.extend, 1.0) as send_cut:
        rows = embed_calls(manifest, config, Fingerprint.model_validate(model.transform["fingerprint"]), send)
        if not model.takes_calls:
            classified = rows.map_batches(
                Classify,
                fn_constructor_args=(model, send_cut),
                batch_format="pyarrow",
                batch_size=1024,
                compute=ActorPoolStrategy(size=1),
                num_cpus=0.1,
            )
            tables = classified.iter_batches(batch_format="pyarrow", batch_size=None)
            counts = write_predictions(tables, OUTPUT_SCHEMA, manifest, output)
        else:
            # The utterances of a call can be spread over blocks; they meet here, where one that was lost cannot go unseen.
            calls = whole_calls(rows.iter_batches(batch_format="pyarrow", batch_size=None))
            tables = (classify_calls(model, table) for table in calls)
            counts = write_predictions(tables, CALL_OUTPUT_SCHEMA, manifest, output)
    log.info("%s", describe_counts(counts))
    if "utterances" in counts:
        log.info("%d of %d utterances were rejected and had no say", counts["utterances_rejected"], counts["utterances"])
    log.info("%d rows predicted: %s", counts["rows_predicted"], output)
    if cut:
        log.info("%s", describe_cut(np.concatenate(cut)))
    if not counts["calls_predicted"]:
        raise WorkError(f"{output}: not one call could be classified: {describe_counts(counts)}; the file says why of each")
    return counts
