"""Ray Train's TorchTrainer as trainings and trials use it: apart from `trainer`, because trials' processes need no more."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer


class Trainer(TorchTrainer):
    """TorchTrainer without its PlacementGroupCleaner.

    That actor, a process of its own that starts with every training, frees the workers' placement group when the controller is
    killed while the job lives on. It asks Ray's State API, which is the dashboard's: a cluster without one never answers, and a
    note below /tmp/ray of another cluster, dead or somebody else's, sends it there (a training ended 12 s late). The group ends
    with the job, and `search.callbacks` frees that of a lost trial.
    """

    def _create_default_callbacks(self) -> list[Any]:
        # Ray has no switch for it. By its name: where Ray moves it, nothing is lost but the wait.
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]
