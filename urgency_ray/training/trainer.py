"""Training through Ray Train: one or many workers around `fit.fit`, and what they may ask of the cluster."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray.train import CheckpointConfig, ControllerError, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from torch import Tensor

from urgency_ray import cluster, storage
from urgency_ray.cluster import Waiting
from urgency_ray.config import Config, TrainConfig
from urgency_ray.errors import RequestError, UnreachableError
from urgency_ray.fingerprint import Transform
from urgency_ray.model.batch import inference_batches
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import scoring_device
from urgency_ray.model.saved import TASKS
from urgency_ray.patience import GIVEN_UP, is_outage
from urgency_ray.run_folder import RunFolder
from urgency_ray.scoring.calibration import fit_temperature
from urgency_ray.training.checkpoints import Checkpoints, identify
from urgency_ray.training.data import TrainingData
from urgency_ray.training.epoch_progress import EpochProgress, Told
from urgency_ray.training.fit import build_model
from urgency_ray.training.history import EpochRow
from urgency_ray.training.shared import SharedData
from urgency_ray.training.torch_trainer import Trainer
from urgency_ray.training.worker import Orders, Task, read_result, train_worker

log = logging.getLogger(__name__)

DEALT_SEC = 7 * 24 * 3600


STARTS = 3
"""Times that a group whose workers are lost while they start is started."""
OUTAGES = 10
"""Times that a training goes on after its store has not answered for a while."""


def share_workers(train: TrainConfig, nodes: Sequence[cluster.Node], use_gpu: bool) -> float | None:
    """The largest share of a CPU, 1 / k, of which all workers fit the nodes that are left; None where none does.

    As many workers as before, of less each: so many rows a step, and so the weights, are those of an unbroken training.
    """
    return _first_fit(train, nodes, use_gpu, (math.floor(1000 / parts) / 1000 for parts in range(1, train.group_size + 1)))


def _first_fit(
    train: TrainConfig, nodes: Sequence[cluster.Node], use_gpu: bool, wishes: Iterable[float] | None = None
) -> float | None:
    """The first of some CPUs of a worker, else of whole ones down from the largest node, of which all workers fit the nodes."""
    if wishes is None:
        wishes = range(int(max(node.cpus for node in nodes)), 0, -1)
    return next((wish for wish in wishes if cluster.count_places(nodes, wish, float(use_gpu)) >= train.group_size), None)


def plan_workers(train: TrainConfig, nodes: Sequence[cluster.Node]) -> tuple[bool, float]:
    """Whether the workers take a GPU each, and the logical CPUs of one: the most that let all of them fit.

    Raises:
        RequestError: the workers do not fit the nodes; Ray would wait for ever.
    """
    workers, least = train.group_size, train.cpus_per_worker or 1
    use_gpu = train.use_gpu if train.use_gpu is not None else cluster.count_places(nodes, least, 1) >= workers
    num_gpus = sum(node.gpus for node in nodes)
    if use_gpu and num_gpus < workers:
        raise RequestError(f"train.use_gpu: true with {workers} workers, but the cluster has {num_gpus:g} GPUs")
    cpus = _first_fit(train, nodes, use_gpu, [train.cpus_per_worker] if train.cpus_per_worker else None)
    if cpus is None:
        held = ", ".join((f"{node.gpus:g} GPUs + " if use_gpu else "") + f"{node.cpus:g}" for node in nodes)
        each = f"{least:g} CPUs" + (" and a GPU" if use_gpu else "")
        raise RequestError(
            f"train.num_workers: {workers} workers of {each} do not fit the cluster's nodes ({held} CPUs); "
            "lower train.num_workers or train.cpus_per_worker"
        )
    return use_gpu, cpus


@dataclass(frozen=True)
class Job:
    """A model to train.

    Attributes:
        name: of the model, among those of one training.
        config: the whole config.
        data: embeddings, for building the model around the best weights.
        shared: `data` for the workers.
    """

    name: str
    config: Config
    data: TrainingData
    shared: SharedData


@dataclass(frozen=True)
class Trained:
    """The best epoch's classifier (on the CPU), calibrated on its val rows, and the history of all epochs."""

    model: UrgencyClassifier
    history: list[EpochRow]


def train_models(jobs: Sequence[Job], run_dir: str, transform: Transform, told: Told | None = None) -> list[Trained]:
    """Run `fit` for each job, one after another, in one worker group of Ray Train's TorchTrainer, or in its local mode.

    Several workers share the batches of a model; the members of an ensemble are dealt out instead, each to one worker, without
    a gradient to synchronise: they become what a training of one worker makes of them. To start a group takes far longer than
    to train a small model. Interrupted, the same jobs on the same data go on from the last checkpoint; models that came to
    their end are not trained again. Former trainings' checkpoints are removed at the end.

    Args:
        jobs: what to train; the first one's train section says how many workers, and where.
        run_dir: checkpoints go below `<run_dir>/checkpoints`.
        transform: goes into the models.
        told: of each epoch as it ends.

    Raises:
        RequestError: the workers do not fit the cluster, or a model cannot be trained as asked for.
        FloatingPointError: a loss is not finite.
    """
    use_gpu, cpus = plan_workers(jobs[0].config.train, cluster.nodes())
    models = [build_model(job.config, job.data, transform) for job in jobs]
    identity = identify({job.name: job.config for job in jobs}, [job.shared.digest for job in jobs], models)
    checkpoints = Checkpoints(storage.absolute(RunFolder(run_dir).checkpoints), identity)
    checkpoints.begin()
    if not checkpoints.is_ended():
        left = [job for job in jobs if not storage.exists(checkpoints.result(job.name))]
        with EpochProgress({job.name: job.config.train.epochs for job in left}, told) as tell:
            if jobs[0].config.train.num_workers is None and not use_gpu and cluster.is_private(jobs[0].config.ray):
                _run_here(jobs, checkpoints, cpus, tell)
            else:
                _run_workers(jobs, checkpoints, use_gpu, cpus, tell)
    checkpoints.discard_others()
    trained = []
    for job, model in zip(jobs, models, strict=True):
        result = read_result(checkpoints.result(job.name))
        model.load_state_dict(result["best_model"])
        calibrate(job.data, model)
        trained.append(Trained(model.eval(), [EpochRow.model_validate(row) for row in result["history"]]))
    return trained


def _run_workers(jobs: Sequence[Job], checkpoints: Checkpoints, use_gpu: bool, cpus: float, tell: Told) -> None:
    """Train on workers of `cpus` CPUs, or of what the nodes that are left hold, once the group finds no place any more."""
    started, outages, waiting = 0, 0, Waiting(jobs[0].config.ray.wait_sec)
    while True:
        try:
            return _run_group(jobs, checkpoints, use_gpu, cpus, tell)
        except (TrainingFailedError, OSError) as error:
            if is_outage(error) and (outages := outages + 1) <= OUTAGES:
                _await_store(checkpoints, error)
                continue
            if not isinstance(error, ControllerError):
                raise
            if isinstance(error.controller_failure, WorkerGroupStartupFailedError) and (started := started + 1) < STARTS:
                log.warning("warning: workers were lost while they started: starting them again")
            elif not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
                raise
        cpus = _plan_again(jobs[0].config.train, use_gpu, cpus, waiting)


def _await_store(checkpoints: Checkpoints, error: Exception) -> None:
    """Wait until what Ray Train could not read or write can be: it tries once, workers of ours for a minute."""
    if GIVEN_UP in str(error):
        raise UnreachableError(
            f"{checkpoints.location}: {GIVEN_UP} a while; what is done is kept: run the command again"
        ) from None
    checkpoints.note()
    log.warning("warning: %s did not answer for a while: training goes on from its last checkpoint", checkpoints.root)


def _plan_again(train: TrainConfig, use_gpu: bool, cpus: float, waiting: Waiting) -> float:
    nodes = cluster.nodes()
    if cluster.count_places(nodes, cpus, float(use_gpu)) >= train.group_size:
        waiting.say(f"{train.group_size} workers of {cpus:g} CPUs" + (" and a GPU" if use_gpu else ""))
        return cpus
    fewer = _first_fit(train, nodes, use_gpu) or share_workers(train, nodes, use_gpu)
    if fewer is None:
        waiting.say(f"{train.group_size} workers, which the nodes that are left do not hold")
        return cpus
    log.warning("warning: a node was lost: training goes on with %d workers of %g CPUs each", train.group_size, fewer)
    return fewer


def _run_here(jobs: Sequence[Job], checkpoints: Checkpoints, cpus: float, tell: Told) -> None:
    """Train in this process, on so many threads as there are CPUs: Ray Train's local mode."""
    threads = torch.get_num_threads()
    orders = Orders(_list_tasks(jobs, checkpoints), True, cpus, lambda message: tell([message]))
    try:
        _fit(orders, checkpoints, scaling_config=ScalingConfig(num_workers=0))
    finally:
        torch.set_num_threads(threads)


def _run_group(jobs: Sequence[Job], checkpoints: Checkpoints, use_gpu: bool, cpus: float, tell: Told) -> None:
    train = jobs[0].config.train
    dealt = train.members is not None and 1 < train.group_size <= len(jobs)
    with cluster.Relay(tell, every_sec=1.0) as send:
        _fit(
            Orders(_list_tasks(jobs, checkpoints), dealt, cpus, send),
            checkpoints,
            # Workers whose members take longer than those of others are waited for.
            torch_config=TorchConfig(backend="gloo", timeout_s=DEALT_SEC) if dealt else None,
            scaling_config=ScalingConfig(num_workers=train.group_size, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                # A finished run's name would give back the old result: the name says what the result depends on.
                name=checkpoints.name,
                storage_path=checkpoints.root,
                checkpoint_config=CheckpointConfig(num_to_keep=train.keep_checkpoints),
                failure_config=FailureConfig(max_failures=train.max_failures, controller_failure_limit=0),  # type: ignore[call-arg]
            ),
        )


def _list_tasks(jobs: Sequence[Job], checkpoints: Checkpoints) -> tuple[Task, ...]:
    return tuple(Task(job.name, job.config, job.shared, checkpoints.result(job.name)) for job in jobs)


def _fit(orders: Orders, checkpoints: Checkpoints, **options: Any) -> None:
    """Run the trainer, and raise what made its models end; the checkpoints lead nowhere then."""
    # The type that Ray declares is that of its older Train, whose workers return nothing.
    result: Any = Trainer(functools.partial(train_worker, orders), **options).fit()  # type: ignore[arg-type]
    if result.return_value is not None:
        checkpoints.discard()
        raise result.return_value


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
