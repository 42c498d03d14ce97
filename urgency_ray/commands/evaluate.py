"""`urgency-ray evaluate`: a run folder's model scored again on its own splits, with an operating point where wanted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from urgency_ray import storage
from urgency_ray.config import Config, SplitConfig
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits
from urgency_ray.examples.splits import val_folds
from urgency_ray.fingerprint import Transform
from urgency_ray.model.ensemble import UrgencyEnsemble
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.load import load_model
from urgency_ray.run_folder import RunFolder
from urgency_ray.scoring.blocks import OperatingPoint, SplitBlocks
from urgency_ray.scoring.calibration import operating_point
from urgency_ray.scoring.scores import predictions_table, score_splits
from urgency_ray.training.members import all_validated, cross_predict
from urgency_ray.training.run import open_run, read_transcripts

CONFIDENCE = 0.9


class Evaluation(NamedTuple):
    """`splits` as in metrics.json, and the operating point where one was asked for."""

    splits: SplitBlocks
    operating_point: OperatingPoint | None


def evaluate_run(
    config: Config, run_dir: str, recall_of_high: float | None = None, confidence: float = CONFIDENCE
) -> Evaluation:
    """Score `<run_dir>/model` on the val and test splits of the run's embeddings.

    Args:
        config: its split section must be the one of the training.
        run_dir: run folder.
        recall_of_high: the least recall of 상 among new calls to find an operating point for; None finds none.
        confidence: how sure to be of it.

    Raises:
        RequestError: the run folder holds no model or no embeddings, or they have changed since the model was trained.
    """
    model = load_model(RunFolder(run_dir).model)
    config, examples, splits = open_run(config.replace({"model.name": model.config.name}), run_dir)
    # A field that an older version had not yet stands for its default.
    if SplitConfig().model_dump() | Transform.of_model(model.transform).split != config.split.model_dump():
        raise RequestError(
            f"--run-dir {run_dir}: its model was trained on another split; evaluate it with the same split section"
        )
    _refuse_grown(run_dir, examples, all_validated(splits) if isinstance(model, UrgencyEnsemble) else splits)
    examples = read_transcripts(examples, run_dir, model.tokenizer)
    if isinstance(model, UrgencyEnsemble):
        folds = val_folds(examples, splits, config.split, model.num_folds, "train.members")
        splits, probabilities = all_validated(splits), cross_predict(model, examples, folds)
    else:
        probabilities = predict_examples(model, examples)
    blocks = score_splits(
        model, probabilities, examples, splits, num_resamples=config.train.bootstrap_samples, seed=config.split.seed
    )
    point = None
    if recall_of_high is not None:
        parts = {"val": splits.val, "test": splits.test}
        probs_high = probabilities["urgency"][:, -1]
        point = operating_point(probs_high, examples.urgency, parts, recall=recall_of_high, confidence=confidence)
    return Evaluation(blocks, point)


def _refuse_grown(run_dir: str, examples: Examples, splits: Splits) -> None:
    """Refuse a model that was trained before the run grew: rows that it has seen would be test rows now."""
    predictions = RunFolder(run_dir).predictions
    if not storage.exists(predictions):
        return
    filesystem, path = storage.open_location(predictions)
    then = pq.read_table(path, filesystem=filesystem, columns=["example_id", "split"])
    now = predictions_table(np.zeros((len(examples), NUM_CLASSES), np.float32), examples, splits).select(then.column_names)
    if not then.sort_by("example_id").equals(now.sort_by("example_id")):
        raise RequestError(f"--run-dir {run_dir}: its embeddings have changed since its model was trained; train it again")
