from pathlib import Path

import pytest
from ignite.engine import Engine

from disinr_monai.errors import InputError
from disinr_monai.runtime.names import Names
from disinr_monai.tracking import Tracking
from tests.tracking.helpers import Results, finished, track, with_files


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


def test_many_losses_arrive_in_few_calls(store, monkeypatch):
    calls = []
    put = Tracking._put
    monkeypatch.setattr(Tracking, "_put", lambda self, message: calls.append(message["kind"]) or put(self, message))
    handler = Tracking(str(store), log_every=1)
    engine = Engine(lambda e, b: {"loss": 1.0})
    handler.attach(engine)
    engine.run(range(2000), max_epochs=1)
    client, run = finished(store, handler)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2000
    assert calls.count("metrics") <= 21


def test_a_folder_is_refused_by_name():
    with pytest.raises(InputError, match=r"tracking_uri: .*found './runs'"):
        Tracking("out", tracking_uri="./runs")


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
