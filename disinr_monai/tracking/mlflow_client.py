"""From messages, which are plain data, to calls of MLflow. Each may be sent again: a second time changes nothing."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from disinr_monai.output.tables import write_metrics
from disinr_monai.tracking.fresh_database import start_database
from disinr_monai.tracking.track_methods import log_methods
from disinr_monai.tracking.unsent import Message

# MLflow tells its makers how it is used as soon as it is imported; a hospital's network should not hear of it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_PARAMS_PER_CALL = 100  # MLflow's limit for one log_batch call
_NOT_FOR_GOOD = (401, 408, 425, 429)  # not logged in, timeout, too early, too many

RunIds = tuple[str, str]
"""Identifiers of experiment and run."""


class Sender:
    """Sends messages to one store; every method of MLflow that is needed is called here.

    =========== ==================================== =======================================================
    ``kind``    further keys                         what is done
    =========== ==================================== =======================================================
    ``open``    ``params``, ``tags``                 log both
    ``metrics`` ``metrics``: (key, value, step, s)   log at most 1000 of them
    ``file``    ``path``, ``name``, ``folder``       log the file, if it is still there, under that name
    ``table``   ``rows``                             log ``metrics.csv``
    ``methods`` ``rows``, ``tags``, ``when``         a run for each method under the run
    ``end``     ``status``, ``when``                 end the run
    =========== ==================================== =======================================================

    Args:
        uri: of the store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        self._client: Any = None

    def find_or_make(self, opening: Message, may_exist: bool) -> RunIds:
        """The run's identifiers.

        Args:
            opening: its ``experiment``, ``name``, ``stamp`` (part of the name that no other run has) and ``when``.
            may_exist: it was tried before: the server may have made the run although its answer never came.
        """
        client = self._connected()
        experiment_id = self._experiment(opening["experiment"])
        if may_exist:
            for run in client.search_runs([experiment_id], f"attributes.run_name LIKE '%{opening['stamp']}'"):
                if run.info.run_name == opening["name"]:
                    return experiment_id, run.info.run_id
        started = int(opening["when"] * 1000)
        return experiment_id, client.create_run(experiment_id, started, run_name=opening["name"]).info.run_id

    def send(self, ids: RunIds, message: Message) -> None:
        """Do what the message says."""
        from mlflow.entities import Metric, Param, RunTag

        client, (experiment_id, run_id), kind = self._connected(), ids, message["kind"]
        if kind == "open":
            client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in message["tags"].items()])
            params = [Param(key.replace("#", ".")[:250], str(value)[:6000]) for key, value in message["params"].items()]
            for first in range(0, len(params), _PARAMS_PER_CALL):
                client.log_batch(run_id, params=params[first : first + _PARAMS_PER_CALL])
        elif kind == "metrics":
            batch = [Metric(key, value, int(when * 1000), step) for key, value, step, when in message["metrics"]]
            client.log_batch(run_id, metrics=batch)
        elif kind == "file":
            self._log_file(run_id, Path(message["path"]), message["name"], message["folder"])
        elif kind == "table":
            with tempfile.TemporaryDirectory() as folder:
                table = Path(folder) / "metrics.csv"
                write_metrics(table, message["rows"])
                client.log_artifact(run_id, str(table))
        elif kind == "methods":
            log_methods(client, experiment_id, run_id, message["rows"], message["tags"], message["when"])
        elif kind == "end":
            client.set_terminated(run_id, message["status"], int(message["when"] * 1000))
        else:
            raise ValueError(f"no such message: {kind!r}")

    def _connected(self) -> Any:
        if self._client is not None:
            return self._client
        import mlflow
        from mlflow.telemetry import set_telemetry_client

        set_telemetry_client()  # MONAI imports MLflow, too, and may have been first
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # With a traceback, each time: what the user has to know is said once, elsewhere.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        if self._database is not None:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            start_database(self._database)
            with sqlite3.connect(self._database) as database:  # MLflow itself would try for minutes
                database.execute("PRAGMA schema_version")
            database.close()
        elif self.uri.startswith("http"):
            # MLflow tries seven times, which takes minutes, and a request that is sent twice could make two runs.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        self._client = mlflow.MlflowClient(tracking_uri=self.uri)
        return self._client

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        location = None if self._database is None else (self._database.parent / "mlruns").resolve().as_uri()
        try:
            return self._client.create_experiment(name, artifact_location=location)
        except Exception:
            experiment = self._client.get_experiment_by_name(name)  # somebody else was quicker
            if experiment is None:
                raise
            return experiment.experiment_id

    def _log_file(self, run_id: str, path: Path, name: str, folder: str | None) -> None:
        if not path.is_file() or path.is_symlink():
            return
        if path.name == name:
            self._client.log_artifact(run_id, str(path), folder)
            return
        with tempfile.TemporaryDirectory() as temporary:
            self._client.log_artifact(run_id, str(shutil.copy(path, Path(temporary) / name)), folder)


def is_refusal(error: Exception) -> bool:
    """Whether the store will never take this message, however often it is sent."""
    import requests
    import sqlalchemy
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        # A gateway says "no such page" while its server is gone.
        code = 503 if error.error_code == "ENDPOINT_NOT_FOUND" else error.get_http_status_code()
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
    else:
        return not isinstance(error, (OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError))
    return 400 <= code < 500 and code not in _NOT_FOR_GOOD
