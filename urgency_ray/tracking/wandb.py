"""Runs in Weights & Biases: a run of `train` or `tune`, in a group with the latter one for each trial."""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Mapping
from typing import Any

from urgency_ray import __version__
from urgency_ray.config import Config, flatten
from urgency_ray.errors import RequestError, first_line
from urgency_ray.tracking.files import fetch
from urgency_ray.tracking.tracker import Ended, Epochs, TrialNote

SETTINGS = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
"""Environment variables of the library, where the user sets no others."""
LOGIN_SEC = 10
FINISH_SEC = 100.0
"""So long the last data are waited for; the library's own default is for ever."""
OFFLINE = ("offline", "dryrun", "disabled")


def open_library() -> Any:
    """`wandb`.

    Raises:
        RequestError: it is not installed.
    """
    os.environ |= {name: value for name, value in SETTINGS.items() if name not in os.environ}
    try:
        import wandb
    except ImportError:
        raise RequestError("track.wandb_project: needs Weights & Biases: pip install 'urgency-ray[wandb]'") from None
    return wandb


def check() -> None:
    """Look whether the library is there, and lets somebody in.

    Raises:
        RequestError: it is not installed, or would ask who the user is.
    """
    wandb = open_library()
    if os.environ.get("WANDB_MODE") in OFFLINE:
        return
    try:
        is_known = wandb.login(prompt=False, verify=True, timeout=LOGIN_SEC)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise RequestError(f"track.wandb_project: Weights & Biases lets nobody in: {first_line(error)}") from None
    if not is_known:
        raise RequestError(
            "track.wandb_project: nobody is logged in: run wandb login, or set WANDB_API_KEY, or WANDB_MODE=offline"
        )


class WandbTracker:
    """Tells Weights & Biases.

    Args:
        config: the run's, all of it.
        run_dir: run folder; its name is the run's.
        kind: the command.

    Raises:
        RequestError: as `open_library`, or nobody is let in.
    """

    name = "Weights & Biases"

    def __init__(self, config: Config, run_dir: str, kind: str) -> None:
        self._wandb = open_library()
        self._project = config.track.wandb_project
        name = f"{kind} {posixpath.basename(run_dir.rstrip('/'))}"
        self._group = f"{name} {uuid.uuid4().hex[:8]}"
        self._run = self._begin(name, kind, flatten(config.model_dump()))
        self._run.config.update({"urgency_ray.version": __version__})
        self._models: set[str] = set()

    def epochs(self, epochs: Epochs) -> None:
        """Curves `MODEL/val_macro_f1` and so on, over `MODEL/epoch`."""
        for name, row in epochs:
            if name not in self._models:
                self._models.add(name)
                self._run.define_metric(f"{name}/*", step_metric=f"{name}/epoch")
            self._run.log({f"{name}/{key}": value for key, value in row.items() if isinstance(value, (int, float))})

    def trial(self, trial: TrialNote) -> None:
        """A run of the search's group."""
        run = self._begin(f"trial {trial.number}", "trial", trial.fields)
        for epoch, value in enumerate(trial.val_macro_f1, start=1):
            run.log({"val_macro_f1": value, "epoch": epoch})
        run.summary.update({"state": trial.state, "score": trial.score})
        run.finish(exit_code=int(trial.state == "failed"))

    def end(self, ended: Ended) -> None:
        """The figures as the run's summary, the files as an artefact."""
        self._run.summary.update(dict(ended.figures))
        with fetch(ended.files) as folder:
            artefact = self._wandb.Artifact(f"run-{self._run.id}", type="run")
            artefact.add_dir(str(folder))
            self._run.log_artifact(artefact)
            self._run.finish()

    def fail(self) -> None:
        """The run counts as failed."""
        self._run.finish(exit_code=1)

    def _begin(self, name: str, kind: str, values: Mapping[str, Any]) -> Any:
        settings = self._wandb.Settings(
            console="off", save_code=False, disable_git=True, reinit="create_new", finish_timeout=FINISH_SEC
        )
        try:
            return self._wandb.init(
                project=self._project, name=name, group=self._group, job_type=kind, config=dict(values), settings=settings
            )
        except self._wandb.errors.Error as error:
            raise RequestError(f"track.wandb_project {self._project}: {first_line(error)}") from None
