"""Result files: one JSON layout for demo, evaluation and benchmarks."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from disinr_monai.files import atomic_path
from disinr_monai.versions import versions

_NUMBERS = ("psnr", "ssim", "nrmse", "seconds", "iterations", "peak_memory_mb", "fallback", "residual")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a ``metrics.csv``, numbers as numbers; values that do not exist are left out."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) if k in _NUMBERS else v for k, v in row.items() if v != ""} for row in rows]


def write_results(
    path: str | Path, rows: list[dict[str, Any]], seed: int, ratios: dict[str, float] | None = None
) -> None:
    """Write ``{"header", "rows", "ratios"}`` as JSON.

    Args:
        path: file to write.
        rows: each with task, setting, method, subject, psnr, ssim, nrmse, seconds, iterations, peak_memory_mb.
        seed: the run's seed, for the header.
        ratios: named ratios of the speed suite.
    """
    write_json(path, {"rows": rows, "ratios": ratios or {}}, seed)


def write_json(path: str | Path, content: dict[str, Any], seed: int) -> None:
    """Write ``content`` with a header that says where and how it was made, whole or not at all."""
    found = dict(versions())  # a copy: it is cached
    hardware = found.pop("hardware", "unknown")
    header = {"seed": seed, "versions": found, "hardware": hardware, "command": " ".join(sys.argv)}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"header": header, **content}, indent=1) + "\n")
