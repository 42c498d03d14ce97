"""Training through Ray Train: one or many workers around `fit.fit`, then one evaluation of the best epoch."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from torch import Tensor

from urgency_ray import cluster, storage
from urgency_ray.config import ENCODERS, Config, ConfigError
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits, label_counts, load_examples, load_transcripts
from urgency_ray.examples.leaks import leak_warnings
from urgency_ray.examples.splits import fold_splits, split_examples
from urgency_ray.examples.tokens import describe_cut, tokenize
from urgency_ray.model.card import write_model_card
from urgency_ray.model.classifier import TASKS, UrgencyClassifier, inference_batches, load_model
from urgency_ray.model.text_trunk import load_tokenizer
from urgency_ray.scoring.calibration import fit_temperature, operating_point
from urgency_ray.scoring.scores import predict_examples, predictions_table, score_pooled, score_splits, scoring_device
from urgency_ray.training.fit import TrainingData, build_model
from urgency_ray.training.shared import SharedData, SharedInputs
from urgency_ray.training.tensorboard import write_events
from urgency_ray.training.trainer import Trainer, plan_workers
from urgency_ray.training.worker import load_state, train_worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The best epoch's classifier (on the CPU) and the history of all epochs."""

    model: UrgencyClassifier
    history: list[dict[str, Any]]


def train_model(config: Config, run_dir: str, data: TrainingData, shared: SharedData, transform: dict[str, Any]) -> Trained:
    """Run `fit` under Ray Train's TorchTrainer; restart or go on from the last checkpoint of the same config and data.

    Args:
        config: the whole config; `config.model.modalities` says what is trained.
        run_dir: checkpoints go below `<run_dir>/checkpoints`.
        data: embeddings, for building the model around the best weights.
        shared: `data` for the workers.
        transform: goes into the model, as `make_transform` gives it.

    Raises:
        ConfigError: the workers do not fit the cluster.
        FloatingPointError: the loss is not finite.
    """
    workers = config.train.num_workers
    use_gpu, cpus = plan_workers(config.train, cluster.nodes())
    # A finished run's name would give back the old result: the name says what the result depends on.
    others = {"ablation", "folds", "bootstrap_samples", "max_failures", "checkpoint_epochs", "keep_checkpoints"}
    relevant = config.model_dump(include={"model", "loss", "sampler", "train"}, exclude={"train": others})
    model = build_model(config, data, transform)
    parts = [relevant, shared.digest, _code_digest(), _weights_digest(model)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    with cluster.Relay(_log_epochs, every_sec=1.0) as send:
        # The types that Ray declares are those of its older Train, whose workers return nothing.
        result: Any = Trainer(
            train_worker,  # type: ignore[arg-type]
            train_loop_config={"config": config.model_dump(), "data": shared, "cpus": cpus, "send": send},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name=f"{config.model.modalities}-{digest}",
                storage_path=storage.absolute(storage.join(run_dir, "checkpoints")),
                checkpoint_config=CheckpointConfig(
                    num_to_keep=config.train.keep_checkpoints, checkpoint_score_attribute="score"
                ),
                failure_config=FailureConfig(max_failures=config.train.max_failures),
            ),
        ).fit()
    if result.return_value is not None:
        raise FloatingPointError(result.return_value)
    assert result.best_checkpoints and result.checkpoint, "every epoch that improves is kept, and the last one"
    best, _ = max(result.best_checkpoints, key=lambda pair: pair[1]["score"])
    model.load_state_dict(load_state(best)["model"])
    calibrate(data, model)
    # The last epoch always leaves a checkpoint, so the latest one has the whole history.
    return Trained(model.eval(), load_state(result.checkpoint)["history"])


@torch.inference_mode()
def calibrate(data: TrainingData, model: UrgencyClassifier) -> None:
    """Set the model's temperatures to those of the least negative log-likelihood on the validation rows; it ends on the CPU."""
    model.eval().to(scoring_device(model))
    logits: dict[str, list[Tensor]] = {}
    truths: dict[str, list[Tensor]] = {}
    for examples in inference_batches(data.val, data.utterances, data.tokens):
        inputs, targets = data.batch(examples, model.temperature.device)
        for task, values in model(inputs).items():
            logits.setdefault(task, []).append(values.float().cpu())
            truths.setdefault(task, []).append(targets[task].cpu())
    for task, parts in logits.items():
        truth = torch.cat(truths[task]).numpy()
        known = truth >= 0
        if known.any():
            model.temperature[TASKS.index(task)] = fit_temperature(torch.cat(parts).numpy()[known], truth[known])
    model.to("cpu")


def _code_digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _weights_digest(model: UrgencyClassifier) -> str:
    # A text encoder's checkpoint can change under its name; all else here follows from the config and the data.
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()


def _log_epochs(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        scores = f"train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, val macro-F1 {row['val_macro_f1']:.4f}"
        log.info("%s epoch %d: %s, %.2f s", row["modalities"], row["epoch"], scores, row["seconds"])


def prepare(config: Config, run_dir: str, inputs: SharedInputs | None = None) -> tuple[Config, Examples, Splits]:
    """Config, embeddings and splits of a run folder; the config takes over how the embeddings were made (data, arithmetic).

    Args:
        config: the whole config.
        run_dir: run folder.
        inputs: where the embeddings are to be kept; None keeps them in this process.

    Raises:
        ConfigError: no usable embeddings, or those of other encoders than the config's.
    """
    examples = load_examples(
        run_dir, by_call=config.model.name == "hierarchical", keep=inputs.keep if inputs is not None else None
    )
    fingerprint = examples.fingerprint or {}
    for key in ENCODERS:
        # Imported embeddings do not say what made them; a recipe does not say which commit of a model it means.
        found = fingerprint.get(key, {})
        for field, value in getattr(config, key).model_dump(exclude={"batch_size", "dtype"}).items():
            if found.get(field, value) != value and not (field == "revision" and value is None):
                raise ConfigError(
                    f"--run-dir {run_dir}: its embeddings were made with {key}.{field} {found[field]}, not {value}; "
                    f"say --{key}.{field} {'null' if found[field] is None else found[field]}, or extract into another folder"
                )
    made_with = {f"data.{key}": fingerprint[key] for key in type(config.data).model_fields if key in fingerprint}
    # What `auto` stood for, or int8, and which commit: a recipe need not say them again, predict must have them.
    arithmetic = {key: fingerprint.get(key, {}).get("dtype") for key in ENCODERS}
    made_with |= {f"{key}.dtype": dtype for key, dtype in arithmetic.items() if dtype is not None}
    made_with |= {
        f"{key}.revision": fingerprint[key]["revision"] for key in arithmetic if "revision" in fingerprint.get(key, {})
    }
    return config.replace(made_with), examples, split_examples(examples, config.split)


def read_transcripts(examples: Examples, run_dir: str, tokenizer: Any, inputs: SharedInputs | None = None) -> Examples:
    """The examples of a run with the tokens of their transcripts (kept in `inputs`), or as they are without a tokenizer."""
    if tokenizer is None:
        return examples
    tokens, num_cut = tokenize(tokenizer, load_transcripts(run_dir))
    log.info("%s", describe_cut(num_cut))
    return replace(examples, tokens=inputs.keep("tokens", tokens) if inputs is not None else tokens)


def train(config: Config, run_dir: str) -> dict[str, Any]:
    """Train on a run folder; write model/, tensorboard/, metrics.json, history.json and predictions.parquet.

    The best epoch is chosen on the validation split; the test split is scored once, with that epoch's weights. With
    `train.ablation` the audio-only and text-only models of the same trunk are trained and scored as well, with `train.folds`
    the model is cross-validated too.

    Returns:
        The content of metrics.json.

    Raises:
        ConfigError: the run folder cannot be trained on, or the workers do not fit the cluster.
        FloatingPointError: the loss is not finite.
    """
    inputs = SharedInputs(config.ray)
    config, examples, splits = prepare(config, run_dir, inputs)
    folds = fold_splits(examples, config.split, config.train.folds) if config.train.folds is not None else []
    examples = read_transcripts(examples, run_dir, load_tokenizer(config.model), inputs)
    warnings = leak_warnings(examples, splits)
    for line in warnings:
        log.warning("warning: %s", line)
    data = TrainingData.from_examples(examples, splits)
    shared = inputs.share(data)
    transform = make_transform(config, examples.fingerprint)
    modalities = [config.model.modalities]
    if config.train.ablation:
        modalities += [other for other in ("fused", "audio", "text") if other not in modalities]
    scores: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    for name in modalities:
        variant = config.replace({"model.modalities": name})
        trained = train_model(variant, run_dir, data, shared, transform)
        probabilities = predict_examples(trained.model, examples)
        blocks = score_splits(
            trained.model, probabilities, examples, splits, num_resamples=config.train.bootstrap_samples, seed=config.split.seed
        )
        scores[name] = blocks["test"]["urgency"]
        history += trained.history
        best = max(trained.history, key=lambda row: row["val_score"])
        log.info(
            "%s: %d epochs, the best is of validation macro-F1 %.3f, epoch %d",
            name,
            len(trained.history),
            best["val_macro_f1"],
            best["epoch"],
        )
        if name == config.model.modalities:
            model, metrics = trained.model, {"splits": blocks, "warnings": warnings}
            predictions = predictions_table(probabilities["urgency"], examples, splits)
    if config.train.ablation:
        metrics["ablation"] = scores
    if folds:
        metrics["folds"] = _cross_validate(config, run_dir, folds, examples=examples, inputs=inputs, transform=transform)
    # All at the end: an interrupted run leaves the former model beside the former figures.
    save_model(model, storage.join(run_dir, "model"), metrics, label_counts(examples, splits))
    write_events(history, storage.join(run_dir, "tensorboard"))
    storage.write_table(storage.join(run_dir, "predictions.parquet"), predictions)
    storage.write_text(storage.join(run_dir, "config.yaml"), config.to_yaml())
    storage.write_text(storage.join(run_dir, "history.json"), json.dumps(history, indent=1))
    storage.write_text(
        storage.join(run_dir, "metrics.json"), json.dumps(metrics, ensure_ascii=False, indent=1, allow_nan=False)
    )
    return metrics


def _cross_validate(
    config: Config,
    run_dir: str,
    folds: list[Splits],
    *,
    examples: Examples,
    inputs: SharedInputs,
    transform: dict[str, Any],
) -> dict[str, Any]:
    """`folds` of metrics.json: each row outside the provider's test is scored once, by a model that has not seen it."""
    scoring: dict[str, Any] = {"num_resamples": config.train.bootstrap_samples, "seed": config.split.seed}
    pooled = np.zeros((len(examples), NUM_CLASSES), np.float32)
    each = []
    for number, splits in enumerate(folds, start=1):
        data = TrainingData.from_examples(examples, splits)
        trained = train_model(config, run_dir, data, inputs.share(data), transform)
        pooled[splits.test] = predict_examples(trained.model, examples)["urgency"][splits.test]
        macro_f1 = score_pooled(pooled, examples, splits.test, **scoring)["macro_f1"]
        each.append({"num_rows": len(splits.test), "macro_f1": macro_f1})
        log.info("fold %d of %d: macro-F1 %.3f on %d rows", number, len(folds), macro_f1, len(splits.test))
    scores = [fold["macro_f1"] for fold in each]
    held_out = np.sort(np.concatenate([splits.test for splits in folds]))
    return {
        "each": each,
        "macro_f1_mean": statistics.mean(scores),
        "macro_f1_std": statistics.stdev(scores),
        "pooled": score_pooled(pooled, examples, held_out, **scoring),
    }


def make_transform(config: Config, fingerprint: dict[str, Any] | None) -> dict[str, Any]:
    """What `predict` needs to repeat on new calls, and `evaluate` on the run's own: sections of the config, the fingerprint."""
    return {**config.model_dump(include={"data", *ENCODERS, "split"}), "fingerprint": fingerprint}


def save_model(model: UrgencyClassifier, location: str, metrics: dict[str, Any], counts: dict[str, list[int]]) -> None:
    """Write config.json, model.safetensors and the model card to a folder or URI; `counts` as `dataset.label_counts` gives."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        write_model_card(Path(folder) / "README.md", model, metrics, counts)
        storage.copy_dir(folder, location)


def evaluate_run(config: Config, run_dir: str, recall_of_high: float | None = None) -> dict[str, Any]:
    """Score `<run_dir>/model` on the val and test splits of the run's embeddings.

    Args:
        config: its split section must be the one of the training.
        run_dir: run folder.
        recall_of_high: the least recall of 상 on val to find an operating point for; None finds none.

    Returns:
        `splits` as in metrics.json and, where asked for, `operating_point` as `calibration.operating_point` gives it.

    Raises:
        ConfigError: the run folder holds no model or no embeddings.
    """
    model = load_model(storage.join(run_dir, "model"))
    config, examples, splits = prepare(config.replace({"model.name": model.model.name}), run_dir)
    if model.transform["split"] != config.split.model_dump():
        raise ConfigError(
            f"--run-dir {run_dir}: its model was trained on another split; evaluate it with the same split section"
        )
    probabilities = predict_examples(model, read_transcripts(examples, run_dir, model.tokenizer))
    blocks = score_splits(
        model, probabilities, examples, splits, num_resamples=config.train.bootstrap_samples, seed=config.split.seed
    )
    if recall_of_high is None:
        return {"splits": blocks}
    parts = {"val": splits.val, "test": splits.test}
    return {
        "splits": blocks,
        "operating_point": operating_point(probabilities["urgency"][:, -1], examples.urgency, parts, recall_of_high),
    }
