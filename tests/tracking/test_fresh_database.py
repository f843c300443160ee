"""The prepared MLflow database is MLflow's own, and MLflow takes it as its own."""

from __future__ import annotations

import re
import sqlite3

import pytest

from disinr_monai.tracking import fresh_database
from disinr_monai.tracking.fresh_database import start_database


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(cache))


def _schema(path) -> list:
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("select coalesce(sql, '') from sqlite_master")]
        # Alembic copies the constraints of a table in the order of a set, which differs from process to process.
        shapes = sorted(sorted(re.split(r"[\s,()]+", table)) for table in tables)
        return shapes + [row[0] for row in connection.execute("select version_num from alembic_version")]


@pytest.fixture
def quick_disk():
    """MLflow's own way waits for the disk a few hundred times."""
    import sqlalchemy

    def set_up(raw, _):
        raw.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", set_up)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", set_up)


def test_mlflow_makes_the_same_and_logs_to_it(tmp_path, quick_disk):
    import mlflow

    ours, theirs = tmp_path / "new" / "ours.db", tmp_path / "theirs.db"
    assert start_database(ours)
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{theirs}").get_experiment_by_name("any")
    assert _schema(ours) == _schema(theirs)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{ours}")
    run = client.create_run(client.create_experiment("mine", artifact_location=tmp_path.as_uri())).info.run_id
    client.log_metric(run, "psnr", 30.0)
    assert client.get_run(run).data.metrics == {"psnr": 30.0}
    assert _schema(ours) == _schema(theirs)


def test_the_next_database_knows_no_experiment_and_no_run(tmp_path):
    """The copy in the cache stays as it was made."""
    start_database(tmp_path / "a.db")
    with sqlite3.connect(tmp_path / "a.db") as connection:
        for table in ("experiments", "runs", "metrics", "params", "tags"):
            assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)


def test_what_is_there_stays(tmp_path):
    path = tmp_path / "mlruns.db"
    path.write_text("mine")
    assert not start_database(path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_another_mlflow_gets_another_database(cache, tmp_path, monkeypatch):
    assert start_database(tmp_path / "first.db")
    before = set(cache.iterdir())
    monkeypatch.setattr(fresh_database.importlib.metadata, "version", lambda package: "0.0.1")
    assert start_database(tmp_path / "second.db")
    assert len(set(cache.iterdir()) - before) == 1


def test_without_a_cache_folder_mlflow_is_left_to_itself(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DISINR_CACHE", str(blocked / "below"))
    assert not start_database(tmp_path / "mlruns.db")
    assert list(tmp_path.iterdir()) == [blocked]
