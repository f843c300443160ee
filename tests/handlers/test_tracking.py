from __future__ import annotations

import time
from pathlib import Path

import mlflow
import pytest
from ignite.engine import Engine

from disinr_monai.errors import InputError
from disinr_monai.handlers import Tracking
from disinr_monai.privacy import Names


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


class Results:
    rows = [
        {"case": f"s{i}", "subject": f"s{i}", "method": m, "psnr": p + i, "ssim": 0.9, "seconds": 1.0}
        for m, p in (("disinr", 30.0), ("tv", 28.0))
        for i in (0, 1)
    ]
    pictures = []


def test_each_method_is_a_run_under_the_parent(store):
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
    # Of one method, under the names that every method has: runs of different methods compare column by column.
    assert parent.data.metrics["psnr"] == parent.data.metrics["disinr_psnr"] == 30.5
    assert all(run.data.tags["git_commit"] == parent.data.tags["git_commit"] for run in children)


def with_files(folder):
    """Results of two scans of one named person, as they lie on the user's disk."""
    results = Results()
    results.rows = [{"case": f"doe_john_s{i}", "subject": "doe_john", "method": "tv", "psnr": 30.0} for i in (0, 1)]
    results.pictures = []
    for i in (0, 1):
        picture = folder / f"doe_john_s{i}" / f"doe_john_s{i}_recon.png"
        picture.parent.mkdir(parents=True)
        picture.write_text("png")
        results.pictures.append(picture)
    (folder / "report.html").write_text("doe_john")
    cases = [{"name": f"doe_john_s{i}", "subject": "doe_john", "path": f"/scans/doe_john_{i}.h5"} for i in (0, 1)]
    return results, cases


@pytest.mark.parametrize("anonymize", [None, "true", "false"])
@pytest.mark.parametrize("is_server", [False, True])
def test_who_is_named_where(store, tmp_path, anonymize, is_server):
    """By default nothing that leaves the user's own database names a person; `true` and `false` are for both."""
    results, cases = with_files(tmp_path)
    handler = Tracking(
        str(tmp_path),
        tracking_uri=f"sqlite:///{store}/mlruns.db",
        run_name=f"who-{anonymize}-{is_server}",
        params={"dataset_dir": "/scans", "note": "of doe_john_s1"},
        results=results,
        names=Names(cases, ["/scans"], anonymize),
    )
    if is_server:  # the test has none: it is told so
        handler._is_server = True
        handler._hides = handler.names.everywhere or handler.names.on_servers
    engine = Engine(lambda engine, batch: {"loss": 1.0})
    handler.attach(engine)
    engine.run(range(2), max_epochs=1)
    client, run = finished(store, handler)
    hidden = anonymize == "true" or (anonymize is None and is_server)
    artifacts = {a.path for f in (None, "pictures") for a in client.list_artifacts(run.info.run_id, f) if not a.is_dir}
    table = Path(client.download_artifacts(run.info.run_id, "metrics.csv")).read_text()
    told = " ".join([str(run.data.params), *artifacts, table])
    assert ("doe_john" in told) is ("/scans" in told) is not hidden
    assert (tmp_path / "private_names.csv").exists() is hidden
    if hidden:
        assert {"pictures/case-001_recon.png", "pictures/case-002_recon.png"} <= artifacts
        assert "case-002,subject-001,tv" in table
        assert run.data.params["note"] == "of case-002"
    # The page on disk names cases by their files unless everything is neutral.
    assert ("report.html" in artifacts) is (not hidden or anonymize == "true")
