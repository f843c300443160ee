from __future__ import annotations

import importlib
import shutil
import sys

import pytest

from tests.configs.pages import block
from tests.conftest import ROOT


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder with the configs and, importable, the files that a page tells the reader to write."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def write(page: str, module: str):
        (tmp_path / f"{module}.py").write_text(block(page, f"{module}.py"))
        (tmp_path / "configs" / f"{module}.json").write_text(block(page, f"configs/{module}.json", "json"))
        modules.append(module)
        importlib.invalidate_caches()
        return importlib.import_module(module)

    yield write
    for module in modules:
        sys.modules.pop(module, None)
