"""The system matrix of a parallel-beam geometry, made once: shared in memory and kept on disk."""

from __future__ import annotations

import functools

import numpy as np

from disinr_monai.operators.matrix_cache import cache_key, load_or_build
from disinr_monai.operators.parallel_rays import parallel_rays
from disinr_monai.operators.ray_matrix import ray_matrix
from disinr_monai.sparse import SparseMatrix

# Part of the key of stored matrices: raise it when the same geometry gives another matrix.
_MATRIX_VERSION = 1


@functools.lru_cache(maxsize=4)
def shared_matrix(
    image_shape: tuple[int, int],
    pixel_spacing: float,
    angles: tuple[float, ...],
    n_bins: int,
    bin_spacing: float,
    bin_offset: float,
    n_subrays: int,
    cache_dir: str | None,
) -> SparseMatrix:
    """Matrix ``(n_views * n_bins, H * W)`` of intersection lengths in mm; for the arguments see `PETProjection`."""
    rays = (angles, n_bins, bin_spacing, bin_offset, n_subrays)
    key = cache_key(
        kind="parallel_beam", version=_MATRIX_VERSION, image_shape=image_shape, pixel_spacing=pixel_spacing, rays=rays
    )

    def build():
        points, directions = parallel_rays(np.asarray(angles), *rays[1:])
        return ray_matrix(image_shape, pixel_spacing, points, directions, n_subrays)

    return SparseMatrix(load_or_build(key, build, cache_dir))


@functools.lru_cache(maxsize=64)
def part_of_matrix(geometry: tuple, views: tuple[int, ...]) -> SparseMatrix:
    """Rows of some views; ``geometry`` holds the arguments of :func:`shared_matrix`."""
    n_bins = geometry[3]
    rows = (np.asarray(views)[:, None] * n_bins + np.arange(n_bins)).ravel()
    return shared_matrix(*geometry).rows(rows)
