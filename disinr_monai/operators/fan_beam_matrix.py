"""The system matrix of a fan-beam geometry, made once: shared in memory and kept on disk."""

from __future__ import annotations

import functools

import numpy as np

from disinr_monai.operators.matrix_cache import cache_key, load_or_build
from disinr_monai.operators.ray_matrix import fan_beam_matrix
from disinr_monai.sparse import SparseMatrix

# Part of the key of stored matrices: raise it when the same geometry gives another matrix.
_MATRIX_VERSION = 1


@functools.lru_cache(maxsize=4)
def shared_matrix(
    image_shape: tuple[int, int],
    pixel_spacing: float,
    angles: tuple[float, ...],
    n_detectors: int,
    detector_spacing: float,
    source_distance: float,
    detector_distance: float,
    n_subrays: int,
    cache_dir: str | None,
) -> SparseMatrix:
    """Matrix ``(n_views * n_detectors, H * W)``; for the arguments see :class:`~disinr_monai.operators.FanBeam`."""
    geometry = {
        "image_shape": image_shape,
        "pixel_spacing": pixel_spacing,
        "angles": angles,
        "n_detectors": n_detectors,
        "detector_spacing": detector_spacing,
        "source_distance": source_distance,
        "detector_distance": detector_distance,
        "n_subrays": n_subrays,
    }
    key = cache_key(kind="fan_beam", version=_MATRIX_VERSION, **geometry)
    geometry["angles"] = np.asarray(angles)
    return SparseMatrix(load_or_build(key, lambda: fan_beam_matrix(**geometry), cache_dir))


@functools.lru_cache(maxsize=64)
def part_of_matrix(geometry: tuple, views: tuple[int, ...]) -> SparseMatrix:
    """Rows of some views; ``geometry`` holds the arguments of :func:`shared_matrix`."""
    n_detectors = geometry[3]
    rows = (np.asarray(views)[:, None] * n_detectors + np.arange(n_detectors)).ravel()
    return shared_matrix(*geometry).rows(rows)
