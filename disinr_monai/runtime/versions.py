from __future__ import annotations

import functools
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import disinr_monai

_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "scipy", "nibabel", "mlflow", "sigpy")


@functools.cache
def versions() -> dict[str, str]:
    """Environment of a result: package versions, git commit, Python, hardware."""
    found = {"disinr_monai": disinr_monai.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["git_commit"] = _git_commit()
    found["hardware"] = hardware()
    return found


def _git_commit() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "not a checkout"
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def hardware() -> str:
    """Processor, number of threads and GPU in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:(.*)", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    name = model[1].strip() if model else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}"
