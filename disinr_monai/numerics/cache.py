"""Sparse matrices on disk, so that a geometry is traced once per machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse

_MAX_BYTES = 2 * 1024**3


def default_cache_dir() -> Path:
    """``$DISINR_CACHE``, or ``~/.cache/disinr_monai``."""
    return Path(os.environ.get("DISINR_CACHE") or Path("~/.cache/disinr_monai")).expanduser()


def cache_key(**parameters: object) -> str:
    """Hash of JSON-ready parameters (floats keep all their digits)."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def load_or_build(
    key: str, build: Callable[[], scipy.sparse.csr_matrix], cache_dir: str | Path | None = None
) -> scipy.sparse.csr_matrix:
    """Matrix of ``key`` from ``cache_dir``, or built and stored there.

    A file that is damaged or not ours is rebuilt, a folder that cannot be written means no cache: neither is an error.
    The oldest files go when the folder holds more than 2 GiB.
    """
    try:
        path = (Path(cache_dir) if cache_dir is not None else default_cache_dir()) / f"{key}.npz"
    except RuntimeError:  # No home folder.
        return build()
    matrix = _load(path, key)
    if matrix is None:
        matrix = build()
        _store(path, key, matrix)
    return matrix


def _load(path: Path, key: str) -> scipy.sparse.csr_matrix | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            parts = (file["data"], file["indices"], file["indptr"])
            matrix = scipy.sparse.csr_matrix(parts, shape=tuple(file["shape"]), copy=False)
        matrix.check_format(full_check=True)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    with contextlib.suppress(OSError):
        path.touch()  # Most recently used: pruned last.
    return matrix


def _store(path: Path, key: str, matrix: scipy.sparse.csr_matrix) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside the target and renamed, so that a reader never sees half a file.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, key=key, data=matrix.data, indices=matrix.indices, indptr=matrix.indptr, shape=matrix.shape)
        temporary.replace(path)
        prune(path.parent)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def prune(folder: Path) -> None:
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > _MAX_BYTES and file != files[0]:
            file.unlink(missing_ok=True)
