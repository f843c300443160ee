"""What happens to messages that the store does not take at once."""

import json
import time
from pathlib import Path

import mlflow
import pytest

from disinr_monai.runtime.names import Names
from disinr_monai.tracking import journal
from disinr_monai.tracking.journal import FILE, FOLDER
from tests.faults.record import record
from tests.tracking.helpers import Results, finished, track, with_files


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@pytest.fixture
def no_server(monkeypatch) -> str:
    """Where nobody listens."""
    monkeypatch.setattr(journal, "PATIENCE", 0.2)
    return "http://user:secret@127.0.0.1:9"


def test_an_unreachable_server_does_not_stop_the_run(tmp_path, caplog, no_server):
    _handler, engine, n = track(tmp_path, tracking_uri=no_server, params={"tracking_uri": no_server})
    started = time.monotonic()
    state = engine.run(range(n), max_epochs=1)
    assert state.iteration == n
    assert time.monotonic() - started < 10
    failed, kept = warnings(caplog)
    assert "the run goes on without it" in failed
    assert str(tmp_path / FOLDER) in kept
    assert "secret" not in failed + kept
    (found,) = (tmp_path / FOLDER).glob(f"*/{FILE}")
    assert "secret" not in found.read_text()
    messages = [json.loads(line).get("message", {}) for line in found.read_text().splitlines() if line]
    assert sum(len(message.get("metrics", ())) for message in messages) == 4


def test_a_journal_that_cannot_be_written_stops_nothing(store, tmp_path, caplog, no_server):
    (tmp_path / FOLDER).write_text("in the way")
    handler, engine, n = track(tmp_path, tracking_uri=f"sqlite:///{store}/mlruns.db", results=with_files(tmp_path)[0])
    engine.run(range(n), max_epochs=1)
    client, run = finished(store, handler)
    assert run.info.status == "FINISHED"
    assert len(client.list_artifacts(run.info.run_id, "pictures")) == 2
    assert not warnings(caplog)
    track(tmp_path, tracking_uri=no_server)[1].run(range(n), max_epochs=1)
    assert "nor can the rest be kept" in warnings(caplog)[-1]


@pytest.mark.parametrize("anonymize", [None, "false"])
def test_what_is_kept_is_what_would_have_been_sent(tmp_path, no_server, anonymize):
    results, cases = with_files(tmp_path)
    names = Names(cases, ["/scans"], anonymize)
    _handler, engine, _ = track(
        tmp_path, tracking_uri=no_server, params={"note": "of doe_john_s1"}, results=results, names=names
    )
    engine.run(range(2), max_epochs=1)
    (folder,) = (tmp_path / FOLDER).iterdir()
    told = " ".join(file.name for file in folder.iterdir()) + (folder / FILE).read_text()
    assert ("doe_john" in told) is (anonymize == "false")
    assert ("case-002_recon.png" in told) is (anonymize is None)
    assert any(file.name.endswith("report.html") for file in folder.iterdir()) is (anonymize == "false")


def test_a_store_that_is_away_at_first(tmp_path, caplog):
    """The folder of the database cannot be made for a while."""
    place = tmp_path / "store"
    place.write_text("in the way")

    def step(engine, batch):
        if engine.state.iteration == 20:
            time.sleep(1.5)
            place.unlink()
        return {"loss": 1.0}

    handler, engine, n = track(tmp_path, step, tracking_uri=f"sqlite:///{place}/mlruns.db")
    engine.run(range(n), max_epochs=1)
    client, run = finished(place, handler)
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [10, 20, 30, 40]
    assert len(warnings(caplog)) == 1
    assert not (tmp_path / FOLDER).exists()
    record("MLflow database away for a while", 1, 1)


def test_the_next_run_sends_what_the_last_could_not(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(journal, "PATIENCE", 0.2)
    place = tmp_path / "store"
    place.write_text("in the way")
    results, _cases = with_files(tmp_path)
    handler, engine, n = track(tmp_path, tracking_uri=f"sqlite:///{place}/mlruns.db", results=results)
    engine.run(range(n), max_epochs=1)
    assert len(warnings(caplog)) == 2
    place.unlink()
    for picture in results.pictures:
        picture.unlink()
        picture.write_text("of the next run")
    caplog.clear()
    other, engine, n = track(tmp_path, tracking_uri=f"sqlite:///{place}/mlruns.db")
    engine.run(range(n), max_epochs=1)
    for each in (handler, other):
        client, run = finished(place, each)
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 4
    _client, run = finished(place, handler)
    shown = Path(client.download_artifacts(run.info.run_id, "pictures/doe_john_s0_recon.png"))
    assert shown.read_text() == "png", "the picture of that run"
    assert not warnings(caplog)
    assert not (tmp_path / FOLDER).exists()
    record("MLflow database away until the end", 1, 1)


def test_what_is_sent_again_counts_once(store, tmp_path, monkeypatch):
    """The process was killed before it could write down that everything has arrived."""
    results, _cases = with_files(tmp_path)
    uri = f"sqlite:///{store}/mlruns.db"
    with monkeypatch.context() as killed:
        killed.setattr(journal.Journal, "sent", lambda self, numbers: [self.left.pop(number) for number in numbers])
        killed.setattr(journal.Journal, "remove", lambda self: None)
        handler, engine, n = track(tmp_path, tracking_uri=uri, params={"lr": 0.1}, results=results)
        engine.run(range(n), max_epochs=1)
    for _ in range(2):  # all of it, then a journal without anything left to send
        other, engine, n = track(tmp_path, tracking_uri=uri)
        with monkeypatch.context() as killed:
            killed.setattr(journal.Journal, "remove", lambda self: None)
            engine.run(range(n), max_epochs=1)
    track(tmp_path, tracking_uri=uri)[1].run(range(1), max_epochs=1)
    client, run = finished(store, handler)
    runs = client.search_runs([run.info.experiment_id])
    assert [r.info.run_name for r in runs].count(handler.run_name) == 1
    assert [r.info.run_name for r in runs].count(other.run_name) == 1
    assert sum(r.data.tags.get("mlflow.parentRunId") == run.info.run_id for r in runs) == 1
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [10, 20, 30, 40]
    assert not (tmp_path / FOLDER).exists()


def test_what_is_refused_for_good_holds_up_nothing(store, caplog):
    results = Results()
    results.rows = [{**row, "method": row["method"].replace("tv", "t*v")} for row in Results.rows]  # no name for MLflow
    started = time.monotonic()
    handler, engine, n = track(store, results=results)
    engine.run(range(n), max_epochs=1)
    assert time.monotonic() - started < 10
    client, run = finished(store, handler)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 4
    assert run.data.metrics["disinr_psnr"] == 30.5
    assert "metrics.csv" in {a.path for a in client.list_artifacts(run.info.run_id)}
    (told,) = warnings(caplog)
    assert "refuses some of this run" in told


def test_a_refused_run_is_kept_for_another_day(store, tmp_path, caplog):
    """Nothing can be logged to a deleted experiment until somebody restores it."""
    uri = f"sqlite:///{store}/mlruns.db"
    client = mlflow.MlflowClient(uri)
    experiment_id = client.create_experiment("deleted")
    client.delete_experiment(experiment_id)
    started = time.monotonic()
    handlers = []
    for _ in range(2):
        caplog.clear()
        handler, engine, n = track(tmp_path, tracking_uri=uri, experiment_name="deleted")
        engine.run(range(n), max_epochs=1)
        handlers.append(handler)
        refused, kept = warnings(caplog)
        assert "refuses the run" in refused
        assert "kept in" in kept
    assert time.monotonic() - started < 10
    client.restore_experiment(experiment_id)
    caplog.clear()
    handler, engine, n = track(tmp_path, tracking_uri=uri, experiment_name="deleted")
    engine.run(range(n), max_epochs=1)
    runs = {run.info.run_name: run for run in client.search_runs([experiment_id])}
    assert runs.keys() == {each.run_name for each in [*handlers, handler]}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 4 for run in runs.values())
    assert not warnings(caplog)
    assert not (tmp_path / FOLDER).exists()


def test_a_journal_names_no_file_outside_its_folder(store, tmp_path):
    """Whoever could write a journal could else have any file of the next user sent."""
    folder = tmp_path / FOLDER / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    uri = f"sqlite:///{store}/mlruns.db"
    (folder / "link.txt").symlink_to(secret)
    opening = {"experiment": "disinr", "name": "hostile-20260101-000000-abcdef", "when": 1.0, "uri": uri}
    records = [{"opening": opening | {"stamp": folder.name}}]
    for number, path in enumerate([str(secret), "../../secret.txt", "link.txt"]):
        message = {"kind": "file", "path": path, "name": f"../{number}.txt", "folder": None}
        records.append({"number": number, "message": message, "when": 2.0})
    (folder / FILE).write_text("\n".join([*map(json.dumps, records), '{"number": 3, "mess']))
    (tmp_path / FOLDER / "damaged").mkdir()
    (tmp_path / FOLDER / "damaged" / FILE).write_text("{")
    _handler, engine, n = track(tmp_path, tracking_uri=uri)
    engine.run(range(n), max_epochs=1)
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("disinr").experiment_id])
    (run,) = [run for run in runs if run.info.run_name == opening["name"]]
    assert run.info.status == "KILLED"
    assert not client.list_artifacts(run.info.run_id)
