from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from disinr_monai.methods.cg_sense import ConjugateGradient
from disinr_monai.operators import NonCartesianFourier, fft2c
from disinr_monai.operators.calibration import dense_radius, density_compensation

_LARGEST = 32
_MARGIN = 16


def grid_centre(kspace: NDArray, trajectory: NDArray, shape: tuple[int, int]) -> tuple[NDArray[np.complex64], int]:
    """Cartesian calibration samples from the densely sampled centre of a non-Cartesian scan.

    Each coil's image is fitted at low resolution (least squares by conjugate gradients, on a somewhat larger part of
    k-space, because a sample at the edge also depends on what lies beyond) and transformed back.

    Args:
        kspace: complex ``(n_coils, n_readouts, n_samples)``.
        trajectory: ``(n_readouts, n_samples, 2)``, cycles per field of view.
        shape: ``(H, W)`` of the scan.

    Returns:
        complex64 ``(n_coils, H, W)``, zero outside the calibration square, and the side of that.
    """
    # The corners of the square lie beyond the dense disc, but the object does not fill the field of view.
    size = min(2 * dense_radius(trajectory), _LARGEST, *shape)
    n = min(size + _MARGIN, *(m - m % 2 for m in shape))
    inside = np.abs(trajectory).max(-1) < n / 2
    positions = trajectory[inside][None]
    operator = NonCartesianFourier(
        torch.ones((1, n, n), dtype=torch.complex64), positions, density_compensation(positions)
    )
    samples = torch.from_numpy(np.ascontiguousarray(kspace[:, inside][:, None, None]))
    # All coils at once: one system whose blocks are the coils.
    images = ConjugateGradient(n_iterations=20).solve(operator, operator.precondition(samples), None)
    low = fft2c(torch.complex(images[:, 0], images[:, 1])).numpy()
    grid = np.zeros((len(kspace), *shape), np.complex64)
    source = slice(n // 2 - size // 2, n // 2 - size // 2 + size)
    rows, columns = (slice(m // 2 - size // 2, m // 2 - size // 2 + size) for m in shape)
    grid[:, rows, columns] = low[:, source, source]
    return grid, size
