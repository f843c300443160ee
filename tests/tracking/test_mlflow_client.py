import os
import sqlite3
import subprocess
import sys

from disinr_monai.tracking.mlflow_client import _start_database


def test_a_prepared_database_knows_no_experiment_and_no_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _start_database(tmp_path / name / "mlruns.db")
        assert [file.name for file in (tmp_path / name).iterdir()] == ["mlruns.db"]
        with sqlite3.connect(tmp_path / name / "mlruns.db") as connection:
            for table in ("experiments", "runs", "metrics", "params", "tags"):
                assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)


def test_a_database_that_is_there_stays(tmp_path):
    """Another process may have begun to use it meanwhile."""
    (tmp_path / "mlruns.db").write_text("mine")
    _start_database(tmp_path / "mlruns.db")
    assert (tmp_path / "mlruns.db").read_text() == "mine"


def test_without_a_cache_folder_mlflow_is_left_to_itself(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path / "file" / "below"))
    _start_database(tmp_path / "mlruns.db")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_mlflow_does_not_report_usage():
    code = (
        "import mlflow\n"  # as MONAI does, before anything of ours
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "from disinr_monai.tracking.mlflow_client import Client\n"
        "Client('http://127.0.0.1:9').client\n"
        "assert get_telemetry_client() is None\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
