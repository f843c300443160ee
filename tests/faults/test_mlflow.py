"""MLflow's server down at the start, lost on the way, slow, and down until the end: nothing stops, nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from ignite.engine import Engine, Events

from disinr_monai.tracking import Tracking, journal
from disinr_monai.tracking.journal import FILE, FOLDER
from tests.conftest import ROOT
from tests.faults.mlflow_server import Server, Wire
from tests.faults.record import record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def wire(server):
    wire = Wire(server.port)
    yield wire
    wire.down()


class Results:
    """What a reconstruction run leaves."""

    def __init__(self, folder: Path) -> None:
        self.rows = [
            {"case": f"s{i}", "subject": f"s{i}", "method": m, "psnr": 30.0 + i, "ssim": 0.9, "seconds": 1.0}
            for m in ("disinr", "tv")
            for i in (0, 1)
        ]
        self.pictures = [folder / f"s{i}" / f"s{i}_recon.png" for i in (0, 1)]
        for picture in self.pictures:
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(f"picture in {folder.name}")
        (folder / "report.html").write_text("report")


class Run:
    """A run of ``n`` steps with tracking, and what it must have left on the server."""

    def __init__(self, folder: Path, uri: str, n: int = 40, seconds: float = 0.1, at: dict | None = None) -> None:
        self.n, self.sent_at, self.seconds_of_steps = n, [], 0.0
        self.tracking = Tracking(
            str(folder), tracking_uri=uri, run_name="it's a \"test\"", params={"lr": 0.1}, log_every=1,
            tags={"method": "disinr"}, results=Results(folder),
        )  # fmt: skip

        def step(engine: Engine, batch: int) -> dict[str, float]:
            time.sleep(seconds)
            (at or {}).get(engine.state.iteration, lambda: None)()
            self.sent_at.append(time.time())
            return {"loss": 1.0 / engine.state.iteration}

        engine = Engine(step)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: e.state.iteration % 5 or self.tracking._send_losses()
        )
        self.tracking.attach(engine)
        started = time.monotonic()
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda _: setattr(self, "seconds_of_steps", time.monotonic() - started)
        )
        engine.run(range(n), max_epochs=1)

    def check(self, server: Server) -> None:
        """The record is whole, with the right steps and times, and there is one of it."""
        client = mlflow.MlflowClient(server.uri)
        everything = client.search_runs([client.get_experiment_by_name("disinr").experiment_id])
        (run,) = [run for run in everything if run.info.run_name == self.tracking.run_name]
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [m.step for m in history] == list(range(1, self.n + 1))
        assert [m.value for m in history] == pytest.approx([1.0 / step for step in range(1, self.n + 1)])
        late = [m.timestamp / 1000 - then for m, then in zip(history, self.sent_at, strict=True)]
        assert -0.05 < min(late) <= max(late) < 0.5, "times are those of the steps, not of their arrival"
        assert run.info.start_time / 1000 <= self.sent_at[0]
        assert self.sent_at[-1] - 0.05 <= run.info.end_time / 1000 < self.sent_at[-1] + 5
        assert run.data.params["lr"] == "0.1"
        assert {"torch", "git_commit"} <= run.data.tags.keys()
        methods = [r for r in everything if r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert sorted(r.info.run_name for r in methods) == ["disinr", "tv"]
        assert all(r.info.status == "FINISHED" and r.data.metrics["psnr"] == 30.5 for r in methods)
        files = [a.path for f in (None, "pictures") for a in client.list_artifacts(run.info.run_id, f)]
        assert {"metrics.csv", "report.html", "pictures/s0_recon.png", "pictures/s1_recon.png"} <= set(files)
        shown = Path(client.download_artifacts(run.info.run_id, "pictures/s0_recon.png")).read_text()
        assert shown == f"picture in {self.tracking.output_dir.name}"


def warnings(caplog) -> list[str]:
    return [
        r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR") and "MLflow" in r.getMessage()
    ]


def test_down_at_the_start(server, wire, tmp_path, caplog):
    run = Run(tmp_path, wire.uri, at={25: wire.up})
    run.check(server)
    assert len(warnings(caplog)) == 1
    assert "the run goes on without it" in warnings(caplog)[0]
    assert not (tmp_path / FOLDER).exists()
    record("MLflow server down at the start", 1, 1)


def test_lost_on_the_way(server, wire, tmp_path, caplog):
    wire.up()
    run = Run(tmp_path, wire.uri, n=60, at={15: wire.down, 30: wire.up, 40: wire.down, 50: wire.up})
    run.check(server)
    assert len(warnings(caplog)) == 1
    assert not (tmp_path / FOLDER).exists()
    record("MLflow server lost during the run", 2, 2)


@pytest.mark.parametrize("request_", [b"runs/create", b'"run_name": "tv"', b"runs/log-batch", b"artifacts"])
def test_an_answer_is_lost(server, wire, tmp_path, caplog, request_):
    """The server did what it was asked, but nobody was told: not twice."""
    wire.up()
    wire.swallow = request_
    Run(tmp_path, wire.uri, n=10).check(server)
    assert not wire.swallow
    assert len(warnings(caplog)) == 1
    record("answer of the MLflow server lost", 1, 1)


def test_slow(server, wire, tmp_path, caplog):
    plain = Run(tmp_path / "plain", server.uri, n=50, seconds=0.02)
    wire.up()
    wire.delay = 1.0
    slow = Run(tmp_path / "slow", wire.uri, n=50, seconds=0.02)
    assert slow.seconds_of_steps < 1.5 * plain.seconds_of_steps + 0.5
    slow.check(server)
    assert not warnings(caplog)
    record("MLflow server slow (1 s an answer)", 1, 1)


def test_down_until_the_end(server, wire, tmp_path, caplog, monkeypatch):
    """Twice; the third run finds it up and sends all three, each with the pictures that it had."""
    monkeypatch.setattr(journal, "PATIENCE", 2.0)
    runs = []
    for i in range(2):
        caplog.clear()
        folder = tmp_path / "out"
        started = time.monotonic()
        runs.append(Run(folder, wire.uri, n=10))
        assert time.monotonic() - started < 10
        first, last = warnings(caplog)
        assert "the run goes on without it" in first
        assert f"kept in {folder / FOLDER}" in last
        assert len(list((folder / FOLDER).iterdir())) == i + 1
    for picture in runs[0].tracking.results.pictures:
        picture.unlink()  # what was kept does not depend on it
    caplog.clear()
    wire.up()
    runs.append(Run(tmp_path / "out", wire.uri, n=10))
    for run in runs:
        run.check(server)
    assert not warnings(caplog)
    assert not (tmp_path / "out" / FOLDER).exists()
    record("MLflow server down until the end", 2, 2)


def test_another_server_gets_nothing_of_it(server, wire, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "PATIENCE", 1.0)
    kept = Run(tmp_path, wire.uri, n=5)
    Run(tmp_path, server.uri, n=5)
    assert len(list((tmp_path / FOLDER).glob(f"*/{FILE}"))) == 1
    client = mlflow.MlflowClient(server.uri)
    names = [r.info.run_name for r in client.search_runs([client.get_experiment_by_name("disinr").experiment_id])]
    assert kept.tracking.run_name not in names


CRASH = """
import sys, time
from ignite.engine import Engine
from disinr_monai.tracking import Tracking
tracking = Tracking(sys.argv[1], tracking_uri=sys.argv[2], run_name="crash", log_every=1)
def step(engine, batch):
    print(tracking.run_name, flush=True)
    time.sleep(0.1)
    return {"loss": 1.0}
engine = Engine(step)
tracking.attach(engine)
engine.run(range(1000), max_epochs=1)
"""


@pytest.mark.parametrize("away", [True, False])
def test_killed(server, wire, tmp_path, away):
    """The journal arrives with the next run, and says that the run was killed."""
    if not away:
        wire.up()
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path), wire.uri], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    name = process.stdout.readline().strip()
    deadline = time.monotonic() + 60
    while '"loss"' not in next((tmp_path / FOLDER).glob(f"*/{FILE}")).read_text():  # the first hundred
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if away:
        wire.up()
    Run(tmp_path, wire.uri, n=5).check(server)
    client = mlflow.MlflowClient(server.uri)
    everything = client.search_runs([client.get_experiment_by_name("disinr").experiment_id])
    (run,) = [run for run in everything if run.info.run_name == name]
    assert run.info.status == "KILLED"
    assert run.info.end_time >= run.info.start_time
    assert "torch" in run.data.tags
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "loss")]
    assert len(steps) >= 100
    assert steps == list(range(1, len(steps) + 1))
    assert not (tmp_path / FOLDER).exists()
    kind = "killed while the MLflow server was away" if away else "killed while it logged to an MLflow server"
    record(kind, 1, 1, "100 points of the curve")


def test_the_process_ends_early(server, tmp_path):
    """The main thread ends while the engine runs in another: the run ends as KILLED, with what it has logged."""
    code = CRASH.replace("engine.run(range(1000), max_epochs=1)", "")
    code += "import threading\nthreading.Thread(target=engine.run, args=(range(1000), 1), daemon=True).start()\n"
    code += "time.sleep(5)\ntracking._send_losses()\n"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), server.uri], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(server.uri)
    everything = client.search_runs([client.get_experiment_by_name("disinr").experiment_id])
    (run,) = [run for run in everything if run.info.run_name == done.stdout.split()[0]]
    assert run.info.status == "KILLED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) > 10
