"""`urgency-ray train`: models of a run folder's embeddings, scored once on test."""

from __future__ import annotations

import logging
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from urgency_ray import lease, storage
from urgency_ray.config import Config
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits, label_counts
from urgency_ray.examples.leaks import leak_warnings
from urgency_ray.examples.splits import fold_splits
from urgency_ray.fingerprint import Transform
from urgency_ray.model.card import save_model
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.text_trunk import load_tokenizer
from urgency_ray.run_folder import RunFolder, write_json
from urgency_ray.scoring.blocks import ClassificationBlock, CrossValidation, FoldScore, Metrics, SplitBlocks
from urgency_ray.scoring.scores import predictions_table, score_pooled, score_splits
from urgency_ray.training.data import TrainingData
from urgency_ray.training.history import EpochRow
from urgency_ray.training.run import open_run, read_transcripts
from urgency_ray.training.shared import SharedData, SharedInputs
from urgency_ray.training.tensorboard import write_events
from urgency_ray.training.trainer import train_model

log = logging.getLogger(__name__)


class TrainedScores(NamedTuple):
    """A trained model, its blocks of metrics.json, its P(urgency class) of each example (N, C), and all its epochs."""

    model: UrgencyClassifier
    blocks: SplitBlocks
    probs: NDArray[np.float32]
    history: list[EpochRow]


def train(config: Config, run_dir: str) -> Metrics:
    """Train on a run folder; write model/, tensorboard/, metrics.json, history.json and predictions.parquet.

    The best epoch is chosen on the validation split; the test split is scored once, with that epoch's weights. With
    `train.ablation` the audio-only and text-only models of the same trunk are trained and scored as well, with `train.folds`
    the model is cross-validated too.

    Returns:
        The content of metrics.json.

    Raises:
        RequestError: the run folder cannot be trained on, or the workers do not fit the cluster.
        FloatingPointError: the loss is not finite.
    """
    folder, inputs = RunFolder(run_dir), SharedInputs(config.ray)
    config, examples, splits = open_run(config, run_dir, inputs.keep)
    folds = fold_splits(examples, config.split, config.train.folds) if config.train.folds is not None else []
    examples = read_transcripts(examples, run_dir, load_tokenizer(config.model), inputs.keep)
    warnings = leak_warnings(examples, splits)
    for line in warnings:
        log.warning("warning: %s", line)
    with lease.hold(folder.lease("train"), f"train in {run_dir}"):
        return _train(config, folder, examples, splits, folds=folds, inputs=inputs, warnings=warnings)


def _train(
    config: Config,
    folder: RunFolder,
    examples: Examples,
    splits: Splits,
    *,
    folds: list[Splits],
    inputs: SharedInputs,
    warnings: list[str],
) -> Metrics:
    """Train, score and write all that `train` is asked for."""
    data, run_dir = TrainingData.from_examples(examples, splits), folder.location
    shared = inputs.share(data)
    transform = Transform.of(config, examples.fingerprint)
    modalities = [config.model.modalities]
    if config.train.ablation:
        modalities += [other for other in ("fused", "audio", "text") if other not in modalities]
    ablation: dict[str, ClassificationBlock] = {}
    history: list[EpochRow] = []
    for name in modalities:
        variant = config.replace({"model.modalities": name})
        scores = _train_and_score(variant, run_dir, (data, shared), examples=examples, splits=splits, transform=transform)
        ablation[name] = scores.blocks["test"]["urgency"]
        history += scores.history
        if name == config.model.modalities:
            wanted = scores
    metrics = Metrics(splits=wanted.blocks, warnings=warnings)
    if config.train.ablation:
        metrics = metrics.model_copy(update={"ablation": ablation})
    if folds:
        pooled = _cross_validate(config, run_dir, folds, examples=examples, inputs=inputs, transform=transform)
        metrics = metrics.model_copy(update={"folds": pooled})
    # All at the end: an interrupted run leaves the former model beside the former figures.
    save_model(wanted.model, folder.model, metrics.model_dump(exclude_unset=True), label_counts(examples, splits))
    write_events(history, folder.tensorboard)
    storage.write_table(folder.predictions, predictions_table(wanted.probs, examples, splits))
    storage.write_text(folder.config, config.to_yaml())
    write_json(folder.history, history)
    write_json(folder.metrics, metrics)
    return metrics


def _train_and_score(
    config: Config,
    run_dir: str,
    data: tuple[TrainingData, SharedData],
    *,
    examples: Examples,
    splits: Splits,
    transform: Transform,
) -> TrainedScores:
    trained = train_model(config, run_dir, *data, transform)
    probabilities = predict_examples(trained.model, examples)
    blocks = score_splits(
        trained.model, probabilities, examples, splits, num_resamples=config.train.bootstrap_samples, seed=config.split.seed
    )
    best = max(trained.history, key=lambda row: row.val_score)
    log.info(
        "%s: %d epochs, the best is of validation macro-F1 %.3f, epoch %d",
        config.model.modalities,
        len(trained.history),
        best.val_macro_f1,
        best.epoch,
    )
    return TrainedScores(trained.model, blocks, probabilities["urgency"], trained.history)


def _cross_validate(
    config: Config,
    run_dir: str,
    folds: list[Splits],
    *,
    examples: Examples,
    inputs: SharedInputs,
    transform: Transform,
) -> CrossValidation:
    """`folds` of metrics.json: each row outside the provider's test is scored once, by a model that has not seen it."""
    num_resamples, seed = config.train.bootstrap_samples, config.split.seed
    pooled = np.zeros((len(examples), NUM_CLASSES), np.float32)
    each = []
    for number, splits in enumerate(folds, start=1):
        data = TrainingData.from_examples(examples, splits)
        trained = train_model(config, run_dir, data, inputs.share(data), transform)
        pooled[splits.test] = predict_examples(trained.model, examples)["urgency"][splits.test]
        macro_f1 = score_pooled(pooled, examples, splits.test, num_resamples=num_resamples, seed=seed).macro_f1
        each.append(FoldScore(num_rows=len(splits.test), macro_f1=macro_f1))
        log.info("fold %d of %d: macro-F1 %.3f on %d rows", number, len(folds), macro_f1, len(splits.test))
    scores = [fold.macro_f1 for fold in each]
    held_out = np.sort(np.concatenate([splits.test for splits in folds]))
    return CrossValidation(
        each=each,
        macro_f1_mean=statistics.mean(scores),
        macro_f1_std=statistics.stdev(scores),
        pooled=score_pooled(pooled, examples, held_out, num_resamples=num_resamples, seed=seed),
    )


def format_scores(metrics: Metrics) -> str:
    """The figures of metrics.json in lines for the terminal: one for each split and task, one for the folds."""
    lines = []
    for split, tasks in metrics.splits.items():
        for task, block in tasks.items():
            low, high = block.macro_f1_interval
            figures = f"macro-F1 {block.macro_f1:.3f} (95 % {low:.3f} to {high:.3f}), accuracy {block.accuracy:.3f}"
            lines.append(f"{split:<5}{task:<10}{figures}, n {block.num_rows:,}")
    if (folds := metrics.folds) is not None:
        spread = f"macro-F1 {folds.macro_f1_mean:.3f} ± {folds.macro_f1_std:.3f} (standard deviation)"
        lines.append(f"folds urgency   {spread} over {len(folds.each)} folds, n {folds.pooled.num_rows:,}")
    return "\n".join(lines)
