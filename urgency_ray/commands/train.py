"""`urgency-ray train`: models of a run folder's embeddings, scored once on test."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator
from typing import Literal

import numpy as np

from urgency_ray import cluster, lease, storage
from urgency_ray.config import Config
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits, label_counts
from urgency_ray.examples.splits import fold_splits
from urgency_ray.fingerprint import Transform
from urgency_ray.model.card import save_model
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.layer_weights import name_weights
from urgency_ray.model.text_trunk import load_tokenizer
from urgency_ray.run_folder import RunFolder, write_json
from urgency_ray.scoring.blocks import ClassificationBlock, CrossValidation, FoldScore, Metrics, SplitBlocks
from urgency_ray.scoring.scores import predictions_table, score_pooled
from urgency_ray.scoring.suspicions import describe_absent, describe_gap
from urgency_ray.tracking import Ended, Tracking, check_trackers, figures_of, track
from urgency_ray.tracking.tensorboard import write_events
from urgency_ray.training.baselines import compare, fit_baselines, format_against, penalty
from urgency_ray.training.data import TrainingData
from urgency_ray.training.history import EpochRow
from urgency_ray.training.run import check_examples, open_run, places_read, read_transcripts
from urgency_ray.training.shared import SharedInputs
from urgency_ray.training.trainer import Job, Trained, train_models
from urgency_ray.training.whole import Whole, member_folds

log = logging.getLogger(__name__)

MODALITIES: tuple[Literal["fused", "audio", "text"], ...] = ("fused", "audio", "text")


def train(config: Config, run_dir: str) -> Metrics:
    """Train on a run folder; write model/, tensorboard/, metrics.json, history.json and predictions.parquet.

    The best epoch is chosen on the validation split; the test split is scored once, with that epoch's weights. With
    `train.members` the model is an ensemble, and each row of train and val is judged by the members that have not seen it. With
    `train.ablation` the audio-only and text-only models of the same trunk are trained and scored as well, with `train.folds`
    the model is cross-validated too.

    Returns:
        The content of metrics.json.

    Raises:
        RequestError: the run folder cannot be trained on, or not from every node, or the workers do not fit the cluster.
        FloatingPointError: the loss is not finite.
    """
    check_trackers(config)
    folder, inputs = RunFolder(run_dir), SharedInputs(config.ray)
    config, examples, splits = open_run(config, run_dir, inputs.keep)
    # Too few calls for so many members are said before the work.
    member_folds(config, examples, splits)
    folds = fold_splits(examples, config.split, config.train.folds) if config.train.folds is not None else []
    examples = read_transcripts(examples, run_dir, load_tokenizer(config.model), inputs.keep)
    warnings = check_examples(config, examples, splits)
    cluster.check_reach({"--run-dir": run_dir}, places_read(config))
    with lease.hold(folder.lease("train"), f"train in {run_dir}"), track(config, run_dir, "train") as tracking:
        return _train(config, folder, examples, splits, folds=folds, inputs=inputs, warnings=warnings, tracking=tracking)


def _train(
    config: Config,
    folder: RunFolder,
    examples: Examples,
    splits: Splits,
    *,
    folds: list[Splits],
    inputs: SharedInputs,
    warnings: list[str],
    tracking: Tracking,
) -> Metrics:
    """Train, score and write all that `train` is asked for."""
    wanted = config.model.modalities
    variants: dict[str, Config] = {wanted: config}
    if config.train.ablation:
        variants |= {name: config.replace({"model.modalities": name}) for name in MODALITIES if name != wanted}
    # Linear members take their penalty; else the first epoch need not wait for them.
    baselines = fit_baselines(config, examples, splits) if config.train.linear_member else {}
    whole = Whole.of(config, examples, splits, inputs)
    jobs = {name: whole.jobs(name, variant, penalty(baselines, name)) for name, variant in variants.items()}
    for number, fold in enumerate(folds, start=1):
        data = TrainingData.from_examples(examples, fold)
        jobs[f"fold-{number}"] = [Job(f"fold-{number}", config, data, inputs.share(data))]
    transform = Transform.of(config, examples.fingerprint)
    every = [job for group in jobs.values() for job in group]
    trained = iter(train_models(every, folder.location, transform, tracking.epochs))
    found = {name: [next(trained) for _ in group] for name, group in jobs.items()}
    models = {name: whole.judge(name, found[name]) for name in variants}
    chosen = models[wanted]
    metrics = Metrics(splits=chosen.blocks, warnings=[*warnings, *_suspicions(chosen.blocks)])
    if config.train.ablation:
        tested = {name: model.blocks["test"]["urgency"] for name, model in models.items()}
        metrics = metrics.model_copy(update={"ablation": tested})
    if folds:
        held_out = [fold.model for name in found if name not in variants for fold in found[name]]
        metrics = metrics.model_copy(update={"folds": _score_folds(held_out, folds, examples, config)})
    if config.train.baselines:
        baselines = baselines or fit_baselines(config, examples, splits)
        blocks = {name: baseline.block for name, baseline in baselines.items()}
        against = compare(chosen.called, baselines, examples, splits, config)
        metrics = metrics.model_copy(update={"baselines": blocks, "against_baseline": against})
    if named := name_weights(chosen.model.layer_weights, chosen.model.transform):
        metrics = metrics.model_copy(update={"layer_weights": named})
    history = [row for name in variants for pair in zip(jobs[name], found[name], strict=True) for row in _rows(name, *pair)]
    # All at the end: an interrupted run leaves the former model beside the former figures.
    save_model(chosen.model, folder.model, metrics.model_dump(exclude_unset=True), label_counts(examples, chosen.splits))
    storage.write_table(folder.predictions, predictions_table(chosen.probs, examples, chosen.splits))
    storage.write_text(folder.config, config.to_yaml())
    write_json(folder.history, history)
    write_json(folder.metrics, metrics)
    files = (folder.config, folder.history, folder.metrics, folder.model)
    tracking.end(Ended(figures_of(metrics), files))
    write_events(history, folder.tensorboard)
    return metrics


def _suspicions(blocks: SplitBlocks) -> Iterator[str]:
    """What the figures themselves give away, said in the log as well."""
    val, test = blocks["val"]["urgency"], blocks["test"]["urgency"]
    for line in (*describe_absent(val, "val"), *describe_absent(test, "test"), *describe_gap(val, test)):
        log.warning("warning: %s", line)
        yield line


def _rows(name: str, job: Job, trained: Trained) -> list[EpochRow]:
    """The rows of history.json of a model, or of a member of the ensemble `name`."""
    member = {} if job.name == name else {"member": job.name.removeprefix(f"{name}-")}
    return [row.model_copy(update=member) for row in trained.history]


def _score_folds(models: list[UrgencyClassifier], folds: list[Splits], examples: Examples, config: Config) -> CrossValidation:
    """`folds` of metrics.json: each row outside the provider's test is scored once, by a model that has not seen it."""
    num_resamples, seed = config.train.bootstrap_samples, config.split.seed
    pooled = np.zeros((len(examples), NUM_CLASSES), np.float32)
    each = []
    for number, (model, splits) in enumerate(zip(models, folds, strict=True), start=1):
        pooled[splits.test] = predict_examples(model, examples, splits.test)["urgency"]
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
    """The figures of metrics.json in lines for the terminal: each split and task, the folds, the baselines and the verdict."""
    lines = []
    for split, tasks in metrics.splits.items():
        for task, block in tasks.items():
            lines.append(f"{split:<5}{task:<10}{_format(block)}")
    if (folds := metrics.folds) is not None:
        spread = f"macro-F1 {folds.macro_f1_mean:.3f} ± {folds.macro_f1_std:.3f} (standard deviation)"
        lines.append(f"folds urgency   {spread} over {len(folds.each)} folds, n {folds.pooled.num_rows:,}")
    lines += [f"test urgency   {_format(block)}: {name}" for name, block in (metrics.baselines or {}).items()]
    if metrics.against_baseline is not None:
        lines.append(format_against(metrics.against_baseline))
    return "\n".join(lines)


def _format(block: ClassificationBlock) -> str:
    low, high = block.macro_f1_interval
    return f"macro-F1 {block.macro_f1:.3f} (95 % {low:.3f} to {high:.3f}), accuracy {block.accuracy:.3f}, n {block.num_rows:,}"
