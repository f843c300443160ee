from __future__ import annotations

import atexit
import os
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from disinr_monai.errors import InputError
from disinr_monai.output.tables import summarise
from disinr_monai.runtime.distributed import rank
from disinr_monai.runtime.names import Names
from disinr_monai.runtime.progress import current_loss
from disinr_monai.runtime.versions import versions
from disinr_monai.tracking.journal import Delivery
from disinr_monai.tracking.mlflow_client import SQLITE, Message, without_secrets


class Tracking:
    """Log a run to MLflow without making it wait.

    Messages are plain data, which :class:`~disinr_monai.tracking.journal.Delivery` sends in the background. A failing
    store is reported once, the run goes on, and the rest is sent later, if need be by the next run with this
    ``output_dir``. The run ends as FINISHED, FAILED after an exception, or KILLED when the process ends early.

    MONAI's ``MLFlowHandler`` writes twice per iteration (42 ms), joins any unfinished run of the experiment, and leaves
    crashed runs RUNNING.

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
        names: neutral names of cases and files, used where ``anonymize`` asks for them: by default on a server
            (any store but an SQLite file).

    Raises:
        InputError: a plain folder as ``tracking_uri``, which MLflow no longer supports, or options of a database.
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
            uri = f"{SQLITE}{(self.output_dir / 'mlruns.db').resolve()}"
        if "://" not in uri or uri.startswith("file://"):
            raise InputError(
                f"tracking_uri: MLflow no longer stores runs in a folder, found {uri!r}; give http(s)://… or "
                "sqlite:////absolute/path/mlruns.db"
            )
        if uri.startswith(SQLITE) and "?" in Path(uri).name:
            raise InputError(
                f"tracking_uri: expected the path of a database file after sqlite:///, found options ({uri!r}); leave "
                "out what follows the ?"
            )
        self.uri, self.experiment_name = uri, experiment_name
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.run_name, self._stamp = f"{run_name}-{stamp}" if run_name else stamp, stamp
        self.params, self.tags, self.log_every = dict(params or {}), dict(tags or {}), max(int(log_every), 1)
        self.results, self.inferer = results, inferer
        self.names = names or Names(anonymize=False)
        self._is_server = not uri.startswith(SQLITE)
        self._hides = self.names.everywhere or (self.names.on_servers and self._is_server)
        self._delivery: Delivery | None = None
        self._began = (time.time(), time.monotonic())
        self._losses: list[tuple[torch.Tensor, int, float]] = []
        self._n_cases = 0

    def attach(self, engine: Engine) -> None:
        """Follow a trainer (losses) or an evaluator (metrics, pictures); one process logs."""
        if rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.log_every), self._loss)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._case)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self._send_losses())
        engine.add_event_handler(Events.COMPLETED, lambda _: self._end("FINISHED"))
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._exception)

    def _start(self, engine: Engine) -> None:
        self.names.write_table(self.output_dir, elsewhere=self._is_server)
        self._began = (time.time(), time.monotonic())
        opening = {"experiment": self.experiment_name, "name": self.run_name, "stamp": self._stamp}
        self._delivery = Delivery(self.output_dir, self.uri, opening | {"when": self._began[0]}, self._now)
        params = self.names.settings(self.params) if self._hides else self.params
        params = {k: without_secrets(v) if v == self.uri else v for k, v in params.items()}
        self._put({"kind": "open", "params": params, "tags": {**versions(), **self.tags}})
        atexit.register(self._finish, "KILLED")

    def _now(self) -> float:
        """Seconds since 1970, monotonic: changes of the system clock do not reorder curves."""
        wall, start = self._began
        return wall + time.monotonic() - start

    def _loss(self, engine: Engine) -> None:
        if (loss := current_loss(engine)) is not None:
            self._losses.append((loss, engine.state.iteration, self._now()))
            if len(self._losses) >= 100:
                self._send_losses()

    def _send_losses(self) -> None:
        losses, self._losses = self._losses, []
        self._log_metrics([("loss", float(value), step, when) for value, step, when in losses])

    def _case(self, engine: Engine) -> None:
        if self.inferer is None:
            return
        history, name, now = self.inferer.history, f"case_{self._n_cases}", self._now()
        self._n_cases += 1
        keys = ("loss", "held_out")
        self._log_metrics([(f"{name}_{k}", e[k], int(e["iteration"]), now) for e in history for k in keys if k in e])

    def _exception(self, engine: Engine, error: BaseException) -> None:
        self._end("FAILED")
        raise error

    def _end(self, status: str) -> None:
        self._send_losses()
        if self.results is not None:
            self._log_results()
        self._finish(status)

    def _log_results(self) -> None:
        rows, now = [self.names.row(row) if self._hides else row for row in self.results.rows], self._now()
        summaries = summarise(rows)
        named = {f"{method}_{key}": value for method, numbers in summaries.items() for key, value in numbers.items()}
        # The method of the run again under plain names: runs of different methods are then compared column by column.
        named |= summaries.get(self.tags.get("method", ""), {})
        self._log_metrics([(key, float(value), 0, now) for key, value in named.items()])
        tags = {**versions(), **{k: v for k, v in self.tags.items() if k != "method"}}
        self._put({"kind": "methods", "rows": rows, "tags": tags, "when": now})
        for picture in self.results.pictures:
            name = picture.parent.name
            shown = self.names.cases.get(name, name) if self._hides else name
            self._put({"kind": "file", "path": str(picture), "name": f"{shown}_recon.png", "folder": "pictures"})
        self._put({"kind": "table", "rows": rows, "name": "metrics.csv", "folder": None})
        page = self.output_dir / "report.html"
        if not self._hides or self.names.everywhere:  # else the page has the names that must not be sent
            self._put({"kind": "file", "path": str(page), "name": page.name, "folder": None})

    def _log_metrics(self, metrics: list[tuple[str, float, int, float]]) -> None:
        if metrics:
            self._put({"kind": "metrics", "metrics": metrics})

    def _put(self, message: Message) -> None:
        if self._delivery is not None:
            self._delivery.put(message)

    def _finish(self, status: str) -> None:
        delivery, self._delivery = self._delivery, None
        if delivery is None:
            return
        atexit.unregister(self._finish)
        delivery.finish({"kind": "end", "status": status, "when": self._now()})
