from __future__ import annotations

import numpy as np
import pytest
import torch

from disinr_monai.operators import PETProjection

ANGLES = np.arange(60) * (np.pi / 60)


def disc_chords(angles: np.ndarray, n_bins: int, spacing: float, x: float, y: float, radius: float) -> torch.Tensor:
    """Chord lengths of a disc, averaged over each bin: the exact sinogram of it."""
    u = (np.arange(20 * n_bins) - (20 * n_bins - 1) / 2) * spacing / 20
    distance = u[None] - (x * np.cos(angles) + y * np.sin(angles))[:, None]
    chords = 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    return torch.from_numpy(chords.reshape(len(angles), n_bins, 20).mean(-1)).float()[None]


def disc(size: int, spacing: float, x: float, y: float, radius: float) -> torch.Tensor:
    """Area of each pixel inside the disc; columns along +x, rows along -y."""
    fine = (np.arange(8 * size) - (8 * size - 1) / 2) * spacing / 8
    inside = ((fine[None] - x) ** 2 + (-fine[:, None] - y) ** 2 < radius**2).astype(np.float32)
    return torch.from_numpy(inside.reshape(size, 8, size, 8).mean((1, 3)))[None]


def test_disc_chords_times_the_sensitivity():
    sensitivity = torch.rand((60, 64), generator=torch.Generator().manual_seed(0)) + 0.5
    operator = PETProjection(
        image_shape=(96, 96), pixel_spacing=1.0, angles=ANGLES, n_bins=64, bin_spacing=1.5, sensitivity=sensitivity
    )
    exact = sensitivity * disc_chords(ANGLES, 64, 1.5, 12.0, 7.0, 22.0)
    error = operator(disc(96, 1.0, 12.0, 7.0, 22.0)) - exact
    assert float(error.abs().mean()) < 0.01 * float(exact.mean())
    assert float(error.abs().max()) < 0.06 * float(exact.max())


def test_filtered_back_projection_of_exact_data_finds_the_disc():
    factors = torch.exp(-disc_chords(ANGLES, 64, 1.5, 0.0, 0.0, 40.0) / 40)[0]
    operator = PETProjection(
        image_shape=(96, 96), pixel_spacing=1.0, angles=ANGLES, n_bins=64, bin_spacing=1.5, sensitivity=factors
    )
    image = operator.direct_inverse(factors * disc_chords(ANGLES, 64, 1.5, 12.0, 7.0, 22.0))
    inside, outside = disc(96, 1.0, 12.0, 7.0, 18.0) == 1, disc(96, 1.0, 12.0, 7.0, 26.0) == 0
    assert float(image[inside].mean()) == pytest.approx(1, abs=0.02)
    assert float(image[outside].abs().mean()) < 0.02


def test_blur_has_the_width_asked_for_and_keeps_the_counts():
    operator = PETProjection(
        image_shape=(41, 41), pixel_spacing=1.0, angles=[0.0], n_bins=41, bin_spacing=1.0, fwhm=6.0
    )
    point = torch.zeros(1, 41, 41)
    point[0, 20, 20] = 1
    profile = operator(point)[0, 0]
    position = torch.arange(41) - 20.0
    assert float(profile.sum()) == pytest.approx(1, abs=1e-4)
    deviation = float((profile * position**2).sum().sqrt())
    assert deviation == pytest.approx((2.548**2 + 1 / 12) ** 0.5, rel=0.01)  # a pixel has a width of its own


def test_subsets_are_the_views_of_the_whole():
    operator = PETProjection(
        image_shape=(9, 8),
        pixel_spacing=1.0,
        angles=ANGLES,
        n_bins=12,
        bin_spacing=1.0,
        sensitivity=torch.rand((60, 12), generator=torch.Generator().manual_seed(0)),
    )
    image = torch.rand((1, 9, 8), generator=torch.Generator().manual_seed(1))
    parts = operator.partition.subsets(6)
    assert len(parts) == 10
    for part, select in parts:
        torch.testing.assert_close(part(image), select(operator(image)))
    back = sum(part.adjoint(select(operator(image))) for part, select in parts)
    torch.testing.assert_close(back, operator.gram(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bin_spacing": 0.0}, "bin_spacing"),
        ({"n_bins": 0}, "n_bins"),
        ({"angles": []}, "angles"),
        ({"fwhm": -1.0}, "fwhm"),
        ({"sensitivity": torch.zeros(2, 5)}, "sensitivity"),
        ({"sensitivity": torch.ones(5, 2)}, "sensitivity"),
    ],
)
def test_impossible_geometry_is_named(change, message):
    geometry = {"image_shape": (4, 4), "pixel_spacing": 1.0, "angles": [0.0, 1.0], "n_bins": 5, "bin_spacing": 1.0}
    with pytest.raises(ValueError, match=message):
        PETProjection(**{**geometry, **change})
