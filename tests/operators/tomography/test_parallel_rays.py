from __future__ import annotations

import numpy as np

from disinr_monai.operators.tomography.geometry import fan_rays, parallel_rays
from disinr_monai.operators.tomography.projector import ray_matrix


def test_disc_chords():
    """Line integrals of a disc off centre, on a detector that is shifted, are its chord lengths."""
    angles = np.arange(40) * (np.pi / 40)
    points, directions = parallel_rays(angles, n_bins=90, bin_spacing=1.1, offset=3.0, n_subrays=2)
    x = (np.arange(300) - 149.5) / 3
    disc = (x[None] - 10) ** 2 + (-x[:, None] - 7) ** 2 < 20**2  # columns along +x, rows along -y: centre (10, 7)
    sinogram = (ray_matrix((300, 300), 1 / 3, points, directions, 2) @ disc.ravel().astype(float)).reshape(40, 90)
    u = (np.arange(90) - 44.5) * 1.1 + 3
    distance = u[None] - (10 * np.cos(angles) + 7 * np.sin(angles))[:, None]
    chords = 2 * np.sqrt(np.maximum(20**2 - distance**2, 0))
    assert np.abs(sinogram - chords)[np.abs(distance) < 18].max() < 0.7
    assert np.abs(sinogram - chords).mean() < 0.08
    assert sinogram[np.abs(distance) > 21.5].max() == 0


def test_known_directions():
    """At 0 the rays run along columns, bins from left to right; at 90 degrees along rows, bins from bottom to top."""
    points, directions = parallel_rays(np.array([0, np.pi / 2]), n_bins=3, bin_spacing=2.0)
    image = np.arange(9.0).reshape(3, 3)
    sums = (ray_matrix((3, 3), 2.0, points, directions) @ image.ravel()).reshape(2, 3)
    np.testing.assert_allclose(sums[0], 2 * image.sum(0), rtol=1e-6)
    np.testing.assert_allclose(sums[1], 2 * image.sum(1)[::-1], rtol=1e-6)


def test_a_far_fan_is_parallel():
    angles = np.array([0.1, 0.8, 2.5, 4.0])
    fan = ray_matrix((20, 24), 1.0, *fan_rays(angles, 15, 1.5, 1e7, 0.0, 2), 2)
    points, directions = parallel_rays(angles, 15, 1.5, n_subrays=2)
    assert abs(fan - ray_matrix((20, 24), 1.0, points, directions, 2)).max() < 1e-3
