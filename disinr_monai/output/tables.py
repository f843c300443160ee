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

_INSIDE = ("psnr_body", "ssim_body", "psnr_soft", "ssim_soft", "unsampled_error")
_OF_REFERENCE = ("unsampled_noise", "reference_noise", "reference_ceiling")
_NUMBERS = ("psnr", "ssim", "nrmse", "seconds", "iterations", "peak_memory_mb", "classical_share", "residual")
_NUMBERS += _INSIDE + _OF_REFERENCE
COLUMNS = ("case", "subject", "method", *_NUMBERS, "reference", "measurement", "warnings")


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
        for key in ("psnr", "ssim", "nrmse", *_INSIDE, "seconds", "iterations"):
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
    """Format the summary as aligned text, with the reference of raw scans below it."""
    lines = [f"{'method':<14}{'subjects':>9}{'PSNR dB':>16}{'in the body':>16}{'SSIM':>16}{'seconds':>10}"]
    for method, s in summarise(rows).items():
        psnr, body = (f"{s[k]:.2f} ± {s[f'{k}_std']:.2f}" if k in s else "-" for k in ("psnr", "psnr_body"))
        ssim = f"{s['ssim']:.4f} ± {s['ssim_std']:.4f}" if "ssim" in s else "-"
        lines.append(f"{method:<14}{s['n_subjects']:>9.0f}{psnr:>16}{body:>16}{ssim:>16}{s['seconds']:>10.2f}")
    return "\n".join(lines + reference_lines(rows))


def reference_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Say what raw scans are compared with and how good that is: one line for each kind of reference."""
    lines = []
    for kind in dict.fromkeys(row["reference"] for row in rows if "reference" in row):
        mine = {row["case"]: row for row in rows if row.get("reference") == kind}.values()
        limits = [row["reference_ceiling"] for row in mine if "reference_ceiling" in row]
        text = f"; its own noise limits PSNR to about {np.mean(limits):.1f} dB" if limits else "; its noise is unknown"
        lines.append(f"reference of {len(mine)} raw scan{'s' * (len(mine) > 1)}: {kind}{text}")
    return lines
