"""Ray Train's trainer, without a watcher that our clusters cannot serve, and what its workers may ask of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.train.torch import TorchTrainer

from urgency_ray import cluster
from urgency_ray.config import ConfigError, TrainConfig


class Trainer(TorchTrainer):
    """TorchTrainer without its PlacementGroupCleaner.

    That actor, a process of its own that starts with every training, frees the workers' placement group when the controller is
    killed while the job lives on. It asks Ray's State API, which is the dashboard's: a cluster without one never answers, and a
    note below /tmp/ray of another cluster, dead or somebody else's, sends it there (a training ended 12 s late). The group ends
    with the job, and `search.run_search` frees that of a lost trial.
    """

    def _create_default_callbacks(self) -> list[Any]:
        # Ray has no switch for it. By its name: where Ray moves it, nothing is lost but the wait.
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


def plan_workers(train: TrainConfig, nodes: Sequence[cluster.Node]) -> tuple[bool, float]:
    """Whether the workers take a GPU each, and the logical CPUs of one: the most that let all of them fit.

    Raises:
        ConfigError: the workers do not fit the nodes; Ray would wait for ever.
    """
    workers, least = train.num_workers, train.cpus_per_worker or 1
    use_gpu = train.use_gpu if train.use_gpu is not None else cluster.fit(nodes, least, 1) >= workers
    num_gpus = sum(node.gpus for node in nodes)
    if use_gpu and num_gpus < workers:
        raise ConfigError(f"train.use_gpu: true with {workers} workers, but the cluster has {num_gpus:g} GPUs")
    wishes = [train.cpus_per_worker] if train.cpus_per_worker else range(int(max(node.cpus for node in nodes)), 0, -1)
    cpus = next((wish for wish in wishes if cluster.fit(nodes, wish, float(use_gpu)) >= workers), None)
    if cpus is None:
        held = ", ".join((f"{node.gpus:g} GPUs + " if use_gpu else "") + f"{node.cpus:g}" for node in nodes)
        each = f"{least:g} CPUs" + (" and a GPU" if use_gpu else "")
        raise ConfigError(
            f"train.num_workers: {workers} workers of {each} do not fit the cluster's nodes ({held} CPUs); "
            "lower train.num_workers or train.cpus_per_worker"
        )
    return use_gpu, cpus
