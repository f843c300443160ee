"""The system matrix of a 2-D geometry, made once: shared in memory and kept on disk."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from disinr_monai.operators.matrix_cache import cache_key, load_or_build
from disinr_monai.operators.ray_geometry import RayGeometry
from disinr_monai.operators.ray_matrix import ray_matrix
from disinr_monai.sparse import SparseMatrix

# Part of the key of stored matrices: raise it when the same geometry gives another matrix.
_MATRIX_VERSION = 2
_MAX_PARTS = 64


@functools.lru_cache(maxsize=4)
def _kept(geometry: RayGeometry, cache_dir: str | None) -> tuple[SparseMatrix, dict[tuple[int, ...], SparseMatrix]]:
    """Matrix and its parts: parts are forgotten with the whole, so that scans of many geometries do not pile up."""
    key = cache_key(kind=type(geometry).__name__, version=_MATRIX_VERSION, **dataclasses.asdict(geometry))
    return SparseMatrix(load_or_build(key, lambda: build_matrix(geometry), cache_dir)), {}


def shared_matrix(geometry: RayGeometry, cache_dir: str | None) -> SparseMatrix:
    """Matrix ``(n_views * n_detectors, H * W)`` of lengths in mm."""
    return _kept(geometry, cache_dir)[0]


def forget_matrices() -> None:
    """Drop what is kept in memory."""
    _kept.cache_clear()


def build_matrix(geometry: RayGeometry):
    """Trace all rays of a geometry."""
    points, directions = geometry.rays()
    return ray_matrix(geometry.image_shape, geometry.pixel_spacing, points, directions, geometry.n_subrays)


def part_of_matrix(geometry: RayGeometry, cache_dir: str | None, views: tuple[int, ...]) -> SparseMatrix:
    """Rows of some views."""
    matrix, parts = _kept(geometry, cache_dir)
    if views not in parts:
        if len(parts) >= _MAX_PARTS:
            parts.pop(next(iter(parts)))
        rows = (np.asarray(views)[:, None] * geometry.n_detectors + np.arange(geometry.n_detectors)).ravel()
        parts[views] = matrix.rows(rows)
    return parts[views]
