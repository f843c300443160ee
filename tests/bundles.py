"""Building a Model Zoo bundle in a test."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from tests.conftest import ROOT


def builder() -> ModuleType:
    """`scripts/build_bundle.py` as a module."""
    folder = str(ROOT / "scripts")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("build_bundle")
    finally:
        sys.path.remove(folder)


def schema() -> Path | None:
    """A copy of the metadata schema, from DISINR_SCHEMA or beside the checkout."""
    import os

    path = Path(os.environ.get("DISINR_SCHEMA", ROOT.parent / "shared" / "reference" / "meta_schema_20240725.json"))
    return path if path.is_file() else None
