"""Real bundle runs in this process, small enough for the default suite, with what they print."""

import ast
import gzip
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import run

from disinr_monai.runtime.shown_errors import one_line
from tests.conftest import ROOT

SMALL = {"slices_per_subject": 1, "n_iterations": 2, "device": "cpu", "encoder::n_levels": 3}
SMALL |= {"encoder::log2_hashmap_size": 8, "encoder::out_dim": 8, "encoder::hidden_dim": 8}
OF = {
    "ct": {"image_size": 16, "n_views": 8, "n_detectors": 32, "detector_spacing": 20.0, "pixel_spacing": 10.0},
    "mri": {"image_size": 16, "acs": 8, "acceleration": 2, "n_coils": 2},
    "pet": {"image_size": 16, "n_views": 8},
}


@contextmanager
def _own_logging() -> Iterator[None]:
    """A run sets up the root logger; the test's own comes back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


def infer(dataset_dir: Path, output_dir: Path, modality: str, **overrides: Any) -> str:
    """`run inference` of a network from scratch; the line of the error with which it ended, or nothing."""
    files = [str(ROOT / "configs" / f"{name}.json") for name in ("inference", modality, "ngp", "quick")]
    options = {**SMALL, **OF[modality], "dataset_dir": str(dataset_dir), "output_dir": str(output_dir), **overrides}
    with _own_logging(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="parsing config_file")
        try:
            run(run_id="inference", config_file=files, logging_file=str(ROOT / "configs" / "logging.conf"), **options)
        except Exception as error:
            line = one_line(error)
            if line is None:
                raise
            return line
    return ""


def value(text: str) -> Any:
    """A value of the command line as MONAI's (Fire) reads it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def texts_of(folder: Path) -> dict[str, bytes]:
    """Name (from ``folder``) and bytes of every file, with compressed ones also uncompressed."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            if file.suffix == ".gz":
                content += gzip.decompress(content)
            found[str(file.relative_to(folder))] = content
    return found
