from __future__ import annotations

import time

import mlflow
import pytest
from ignite.engine import Engine

from disinr_monai.errors import InputError
from disinr_monai.handlers import Tracking


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One SQLite store for the module: its first use costs seconds."""
    return tmp_path_factory.mktemp("mlflow")


def track(store, step=lambda engine, batch: {"loss": 1.0 / engine.state.iteration}, n: int = 45, **options):
    handler = Tracking(str(store), run_name="test", log_every=10, **options)
    engine = Engine(step)
    handler.attach(engine)
    return handler, engine, n


def finished(store, handler):
    client = mlflow.MlflowClient(handler.uri)
    runs = client.search_runs([client.get_experiment_by_name("disinr").experiment_id])
    return client, next(run for run in runs if run.info.run_name == handler.run_name)


def test_losses_params_tags_and_status(store):
    handler, engine, n = track(store, params={"lr": 0.1, "a#b": "x" * 7000}, tags={"modality": "mri"})
    engine.run(range(n), max_epochs=1)
    client, run = finished(store, handler)
    assert run.info.status == "FINISHED"
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["a.b"].startswith("xxx")
    assert run.data.tags["modality"] == "mri"
    assert {"torch", "monai", "git_commit", "hardware"} <= run.data.tags.keys()
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in history] == [10, 20, 30, 40]
    assert history[0].value == pytest.approx(0.1)


def test_a_failing_run_is_failed_and_still_raises(store):
    def step(engine, batch):
        if engine.state.iteration == 12:
            raise RuntimeError("boom")
        return {"loss": 1.0}

    handler, engine, n = track(store, step)
    with pytest.raises(RuntimeError, match="boom"):
        engine.run(range(n), max_epochs=1)
    client, run = finished(store, handler)
    assert run.info.status == "FAILED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1


def test_run_names_are_unique(store):
    assert Tracking(str(store), run_name="a").run_name != Tracking(str(store), run_name="a").run_name


def test_an_unreachable_server_does_not_stop_the_run(store, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    _handler, engine, n = track(store, tracking_uri="http://127.0.0.1:9")
    started = time.monotonic()
    state = engine.run(range(n), max_epochs=1)
    assert state.iteration == n
    assert time.monotonic() - started < 60
    assert sum("the run goes on without it" in record.message for record in caplog.records) == 1


def test_many_losses_arrive_in_few_calls(store, monkeypatch):
    calls = []
    send = Tracking._send_metrics
    monkeypatch.setattr(
        Tracking, "_send_metrics", lambda self, metrics: calls.append(len(metrics)) or send(self, metrics)
    )
    handler = Tracking(str(store), log_every=1)
    engine = Engine(lambda e, b: {"loss": 1.0})
    handler.attach(engine)
    engine.run(range(2000), max_epochs=1)
    client, run = finished(store, handler)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2000
    assert len(calls) <= 21


def test_a_folder_is_refused_by_name():
    with pytest.raises(InputError, match=r"tracking_uri: .*found './runs'"):
        Tracking("out", tracking_uri="./runs")


def test_each_method_is_a_run_under_the_parent(store):
    class Results:
        rows = [
            {"case": f"s{i}", "subject": f"s{i}", "method": m, "psnr": p + i, "ssim": 0.9, "seconds": 1.0}
            for m, p in (("disinr", 30.0), ("tv", 28.0))
            for i in (0, 1)
        ]
        pictures = []

    handler, engine, n = track(store, results=Results(), tags={"modality": "ct", "method": "disinr"})
    engine.run(range(n), max_epochs=1)
    client, parent = finished(store, handler)
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.psnr DESC"]
    )
    assert [run.data.tags["method"] for run in children] == ["disinr", "tv"]
    assert [run.data.metrics["psnr"] for run in children] == [30.5, 28.5]
    assert all(run.info.status == "FINISHED" and run.data.tags["modality"] == "ct" for run in children)
    steps = client.get_metric_history(children[1].info.run_id, "psnr_by_case")
    assert [(m.step, m.value) for m in steps] == [(0, 28.0), (1, 29.0)]
    assert parent.data.metrics["tv_psnr"] == 28.5
