import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Caches of the tests live for one session, apart from the user's."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("DISINR_CACHE", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1234)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real scans, from DISINR_DATA or beside the checkout."""
    folder = Path(os.environ.get("DISINR_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set DISINR_DATA")
    return folder


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    # The others run beside its hour, where there are two processes.
    items.sort(key=lambda item: item.name != "test_soak")


def pytest_sessionfinish(session):
    """A process that another one started (pytest -n 2) hands over what its fault tests recorded."""
    if hasattr(session.config, "workeroutput"):
        from tests.faults.record import send

        session.config.workeroutput["reliability"] = send()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    from tests.faults.record import receive

    output = getattr(node, "workeroutput", {})  # a process that crashed has none; its test has failed then
    if "reliability" in output:
        receive(output["reliability"])


def pytest_terminal_summary(terminalreporter):
    """What the fault tests injected and what survived; kept in DISINR_RELIABILITY if it names a file."""
    from tests.faults.record import table

    if table():
        terminalreporter.write_sep("-", "faults and inputs")
        terminalreporter.write_line("\n".join(table()))
    if table() and (file := os.environ.get("DISINR_RELIABILITY")):
        Path(file).write_text("\n".join(table()) + "\n")
