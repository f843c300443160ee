"""Disk cache of results that take long to compute.

System matrices, coil maps and inputs of the prior; the last two are data of patients (docs/privacy.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import at_least

DEFAULT_BYTES = 2 * 1024**3
_OWN = re.compile(r"[0-9a-f]{64}\.npz|mlflow-[\w.+-]+\.db|tmp\w{8}\.part")
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)

Value = TypeVar("Value")


@dataclass
class _Settings:
    folder: Path | None = None
    max_bytes: int = DEFAULT_BYTES


_SETTINGS = _Settings()


def use_cache(cache_dir: str | Path | None = None, max_bytes: int = DEFAULT_BYTES) -> None:
    """Set the folder of this process's caches and a bound on their size.

    Args:
        cache_dir: None for ``$DISINR_CACHE`` or ``~/.cache/disinr_monai``.
        max_bytes: of all files together; where they are more, the least recently used go. 0 stores nothing.

    Raises:
        InputError: no whole number of bytes.
    """
    at_least("cache_bytes", max_bytes, 0, whole=True)
    _SETTINGS.folder, _SETTINGS.max_bytes = None if cache_dir is None else Path(cache_dir).expanduser(), int(max_bytes)


def default_cache_dir() -> Path:
    """The folder given to :func:`use_cache`, else ``$DISINR_CACHE``, or ``~/.cache/disinr_monai``.

    Raises:
        RuntimeError: there is no home folder.
    """
    if _SETTINGS.folder is not None:
        return _SETTINGS.folder
    return Path(os.environ.get("DISINR_CACHE") or "~/.cache/disinr_monai").expanduser()


def cache_key(**parameters: object) -> str:
    """Hash of JSON-ready parameters (floats keep all their digits)."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class DiskCache(Generic[Value]):
    """Disk cache of values of one kind, stored as arrays under the hash of their parameters.

    A file that is damaged or foreign is replaced, and without a writable folder values are computed again: neither is
    an error. The least recently used files go when all caches hold more than :func:`use_cache` allows (2 GiB).

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
            root = default_cache_dir() if cache_dir is None else Path(cache_dir)
        except RuntimeError:
            return build()
        path = root / (self.name if cache_dir is None else "") / f"{key}.npz"
        value = self._load(path, key)
        if value is None:
            value = build()
            if _SETTINGS.max_bytes > 0:
                _store(root, path, {"key": np.asarray(key), **self.pack(value)})
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


def _store(root: Path, path: Path, arrays: Mapping[str, NDArray]) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside the target and renamed, so that a reader never sees half a file.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, **arrays)
        temporary.replace(path)
        _prune(root, path)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cache_files(folder: Path) -> dict[Path, tuple[int, float]]:
    """The files of the caches in a folder, with bytes and time of the last use; what else lies there is not ours."""
    found = {}
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process removes its own
            if _OWN.fullmatch(file.name) and file.is_file() and not file.is_symlink():
                facts = file.stat()
                found[file] = (facts.st_size, facts.st_mtime)
    return found


def clear_cache(folder: Path) -> tuple[int, int]:
    """Remove the files of the caches in a folder, and the folders that are empty then; their number and bytes."""
    files = cache_files(folder)
    for file in files:
        file.unlink(missing_ok=True)
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            below.rmdir()
    return len(files), sum(size for size, _ in files.values())


def _prune(root: Path, newest: Path) -> None:
    """Remove the least recently used files beyond the bound, whatever cache they are of; the newest stays."""
    files = sorted(cache_files(root).items(), key=lambda item: item[1][1], reverse=True)
    total = 0
    for file, (size, _) in files:
        total += size
        if total > _SETTINGS.max_bytes and file != newest:
            file.unlink(missing_ok=True)
