"""Translation of messages (plain data) to idempotent MLflow calls: sending one again changes nothing."""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from disinr_monai.numerics.cache import default_cache_dir
from disinr_monai.output.tables import summarise, write_metrics

logger = logging.getLogger(__name__)

# MLflow reports how it is used as soon as it is imported; a hospital's network should send nothing.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

SQLITE = "sqlite:///"
METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100  # MLflow's limits for one log_batch call
_TEMPORARY = (401, 408, 425, 429)  # not logged in, timeout, too early, too many

Message = dict[str, Any]
RunIds = tuple[str, str]
"""Identifiers of experiment and run."""


class Client:
    """Send messages to one store.

    =========== ==================================== =======================================================
    ``kind``    further keys                         what is done
    =========== ==================================== =======================================================
    ``open``    ``params``, ``tags``                 log both
    ``metrics`` ``metrics``: (key, value, step, s)   log them
    ``file``    ``path``, ``name``, ``folder``       log the file, if it is still there, under that name
    ``table``   ``rows``, ``name``, ``folder``       log them as a table
    ``methods`` ``rows``, ``tags``, ``when``         a run for each method under the run
    ``end``     ``status``, ``when``                 end the run
    =========== ==================================== =======================================================

    Args:
        uri: of the store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None

    def find_or_make(self, opening: Message) -> RunIds:
        """Find the run of an opening, or make it: it exists already if the answer to its creation was lost.

        Args:
            opening: its ``experiment``, ``name``, ``stamp`` (part of the name that no other run has) and ``when``.
        """
        experiment_id = self._experiment(opening["experiment"])
        for run in self.client.search_runs([experiment_id], f"attributes.run_name LIKE '%{opening['stamp']}'"):
            if run.info.run_name == opening["name"]:
                return experiment_id, run.info.run_id
        started = int(opening["when"] * 1000)
        run = self.client.create_run(experiment_id, started, run_name=opening["name"])
        return experiment_id, run.info.run_id

    def send(self, ids: RunIds, message: Message) -> None:
        """Send one message.

        Raises:
            Exception: of MLflow, its database or the network; :func:`is_refusal` says whether a retry is useless.
        """
        from mlflow.entities import Metric, Param, RunTag

        client, (experiment_id, run_id), kind = self.client, ids, message["kind"]
        if kind == "open":
            client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in message["tags"].items()])
            params = [Param(key.replace("#", ".")[:250], str(value)[:6000]) for key, value in message["params"].items()]
            for first in range(0, len(params), _PARAMS_PER_CALL):
                client.log_batch(run_id, params=params[first : first + _PARAMS_PER_CALL])
        elif kind == "metrics":
            metrics = [Metric(key, value, int(when * 1000), step) for key, value, step, when in message["metrics"]]
            _log_metrics(client, run_id, metrics)
        elif kind in ("file", "table"):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / Path(message["name"]).name
                if kind == "table":
                    write_metrics(file, message["rows"])
                elif (kept := Path(message["path"])).is_file() and not kept.is_symlink():
                    shutil.copyfile(kept, file)
                else:
                    return
                client.log_artifact(run_id, str(file), message["folder"])
        elif kind == "methods":
            log_methods(client, experiment_id, run_id, message["rows"], message["tags"], message["when"])
        elif kind == "end":
            client.set_terminated(run_id, message["status"], int(message["when"] * 1000))
        else:
            raise ValueError(f"no such message: {kind!r}")

    @cached_property
    def client(self) -> Any:
        """MLflow's client, made when it is first used."""
        import mlflow
        from mlflow.telemetry import set_telemetry_client

        set_telemetry_client()  # MONAI imports MLflow, too, and may have been first
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # With a traceback, each time: what the user has to know is said once, elsewhere.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        if self._database is not None:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            if not self._database.exists():
                _start_database(self._database)
            with sqlite3.connect(self._database) as database:  # MLflow itself would try for minutes
                database.execute("PRAGMA schema_version")
            database.close()
        elif self.uri.startswith("http"):
            # MLflow tries seven times, which takes minutes, and a request that is sent twice could make two runs.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        address = self.uri if self._database is None else sqlite_address(self._database)
        return mlflow.MlflowClient(tracking_uri=address)

    def _experiment(self, name: str) -> str:
        location = None if self._database is None else (self._database.parent / "mlruns").resolve().as_uri()
        found = self.client.get_experiment_by_name(name)
        try:
            return found.experiment_id if found else self.client.create_experiment(name, artifact_location=location)
        except Exception:
            found = self.client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
            return found.experiment_id


def sqlite_address(path: Path) -> str:
    """The address under which MLflow opens a database file, whatever characters its path has.

    SQLAlchemy takes what follows ``?`` for options and ``%`` for an escape: a folder with these is opened by a link.
    """
    from sqlalchemy.engine import make_url

    plain = SQLITE + str(path)
    if make_url(plain).database == str(path):
        return plain
    return f"{SQLITE}{_link_to(path.parent.resolve())}/{quote(path.name)}"


@cache
def _link_to(folder: Path) -> Path:
    """A link to a folder, in a temporary folder that goes with the process."""
    temporary = tempfile.TemporaryDirectory(prefix="disinr-")
    atexit.register(temporary.cleanup)
    link = Path(temporary.name) / "store"
    link.symlink_to(folder, target_is_directory=True)
    return link


def _start_database(path: Path) -> None:
    """Copy a cached empty database of the installed MLflow version, as making one takes six seconds."""
    import mlflow

    try:
        template = default_cache_dir() / f"mlflow-{mlflow.__version__}.db"
        template.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=template.parent) as folder:
            if not template.is_file():
                new = Path(folder) / "new.db"
                mlflow.MlflowClient(tracking_uri=sqlite_address(new)).search_experiments()
                with sqlite3.connect(new) as database:
                    database.execute("DELETE FROM experiments")  # names the working folder; MLflow makes it again
                database.close()
                new.replace(template)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            os.link(shutil.copy(template, folder), path)  # never replaces what another process has begun to use
    except Exception as error:  # MLflow makes its own
        logger.debug("no prepared MLflow database (%s)", error)


def log_methods(
    client: Any, experiment_id: str, parent_id: str, rows: list[dict[str, Any]], tags: Mapping[str, str], when: float
) -> None:
    """Log one MLflow run for each method under one parent, with equal metric names for comparison.

    Existing runs of an earlier call that failed half-way are completed, not made again.

    Args:
        client: ``mlflow.MlflowClient``.
        experiment_id: of the parent.
        parent_id: run under which they appear.
        rows: results with ``case``, ``subject``, ``method`` and metrics.
        tags: further tags of every run.
        when: seconds since 1970 of the results.
    """
    from mlflow.entities import Metric

    stamp = int(when * 1000)
    there = client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{parent_id}'")
    known = {run.info.run_name: run.info.run_id for run in there}
    for method, summary in summarise(rows).items():
        mine = [row for row in rows if row["method"] == method]
        if (run_id := known.get(method)) is None:
            own = {**tags, "method": method, "mlflow.parentRunId": parent_id}
            own |= {key: str(mine[0][key]) for key in ("task", "setting") if key in mine[0]}
            run_id = client.create_run(experiment_id, stamp, own, run_name=method).info.run_id
        metrics = [Metric(key, float(value), stamp, 0) for key, value in summary.items()]
        for key in ("psnr", "psnr_body", "ssim", "ssim_body", "nrmse", "seconds"):
            by_case = [(step, row[key]) for step, row in enumerate(mine) if key in row]
            metrics += [Metric(f"{key}_by_case", float(value), stamp, step) for step, value in by_case]
        _log_metrics(client, run_id, metrics)
        client.set_terminated(run_id, end_time=stamp)


def _log_metrics(client: Any, run_id: str, metrics: list[Any]) -> None:
    """Log metrics in as few calls as MLflow allows; the valid ones are logged before a rejection is raised."""
    refusal = None
    parts = [metrics[first : first + METRICS_PER_CALL] for first in range(0, len(metrics), METRICS_PER_CALL)]
    while parts:
        part = parts.pop(0)
        try:
            client.log_batch(run_id, metrics=part)
        except Exception as error:
            if not is_refusal(error):
                raise
            refusal, middle = error, len(part) // 2
            if len(part) > 1:  # one of them is wrong: halves, until it is found
                parts[:0] = [part[:middle], part[middle:]]
    if refusal is not None:
        raise refusal


def is_refusal(error: Exception) -> bool:
    """Tell whether an error is a final rejection of the message, which a retry cannot change."""
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
    return 400 <= code < 500 and code not in _TEMPORARY


def without_secrets(uri: str) -> str:
    """Remove user, password and query from an address."""
    return uri if uri.startswith(SQLITE) else re.sub(r"(?<=://)[^/@]*@", "", uri).partition("?")[0]
