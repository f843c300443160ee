"""Non-Cartesian trajectories of simulated scans, in cycles per field of view."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2


def radial_trajectory(
    shape: tuple[int, int], n_spokes: int, start: float = 0.0, oversampling: int = 2
) -> NDArray[np.float64]:
    """Spokes through the centre, each the golden angle (111.25 degrees) further than the last.

    (Winkelmann et al., IEEE Trans. Med. Imaging 26:68, 2007.) Every number of spokes is spread nearly evenly.

    Args:
        shape: ``(H, W)`` of the image; spokes end where its k-space does.
        n_spokes: number of spokes.
        start: angle of the first spoke, radians.
        oversampling: samples per cell along a spoke.

    Returns:
        ``(n_spokes, oversampling * max(H, W), 2)``: positions along rows and columns.
    """
    n_samples = oversampling * max(shape)
    angles = start + _GOLDEN_ANGLE * np.arange(n_spokes)
    directions = np.stack((np.sin(angles) * shape[0], np.cos(angles) * shape[1]), axis=-1)
    return directions[:, None] * ((np.arange(n_samples) - n_samples // 2) / n_samples)[:, None]


def n_radial_spokes(shape: tuple[int, int], acceleration: float) -> int:
    r"""Spokes of a radial scan: :math:`π/2 · \max(H, W)` sample the edge of k-space fully, divided by the factor."""
    return max(round(math.pi / 2 * max(shape) / acceleration), 1)
