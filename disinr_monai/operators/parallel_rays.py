"""The rays of a parallel-beam scan, as :func:`disinr_monai.operators.ray_matrix.ray_matrix` takes them."""

from __future__ import annotations

import numpy as np


def parallel_rays(
    angles: np.ndarray, n_bins: int, bin_spacing: float, offset: float = 0.0, n_subrays: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    r"""A point and a direction for each ray, in mm, as :math:`(x, y)`.

    .. math::
        P_k = u_k (\cos θ, \sin θ), \qquad d = (-\sin θ, \cos θ), \qquad
        u_k = \Delta \left(k - \tfrac{n - 1}{2}\right) + o

    with each bin split evenly into ``n_subrays`` points. This is ASTRA's ``parallel``: at :math:`θ = 0` the rays run
    along the columns of the image and bins count along its rows, from left to right.

    Args:
        angles: radians, ``(n_views,)``.
        n_bins: bins of a view.
        bin_spacing: :math:`Δ`, mm.
        offset: :math:`o`, position of the middle of the bins along their axis, mm; 0 is the centre of rotation.
        n_subrays: rays of a bin.

    Returns:
        points ``(n_views, n_bins * n_subrays, 2)`` and directions of unit length, of the same shape, not to be written
        to; sub-rays of one bin are neighbours.
    """
    angles = np.asarray(angles, dtype=np.float64)
    sine, cosine = np.sin(angles), np.cos(angles)
    n_points = n_bins * n_subrays
    u = (np.arange(n_points) - (n_points - 1) / 2) * (bin_spacing / n_subrays) + offset
    points = u[None, :, None] * np.stack((cosine, sine), axis=-1)[:, None]
    directions = np.stack((-sine, cosine), axis=-1)[:, None]
    return points, np.broadcast_to(directions, points.shape)
