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


@functools.lru_cache(maxsize=4)
def shared_matrix(geometry: RayGeometry, cache_dir: str | None) -> SparseMatrix:
    """Matrix ``(n_views * n_detectors, H * W)`` of lengths in mm."""
    key = cache_key(kind=type(geometry).__name__, version=_MATRIX_VERSION, **dataclasses.asdict(geometry))
    return SparseMatrix(load_or_build(key, lambda: build_matrix(geometry), cache_dir))


def build_matrix(geometry: RayGeometry):
    """Trace all rays of a geometry."""
    points, directions = geometry.rays()
    return ray_matrix(geometry.image_shape, geometry.pixel_spacing, points, directions, geometry.n_subrays)


@functools.lru_cache(maxsize=64)
def part_of_matrix(geometry: RayGeometry, cache_dir: str | None, views: tuple[int, ...]) -> SparseMatrix:
    """Rows of some views."""
    n_detectors = geometry.n_detectors
    rows = (np.asarray(views)[:, None] * n_detectors + np.arange(n_detectors)).ravel()
    return shared_matrix(geometry, cache_dir).rows(rows)
