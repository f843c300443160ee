"""Tables of results: metrics.csv, the JSON files of demo and benchmarks, and their summary."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.runtime.files import atomic_path
from disinr_monai.runtime.versions import versions

_NUMBERS = ("psnr", "ssim", "nrmse", "seconds", "iterations", "peak_memory_mb", "fallback", "residual")
COLUMNS = ("case", "subject", "method", *_NUMBERS, "measurement", "warnings")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a ``metrics.csv``, numbers as numbers; empty values are left out."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) if k in _NUMBERS else v for k, v in row.items() if v != ""} for row in rows]


def write_json(path: str | Path, content: dict[str, Any], seed: int) -> None:
    """Write ``content`` as JSON after a header with seed, versions, hardware and command, atomically."""
    found = dict(versions())  # a copy: it is cached
    hardware = found.pop("hardware", "unknown")
    header = {"seed": seed, "versions": found, "hardware": hardware, "command": " ".join(sys.argv)}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"header": header, **content}, indent=1) + "\n")


def write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV with the columns of :data:`COLUMNS`; a value that does not exist stays empty."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over *subjects* (slices of a subject are averaged first), by method."""
    result: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        summary: dict[str, float] = {"n_subjects": len({row["subject"] for row in mine})}
        for key in ("psnr", "ssim", "nrmse", "seconds", "iterations"):
            by_subject: dict[str, list[float]] = {}
            for row in mine:
                if key in row:
                    by_subject.setdefault(row["subject"], []).append(row[key])
            if by_subject:
                means = [float(np.mean(values)) for values in by_subject.values()]
                summary |= {key: float(np.mean(means)), f"{key}_std": float(np.std(means))}
        result[method] = summary
    return result


def summary_table(rows: list[dict[str, Any]]) -> str:
    """Format the summary as aligned text."""
    lines = [f"{'method':<14}{'subjects':>9}{'PSNR dB':>16}{'SSIM':>16}{'seconds':>10}"]
    for method, s in summarise(rows).items():
        psnr = f"{s['psnr']:.2f} ± {s['psnr_std']:.2f}" if "psnr" in s else "-"
        ssim = f"{s['ssim']:.4f} ± {s['ssim_std']:.4f}" if "ssim" in s else "-"
        lines.append(f"{method:<14}{s['n_subjects']:>9.0f}{psnr:>16}{ssim:>16}{s['seconds']:>10.2f}")
    return "\n".join(lines)
