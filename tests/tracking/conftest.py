import pytest


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One SQLite store for the module: its first use costs seconds."""
    return tmp_path_factory.mktemp("mlflow")
