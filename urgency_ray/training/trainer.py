"""Training through Ray Train: one or many workers around `fit.fit`, and what they may ask of the cluster."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from urgency_ray import cluster, storage
from urgency_ray.config import Config, Role, TrainConfig, fields_of, read_field
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Transform
from urgency_ray.model.batch import inference_batches
from urgency_ray.model.classifier import TASKS, UrgencyClassifier
from urgency_ray.model.inference import scoring_device
from urgency_ray.run_folder import RunFolder
from urgency_ray.scoring.calibration import fit_temperature
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model
from urgency_ray.training.history import EpochRow
from urgency_ray.training.shared import SharedData
from urgency_ray.training.worker import Orders, load_state, train_worker

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]


class Trainer(TorchTrainer):
    """TorchTrainer without its PlacementGroupCleaner.

    That actor, a process of its own that starts with every training, frees the workers' placement group when the controller is
    killed while the job lives on. It asks Ray's State API, which is the dashboard's: a cluster without one never answers, and a
    note below /tmp/ray of another cluster, dead or somebody else's, sends it there (a training ended 12 s late). The group ends
    with the job, and `engine.run_search` frees that of a lost trial.
    """

    def _create_default_callbacks(self) -> list[Any]:
        # Ray has no switch for it. By its name: where Ray moves it, nothing is lost but the wait.
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


def plan_workers(train: TrainConfig, nodes: Sequence[cluster.Node]) -> tuple[bool, float]:
    """Whether the workers take a GPU each, and the logical CPUs of one: the most that let all of them fit.

    Raises:
        RequestError: the workers do not fit the nodes; Ray would wait for ever.
    """
    workers, least = train.num_workers, train.cpus_per_worker or 1
    use_gpu = train.use_gpu if train.use_gpu is not None else cluster.count_places(nodes, least, 1) >= workers
    num_gpus = sum(node.gpus for node in nodes)
    if use_gpu and num_gpus < workers:
        raise RequestError(f"train.use_gpu: true with {workers} workers, but the cluster has {num_gpus:g} GPUs")
    wishes = [train.cpus_per_worker] if train.cpus_per_worker else range(int(max(node.cpus for node in nodes)), 0, -1)
    cpus = next((wish for wish in wishes if cluster.count_places(nodes, wish, float(use_gpu)) >= workers), None)
    if cpus is None:
        held = ", ".join((f"{node.gpus:g} GPUs + " if use_gpu else "") + f"{node.cpus:g}" for node in nodes)
        each = f"{least:g} CPUs" + (" and a GPU" if use_gpu else "")
        raise RequestError(
            f"train.num_workers: {workers} workers of {each} do not fit the cluster's nodes ({held} CPUs); "
            "lower train.num_workers or train.cpus_per_worker"
        )
    return use_gpu, cpus


@dataclass(frozen=True)
class Trained:
    """The best epoch's classifier (on the CPU) and the history of all epochs."""

    model: UrgencyClassifier
    history: list[EpochRow]


def train_model(config: Config, run_dir: str, data: TrainingData, shared: SharedData, transform: Transform) -> Trained:
    """Run `fit` under Ray Train's TorchTrainer; restart or go on from the last checkpoint of the same config and data.

    Args:
        config: the whole config; `config.model.modalities` says what is trained.
        run_dir: checkpoints go below `<run_dir>/checkpoints`.
        data: embeddings, for building the model around the best weights.
        shared: `data` for the workers.
        transform: goes into the model.

    Raises:
        RequestError: the workers do not fit the cluster.
        FloatingPointError: the loss is not finite.
    """
    workers = config.train.num_workers
    use_gpu, cpus = plan_workers(config.train, cluster.nodes())
    # A finished run's name would give back the old result: the name says what the result depends on.
    tree = config.model_dump()
    relevant = {dotted: read_field(tree, dotted) for dotted in fields_of(Role.RECIPE, Role.SETUP)}
    model = build_model(config, data, transform)
    parts = [relevant, shared.digest, code_digest(PACKAGE), _weights_digest(model)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    with cluster.Relay(_log_epochs, every_sec=1.0) as send:
        # The types that Ray declares are those of its older Train, whose workers return nothing.
        result: Any = Trainer(
            functools.partial(train_worker, Orders(config, shared, cpus, send)),  # type: ignore[arg-type]
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name=f"{config.model.modalities}-{digest}",
                storage_path=storage.absolute(RunFolder(run_dir).checkpoints),
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
    history = [EpochRow.model_validate(row) for row in load_state(result.checkpoint)["history"]]
    return Trained(model.eval(), history)


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


def code_digest(package: Path) -> str:
    """Identifies the code that decides a trained weight, below the folder of the package: checkpoints of other code are none.

    Of scoring, it is the figures alone: they pick the best epoch.
    """
    wings = ("examples/*.py", "model/*.py", "scoring/metrics.py", "training/*.py")
    digest = hashlib.sha256()
    for source in sorted(source for wing in wings for source in package.glob(wing)):
        digest.update(f"{source.relative_to(package).as_posix()} {len(source.read_bytes())}\n".encode() + source.read_bytes())
    return digest.hexdigest()


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
