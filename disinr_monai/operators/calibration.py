"""Which part of k-space around the centre was sampled densely enough to calibrate coils and phase."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disinr_monai.operators.nufft import gridding_matrix

# Grid cells per cell of k-space, and variance there of a Gaussian which, convolved with itself, has a standard
# deviation of 0.4 cells.
_FINER = 3
_VARIANCE = (0.4 * _FINER) ** 2 / 2


def acs_size(mask: NDArray) -> tuple[int, ...]:
    """Size of the fully sampled region in the middle of a sampling mask, one number per axis of ``mask``.

    The region is the block ``[n // 2 - size // 2, n // 2 - size // 2 + size)`` along every axis, which is what
    calibration software cuts out. In 2-D it is the block with the longest shorter side (then the largest area), because
    the shorter side limits the calibration. All zeros if the centre itself is not sampled.

    Args:
        mask: real or boolean, ``(W,)`` or ``(H, W)``; non-zero is sampled.

    Raises:
        ValueError: ``mask`` has another rank.
    """
    sampled = np.asarray(mask) != 0
    if sampled.ndim == 1:
        return (_centred_run(sampled),)
    if sampled.ndim != 2:
        raise ValueError(f"acs_size: mask must have shape (W,) or (H, W), found {sampled.shape}")
    height, centre = sampled.shape[0], sampled.shape[0] // 2
    best = (0, 0)
    for rows in range(1, height + 1):
        start = centre - rows // 2
        columns = _centred_run(sampled[start : start + rows].all(axis=0))
        if columns == 0:
            break
        best = max(best, (rows, columns), key=lambda block: (min(block), block[0] * block[1]))
    return best


def _centred_run(line: NDArray[np.bool_]) -> int:
    centre, size = len(line) // 2, 0
    while size < len(line) and line[centre - (size + 1) // 2] and line[centre - (size + 1) // 2 + size]:
        size += 1
    return size


def middle(n: int, size: int) -> slice:
    """The ``size`` samples in the middle of an axis of ``n`` (zero frequency at ``n // 2``)."""
    return slice(n // 2 - size // 2, n // 2 - size // 2 + size)


def dense_radius(trajectory: NDArray) -> int:
    """Largest radius up to which a trajectory leaves hardly a cell of k-space out (at most a tenth of a ring).

    Args:
        trajectory: ``(..., 2)``, cycles per field of view.
    """
    cells = np.rint(np.asarray(trajectory).reshape(-1, 2)).astype(int)
    limit = int(np.abs(cells).max()) if len(cells) else 0
    hit = np.zeros((2 * limit + 1, 2 * limit + 1), bool)
    hit[tuple((cells + limit).T)] = True
    y, x = np.mgrid[-limit : limit + 1, -limit : limit + 1]
    ring = np.ceil(np.hypot(y, x)).astype(int)
    for radius in range(limit + 1):
        if hit[ring == radius].mean() < 0.9:
            return max(radius - 1, 0)
    return limit


def density_compensation(trajectory: NDArray, n_iterations: int = 5) -> NDArray[np.float64]:
    r"""Area of k-space for which each sample stands, in cells (cycles per field of view, squared).

    .. math:: d \leftarrow d / (K d), \qquad K_{ij} = G(k_i - k_j)

    (Pipe and Menon, Magn. Reson. Med. 41:179, 1999) with a Gaussian :math:`G` of integral 1 and height 1 (standard
    deviation 0.4 cells): a sample far from others counts for one cell, not for the gap around it, so that undersampled
    parts of k-space stay as faint as in a zero-filled Cartesian scan, and noise there is not amplified.

    Args:
        trajectory: ``(..., 2)``, cycles per field of view.
        n_iterations: iterations.

    Returns:
        Areas of the shape of ``trajectory`` without its last axis.
    """
    trajectory = np.asarray(trajectory, dtype=np.float64)
    # K = S S^T: from the samples to a finer grid and back, each time with a Gaussian of half the variance.
    positions = _FINER * trajectory.reshape(-1, 2)
    low = np.floor(positions.min(0)) - 5
    grid = tuple(int(n) for n in np.ceil(positions.max(0)) + 6 - low)
    matrix = gridding_matrix(positions - low, grid, 8, lambda u: np.exp(-(u**2) / (2 * _VARIANCE)))
    height = 1 / (2 * np.pi * 0.4**2) / (np.pi * _VARIANCE)
    area = np.ones(len(positions))
    for _ in range(n_iterations):
        area /= height * (matrix @ (matrix.T @ area))
    return area.reshape(trajectory.shape[:-1])
