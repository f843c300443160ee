"""Scripts of the repository, and what the Model Zoo bundles are checked with."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from tests.conftest import ROOT


def script(name: str) -> ModuleType:
    """`scripts/NAME.py` as a module."""
    folder = str(ROOT / "scripts")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def schema() -> Path | None:
    """A copy of the metadata schema, from DISINR_SCHEMA or beside the checkout."""
    import os

    path = Path(os.environ.get("DISINR_SCHEMA", ROOT.parent / "shared" / "reference" / "meta_schema_20240725.json"))
    return path if path.is_file() else None
