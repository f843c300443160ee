"""System matrix of a set of rays: exact intersection lengths of rays and pixels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import scipy.sparse

from disinr_monai.numerics.cache import DiskCache, cache_key
from disinr_monai.numerics.sparse import SparseMatrix
from disinr_monai.operators.tomography.geometry import RayGeometry

_RAYS_PER_CHUNK = 4096


def ray_matrix(
    image_shape: tuple[int, int], pixel_spacing: float, points: np.ndarray, directions: np.ndarray, n_subrays: int = 1
) -> scipy.sparse.csr_matrix:
    """Matrix ``(n_rays / n_subrays, H * W)`` of intersection lengths in mm, averaged over the sub-rays of a cell.

    The lengths are those of Siddon (Med. Phys. 12:252, 1985), found without his sorting: a ray that is steep in a row
    touches at most two pixels of that row (and likewise for columns), so each row splits at most once.

    Args:
        image_shape: ``(H, W)`` pixels, centred on the origin; columns along +x, rows along -y.
        pixel_spacing: side of a pixel in mm.
        points: a point of each ray as ``(x, y)`` in mm, broadcastable to ``directions``.
        directions: ``(..., 2)``, not zero, of any length; the rays of one cell are neighbours. Rays are lines without
            ends.
        n_subrays: rays of one cell.
    """
    height, width = image_shape
    # Pixel coordinates: column along +x, row along -y, pixel (r, c) covers [r, r + 1] x [c, c + 1].
    start = np.broadcast_to(points, directions.shape).reshape(-1, 2) / pixel_spacing
    slope = directions.reshape(-1, 2) / pixel_spacing
    points = np.stack((height / 2 - start[:, 1], width / 2 + start[:, 0]), axis=-1)
    steps = np.stack((-slope[:, 1], slope[:, 0]), axis=-1)

    rays_per_chunk = max(1, _RAYS_PER_CHUNK // n_subrays) * n_subrays
    blocks = []
    for first in range(0, len(points), rays_per_chunk):
        chunk = slice(first, first + rays_per_chunk)
        rows, columns, lengths = _intersections(points[chunk], steps[chunk], height, width)
        n_cells = len(points[chunk]) // n_subrays
        values = (lengths * (pixel_spacing / n_subrays)).astype(np.float32)
        blocks.append(scipy.sparse.csr_matrix((values, (rows // n_subrays, columns)), shape=(n_cells, height * width)))
    return scipy.sparse.vstack(blocks, format="csr")


def _intersections(
    points: np.ndarray, steps: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ray index, flat pixel index and length (in pixels) of every intersection; ``points``, ``steps`` ``(n, 2)``."""
    steep = np.abs(steps[:, 0]) >= np.abs(steps[:, 1])
    found = []
    for axis, chosen in ((0, steep), (1, ~steep)):
        rays = np.flatnonzero(chosen)
        n_lines, n_across = (height, width) if axis == 0 else (width, height)
        along, line, across, length = _march(points[rays], steps[rays], axis, n_lines, n_across)
        pixel = line * width + across if axis == 0 else across * width + line
        found.append((rays[along].astype(np.int32), pixel.astype(np.int32), length))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _march(
    points: np.ndarray, steps: np.ndarray, axis: int, n_lines: int, n_across: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split every ray at the pixel borders, line by line along ``axis``: (ray, line, position across, length)."""
    slope = (steps[:, 1 - axis] / steps[:, axis])[:, None]
    enter = points[:, 1 - axis, None] + slope * (np.arange(n_lines) - points[:, axis, None])
    low, high = np.minimum(enter, enter + slope), np.maximum(enter, enter + slope)
    first = np.floor(low)
    inside = (high > 0) & (low < n_across)
    ray, line = np.nonzero(inside)
    low, high, first = low[inside], high[inside], first[inside]
    # The part of the line's path in the first pixel; a ray parallel to the axis stays in one pixel.
    span = high - low
    share = np.ones_like(span)
    np.divide(first + 1 - low, span, out=share, where=high > first + 1)
    path = np.sqrt(1 + slope[ray, 0] ** 2)
    first = first.astype(np.int32)
    ray, line = np.concatenate((ray, ray)), np.concatenate((line, line))
    across = np.concatenate((first, first + 1))
    length = np.concatenate((path * share, path * (1 - share)))
    kept = (length > 0) & (across >= 0) & (across < n_across)
    return ray[kept], line[kept], across[kept], length[kept]


# Part of the key of stored matrices: raise it when the same geometry gives another matrix.
_MATRIX_VERSION = 2
_MAX_PARTS = 64


def _pack(matrix: scipy.sparse.csr_matrix) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(matrix, name)) for name in ("data", "indices", "indptr", "shape")}


def _unpack(arrays: Mapping[str, np.ndarray]) -> scipy.sparse.csr_matrix:
    parts = (arrays["data"], arrays["indices"], arrays["indptr"])
    matrix = scipy.sparse.csr_matrix(parts, shape=tuple(arrays["shape"]), copy=False)
    matrix.check_format(full_check=True)
    return matrix


_ON_DISK = DiskCache("", _pack, _unpack)


@functools.lru_cache(maxsize=4)
def _kept(geometry: RayGeometry, cache_dir: str | None) -> tuple[SparseMatrix, dict[tuple[int, ...], SparseMatrix]]:
    """Matrix and its parts: parts are forgotten with the whole, so that scans of many geometries do not pile up."""
    key = cache_key(kind=type(geometry).__name__, version=_MATRIX_VERSION, **dataclasses.asdict(geometry))
    return SparseMatrix(_ON_DISK.get(key, lambda: build_matrix(geometry), cache_dir)), {}


def shared_matrix(geometry: RayGeometry, cache_dir: str | None) -> SparseMatrix:
    """Matrix ``(n_views * n_detectors, H * W)`` of lengths in mm."""
    return _kept(geometry, cache_dir)[0]


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
