from __future__ import annotations

import atexit
import logging
import os
import queue
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from disinr_monai.distributed import rank
from disinr_monai.errors import InputError
from disinr_monai.handlers.fresh_database import start_database
from disinr_monai.handlers.save_cases import summarise, write_metrics
from disinr_monai.handlers.track_methods import log_methods
from disinr_monai.privacy import Names
from disinr_monai.versions import versions

logger = logging.getLogger(__name__)

_METRICS_PER_CALL = 1000  # MLflow's limits for one log_batch call
_PARAMS_PER_CALL = 100
_FLUSH_SECONDS = 120.0


class Tracking:
    """Log a run to MLflow without making it wait.

    One background thread opens the store and sends batches; the engine only
    appends to a list. A store that fails is reported once and the run goes on. The run ends as FINISHED, FAILED after
    an exception, or KILLED when the process ends early.

    MONAI's ``MLFlowHandler`` writes twice per iteration (42 ms), joins any unfinished run of the experiment, and leaves
    crashed runs RUNNING; hence this one.

    Args:
        output_dir: the store is ``output_dir/mlruns.db`` unless ``tracking_uri`` is given.
        tracking_uri: MLflow server or database. The environment variable ``MLFLOW_TRACKING_URI`` comes second, the
            database in ``output_dir`` third.
        experiment_name: MLflow experiment.
        run_name: prefix of the run's name; a time and a random part make it unique.
        params: flat hyper-parameters.
        tags: further tags; versions and git commit are always there.
        log_every: iterations between two logged losses.
        results: the handler with ``rows`` and ``pictures`` of a reconstruction run, if there is one; each method of
            it becomes a run under this one.
        inferer: its ``history`` is logged as the adaptation curve of each case, if given.
        names: neutral names for cases and files, put in where ``anonymize`` asks for them: by default on a server
            (anything but a database file of one's own).

    Raises:
        InputError: a plain folder as ``tracking_uri`` (MLflow has given up file stores).
    """

    def __init__(
        self,
        output_dir: str,
        tracking_uri: str | None = None,
        experiment_name: str = "disinr",
        run_name: str | None = None,
        params: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        log_every: int = 20,
        results: Any = None,
        inferer: Any = None,
        names: Names | None = None,
    ) -> None:
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.output_dir = Path(output_dir)
        if uri is None:
            uri = f"sqlite:///{(self.output_dir / 'mlruns.db').resolve()}"
        if "://" not in uri or uri.startswith("file://"):
            raise InputError(
                f"tracking_uri: MLflow no longer stores runs in a folder, found {uri!r}; give http(s)://… or "
                "sqlite:////absolute/path/mlruns.db"
            )
        self.uri, self.experiment_name = uri, experiment_name
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.run_name = f"{run_name}-{stamp}" if run_name else stamp
        self.params, self.tags, self.log_every = dict(params or {}), dict(tags or {}), max(int(log_every), 1)
        self.results, self.inferer = results, inferer
        self.names = names or Names(anonymize=False)
        self._is_server = not uri.startswith("sqlite:///")
        self._hides = self.names.everywhere or (self.names.on_servers and self._is_server)
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._worker: threading.Thread | None = None
        self._client: Any = None
        self._run_id = self._experiment_id = ""
        self._losses: list[tuple[torch.Tensor, int, float]] = []
        self._failed = False
        self._n_cases = 0

    def attach(self, engine: Engine) -> None:
        """Follow a trainer (losses) or an evaluator (metrics, pictures); one process logs."""
        if rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.log_every), self._loss)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._case)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self._send_losses())
        engine.add_event_handler(Events.COMPLETED, self._completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._exception)

    # What the engine calls: cheap, no waiting.

    def _start(self, engine: Engine) -> None:
        self.names.write_table(self.output_dir, elsewhere=self._is_server)
        self._worker = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._worker.start()
        self._jobs.put(self._open)
        atexit.register(self._finish, "KILLED")

    def _loss(self, engine: Engine) -> None:
        output = engine.state.output
        if isinstance(output, dict) and CommonKeys.LOSS in output:
            loss = torch.as_tensor(output[CommonKeys.LOSS]).detach()
            self._losses.append((loss, engine.state.iteration, time.time()))
            if len(self._losses) >= 100:
                self._send_losses()

    def _send_losses(self) -> None:
        losses, self._losses = self._losses, []
        if losses:
            self._log_metrics([("loss", float(value), step, when) for value, step, when in losses])

    def _case(self, engine: Engine) -> None:
        if self.inferer is None:
            return
        history, case = list(self.inferer.history), self._n_cases
        self._n_cases += 1
        keys = ("loss", "held_out")
        now = time.time()
        curve = [(f"case_{case}_{k}", e[k], int(e["iteration"]), now) for e in history for k in keys if k in e]
        self._log_metrics(curve)

    def _completed(self, engine: Engine) -> None:
        self._send_losses()
        if self.results is not None:
            self._log_results()
        self._finish("FINISHED")

    def _exception(self, engine: Engine, error: BaseException) -> None:
        self._send_losses()
        if self.results is not None:
            self._log_results()
        self._finish("FAILED")
        raise error

    def _log_results(self) -> None:
        rows, now = [self.names.row(row) if self._hides else row for row in self.results.rows], time.time()
        summaries = summarise(rows)
        named = {f"{method}_{key}": value for method, numbers in summaries.items() for key, value in numbers.items()}
        # The method of the run again under plain names: runs of different methods are then compared column by column.
        named |= summaries.get(self.tags.get("method", ""), {})
        self._log_metrics([(key, float(value), 0, now) for key, value in named.items()])
        tags = {**versions(), **{k: v for k, v in self.tags.items() if k != "method"}}
        self._jobs.put(lambda: log_methods(self._client, self._experiment_id, self._run_id, rows, tags))
        for picture in self.results.pictures:
            name = picture.parent.name
            shown = self.names.cases.get(name, name) if self._hides else name
            self._jobs.put(lambda p=picture, n=shown: self._log_file(p, f"{n}_recon.png", "pictures"))
        self._jobs.put(lambda: self._log_table(rows))
        page = self.output_dir / "report.html"
        if not self._hides or self.names.everywhere:  # else the page has the names that must not be sent
            self._jobs.put(lambda: self._log_file(page, page.name))

    def _log_table(self, rows: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "metrics.csv"
            write_metrics(table, rows)
            self._client.log_artifact(self._run_id, str(table))

    def _log_file(self, path: Path, name: str, folder: str | None = None) -> None:
        """Log a file under a name that need not be its own."""
        if not path.is_file():
            return
        if path.name == name:
            self._client.log_artifact(self._run_id, str(path), folder)
            return
        with tempfile.TemporaryDirectory() as temporary:
            self._client.log_artifact(self._run_id, str(shutil.copy(path, Path(temporary) / name)), folder)

    def _log_metrics(self, metrics: list[tuple[str, float, int, float]]) -> None:
        for first in range(0, len(metrics), _METRICS_PER_CALL):
            part = metrics[first : first + _METRICS_PER_CALL]
            self._jobs.put(lambda part=part: self._send_metrics(part))

    def _finish(self, status: str) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        atexit.unregister(self._finish)
        self._jobs.put(lambda: self._client.set_terminated(self._run_id, status))
        self._jobs.put(None)
        worker.join(_FLUSH_SECONDS)
        if worker.is_alive():
            logger.warning("MLflow at %s did not answer in time; this run's record is incomplete", self.uri)

    # What the background thread does.

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._failed:
                continue
            try:
                job()
            except Exception as error:
                self._failed = True
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logger.warning("MLflow at %s failed (%s); the run goes on without it", self.uri, reason)

    def _open(self) -> None:
        import mlflow
        from mlflow.entities import Param, RunTag

        logging.getLogger("alembic").setLevel(logging.WARNING)
        local = self.uri.startswith("sqlite:///")
        if local:
            start_database(Path(self.uri.removeprefix("sqlite:///")))
        self._client = mlflow.MlflowClient(tracking_uri=self.uri)
        experiment = self._client.get_experiment_by_name(self.experiment_name)
        if experiment is None:
            location = Path(self.uri.removeprefix("sqlite:///")).parent / "mlruns" if local else None
            self._experiment_id = self._client.create_experiment(
                self.experiment_name, artifact_location=None if location is None else location.resolve().as_uri()
            )
        else:
            self._experiment_id = experiment.experiment_id
        self._run_id = self._client.create_run(self._experiment_id, run_name=self.run_name).info.run_id
        given = self.names.settings(self.params) if self._hides else self.params
        params = [Param(key.replace("#", ".")[:250], str(value)[:6000]) for key, value in given.items()]
        tags = [RunTag(key, str(value)) for key, value in {**versions(), **self.tags}.items()]
        self._client.log_batch(self._run_id, tags=tags)
        for first in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(self._run_id, params=params[first : first + _PARAMS_PER_CALL])

    def _send_metrics(self, metrics: list[tuple[str, float, int, float]]) -> None:
        from mlflow.entities import Metric

        batch = [Metric(key, value, int(when * 1000), step) for key, value, step, when in metrics]
        self._client.log_batch(self._run_id, metrics=batch)
