"""Disk cache of results that take long to compute."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_MAX_BYTES = 2 * 1024**3
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)

Value = TypeVar("Value")


def default_cache_dir() -> Path:
    """``$DISINR_CACHE``, or ``~/.cache/disinr_monai``.

    Raises:
        RuntimeError: there is no home folder.
    """
    return Path(os.environ.get("DISINR_CACHE") or "~/.cache/disinr_monai").expanduser()


def cache_key(**parameters: object) -> str:
    """Hash of JSON-ready parameters (floats keep all their digits)."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class DiskCache(Generic[Value]):
    """Disk cache of values of one kind, stored as arrays under the hash of their parameters.

    A file that is damaged or foreign is replaced, and without a writable folder values are computed again: neither is
    an error. The least recently used files go when the folder holds more than 2 GiB.

    Args:
        name: folder below :func:`default_cache_dir`; empty for that folder itself.
        pack: value to arrays by name.
        unpack: arrays to value; raises ValueError, KeyError or TypeError where they make none.
    """

    name: str
    pack: Callable[[Value], Mapping[str, NDArray]]
    unpack: Callable[[Mapping[str, NDArray]], Value]

    def get(self, key: str, build: Callable[[], Value], cache_dir: str | Path | None = None) -> Value:
        """Read the value of ``key`` from the folder (``cache_dir`` or the default), or build and store it."""
        try:
            path = (Path(cache_dir) if cache_dir is not None else default_cache_dir() / self.name) / f"{key}.npz"
        except RuntimeError:
            return build()
        value = self._load(path, key)
        if value is None:
            value = build()
            _store(path, {"key": np.asarray(key), **self.pack(value)})
        return value

    def _load(self, path: Path, key: str) -> Value | None:
        try:
            with np.load(path, allow_pickle=False) as file:
                value = self.unpack(file) if str(file["key"]) == key else None
        except _UNUSABLE:
            return None
        with contextlib.suppress(OSError):
            path.touch()  # most recently used: pruned last
        return value


def _store(path: Path, arrays: Mapping[str, NDArray]) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside the target and renamed, so that a reader never sees half a file.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, **arrays)
        temporary.replace(path)
        _prune(path.parent)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _prune(folder: Path) -> None:
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > _MAX_BYTES and file != files[0]:
            file.unlink(missing_ok=True)
