from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

LARGEST_IMAGE = 8192  # pixels along one axis


def resample_slice(
    image: NDArray, affine: NDArray, size: int, fill: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Bring a slice onto a ``size`` x ``size`` grid of square voxels: same aspect, centred, padded with ``fill``.

    The longer side (in mm) fills the grid. Values are interpolated linearly, after a Gaussian that suppresses what the
    new grid cannot hold. A slice that already has the right size and square voxels comes back untouched.

    Args:
        image: ``(H, W)``.
        affine: 4x4, RAS mm; its first two columns belong to the two array axes.
        size: voxels along both sides.
        fill: value outside the slice.

    Returns:
        float32 ``(size, size)``, and its affine.
    """
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    lengths = np.asarray(image.shape) * spacing
    new_spacing = lengths.max() / size
    step = new_spacing / spacing
    if image.shape == (size, size) and np.allclose(step, 1, rtol=1e-4):
        return np.ascontiguousarray(image, dtype=np.float32), affine.astype(float)
    # Old index of new voxel i: the centres of the two grids coincide.
    start = (np.asarray(image.shape) - 1) / 2 - (size - 1) / 2 * step
    smooth = gaussian_filter(
        image.astype(np.float32), sigma=[0.4 * np.sqrt(max(s**2 - 1, 0)) for s in step], mode="nearest"
    )
    coordinates = np.meshgrid(*(start[a] + step[a] * np.arange(size) for a in (0, 1)), indexing="ij")
    result = map_coordinates(smooth, coordinates, order=1, mode="nearest")
    outside = np.zeros((size, size), dtype=bool)
    for axis, grid in enumerate(coordinates):
        outside |= (grid < -0.5) | (grid > image.shape[axis] - 0.5)
    result[outside] = fill
    new_affine = affine.astype(float).copy()
    new_affine[:3, :2] = affine[:3, :2] * step
    new_affine[:3, 3] = affine[:3, 3] + affine[:3, :2] @ start
    return result.astype(np.float32), new_affine


def pad_to_square(image: NDArray, affine: NDArray, fill: float) -> tuple[NDArray, NDArray[np.float64]]:
    """Pad the shorter side evenly with ``fill``; the affine follows.

    Args:
        image: ``(H, W)``.
        affine: 4x4, RAS mm.
        fill: value outside the slice.
    """
    size = max(image.shape)
    before = [(size - n) // 2 for n in image.shape]
    padded = np.pad(image, [(b, size - n - b) for b, n in zip(before, image.shape, strict=True)], constant_values=fill)
    new_affine = affine.astype(float).copy()
    new_affine[:3, 3] -= affine[:3, :2] @ np.asarray(before, dtype=float)
    return padded, new_affine


def block_average(image: NDArray, affine: NDArray, factor: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Mean of ``factor`` x ``factor`` blocks; the affine follows.

    Args:
        image: ``(H, W)``, both multiples of ``factor``.
        affine: 4x4, RAS mm.
        factor: block side.
    """
    height, width = (n // factor for n in image.shape)
    mean = image.reshape(height, factor, width, factor).mean(axis=(1, 3), dtype=np.float64)
    new_affine = affine.astype(float).copy()
    new_affine[:3, :2] = affine[:3, :2] * factor
    new_affine[:3, 3] = affine[:3, 3] + affine[:3, :2] @ np.full(2, (factor - 1) / 2)
    return mean.astype(np.float32), new_affine


def resample_volume(
    image: NDArray, affine: NDArray, shape: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Bring a volume onto a grid of ``shape`` voxels over the same field of view.

    Values are interpolated linearly, after a Gaussian that suppresses what the new grid cannot hold.

    Args:
        image: ``(X, Y, Z)``.
        affine: 4x4, RAS mm.
        shape: new number of voxels along each axis.

    Returns:
        float32 image of that shape, and its affine.
    """
    step = np.asarray(image.shape) / np.asarray(shape)
    start = (np.asarray(image.shape) - 1) / 2 - (np.asarray(shape) - 1) / 2 * step
    sigma = [0.4 * np.sqrt(max(s**2 - 1, 0)) for s in step]
    smooth = gaussian_filter(image.astype(np.float32), sigma=sigma, mode="nearest")
    result = affine_transform(smooth, step, offset=start, output_shape=tuple(shape), order=1, mode="nearest")
    new_affine = affine.astype(float).copy()
    new_affine[:3, :3] = affine[:3, :3] * step
    new_affine[:3, 3] = affine[:3, 3] + affine[:3, :3] @ start
    return result.astype(np.float32), new_affine
