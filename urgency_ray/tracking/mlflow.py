"""Runs in MLflow: a run of `train` or `tune`, below the latter one for each trial."""

from __future__ import annotations

import logging
import os
import posixpath
import time
from collections.abc import Mapping, Sequence
from typing import Any

from urgency_ray import __version__
from urgency_ray.config import Config, flatten
from urgency_ray.errors import RequestError, first_line
from urgency_ray.tracking.files import fetch
from urgency_ray.tracking.tracker import Ended, Epochs, TrialNote

log = logging.getLogger(__name__)

SETTINGS = {
    # Its defaults try for minutes, while a training could go on.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Nothing of a run goes to others than those whom the user names.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The line that the tracker logs does.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment variables of the library, where the user sets no others."""
MOST_PARAMS, MOST_METRICS = 100, 1000
"""Of one request."""
FINISHED = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def connect(uri: str) -> Any:
    """A client of the tracking server.

    Raises:
        RequestError: MLflow is not installed, or there is no server.
    """
    os.environ |= {name: value for name, value in SETTINGS.items() if name not in os.environ}
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise RequestError("track.mlflow_uri: needs MLflow: pip install 'urgency-ray[mlflow]'") from None
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise RequestError(f"track.mlflow_uri {uri}: no MLflow tracking server answers: {first_line(error)}") from None
    return client


class MlflowTracker:
    """Tells an MLflow tracking server.

    Args:
        config: the run's; all of it becomes parameters.
        run_dir: run folder; its name is the run's.
        kind: the command.

    Raises:
        RequestError: as `connect`, or the experiment cannot be used.
    """

    def __init__(self, config: Config, run_dir: str, kind: str) -> None:
        assert config.track.mlflow_uri is not None
        self.name = f"MLflow at {config.track.mlflow_uri}"
        self._client = connect(config.track.mlflow_uri)
        self._tags = {"urgency_ray.version": __version__, "urgency_ray.command": kind, "urgency_ray.run_dir": run_dir}
        name = config.track.mlflow_experiment
        from mlflow.exceptions import MlflowException

        try:
            self._experiment = self._find_experiment(name)
            self._run = self._begin(f"{kind} {posixpath.basename(run_dir.rstrip('/'))}", {})
            self._set_params(self._run, flatten(config.model_dump()))
        except MlflowException as error:
            raise RequestError(f"track.mlflow_experiment {name}: {first_line(error)}") from None
        log.info("tracked by %s: experiment %s, run %s", self.name, self._experiment, self._run)

    def epochs(self, epochs: Epochs) -> None:
        """Metrics `MODEL/val_macro_f1` and so on, by epoch."""
        now = int(time.time() * 1000)
        figures = [
            (f"{name}/{key}", value, now, row["epoch"])
            for name, row in epochs
            for key, value in row.items()
            if key != "epoch" and isinstance(value, (int, float))
        ]
        self._add_metrics(self._run, figures)

    def trial(self, trial: TrialNote) -> None:
        """A run below the search's."""
        run = self._begin(f"trial {trial.number}", {"mlflow.parentRunId": self._run})
        self._set_params(run, trial.fields)
        now = int(time.time() * 1000)
        figures = [("val_macro_f1", value, now, epoch) for epoch, value in enumerate(trial.val_macro_f1, start=1)]
        if trial.score is not None:
            figures.append(("score", trial.score, now, 0))
            self._add_metrics(self._run, [("trial/score", trial.score, now, trial.number)])
        self._add_metrics(run, figures)
        self._client.set_terminated(run, FINISHED[trial.state])

    def end(self, ended: Ended) -> None:
        """The figures as metrics, the files as artefacts."""
        now = int(time.time() * 1000)
        self._add_metrics(self._run, [(name, value, now, 0) for name, value in ended.figures.items()])
        try:
            with fetch(ended.files) as folder:
                self._client.log_artifacts(self._run, str(folder))
        finally:
            # Where its files go may be another place than the server, which cannot be reached from here.
            self._client.set_terminated(self._run, "FINISHED")

    def fail(self) -> None:
        """The run counts as failed."""
        self._client.set_terminated(self._run, "FAILED")

    def _find_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _begin(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment, tags={**self._tags, **tags}, run_name=name)
        return str(run.info.run_id)

    def _set_params(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in values.items()]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run, params=params[start : start + MOST_PARAMS])

    def _add_metrics(self, run: str, figures: Sequence[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(*figure) for figure in figures]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(run, metrics=metrics[start : start + MOST_METRICS])
