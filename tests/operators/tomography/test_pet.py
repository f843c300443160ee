import numpy as np
import pytest
import torch

from disinr_monai.operators import ParallelGeometry, PETProjection
from tests.operators.tomography.phantoms import disc, disc_chords

ANGLES = np.arange(60) * (np.pi / 60)


LINES = ParallelGeometry(image_shape=(96, 96), pixel_spacing=1.0, angles=ANGLES, n_detectors=64, detector_spacing=1.5)


def test_disc_chords_times_the_sensitivity():
    sensitivity = torch.rand((60, 64), generator=torch.Generator().manual_seed(0)) + 0.5
    operator = PETProjection(LINES, sensitivity=sensitivity)
    exact = sensitivity * disc_chords(ANGLES, 64, 1.5, 12.0, 7.0, 22.0)
    error = operator(disc(96, 1.0, 12.0, 7.0, 22.0)) - exact
    assert float(error.abs().mean()) < 0.01 * float(exact.mean())
    assert float(error.abs().max()) < 0.06 * float(exact.max())


def test_filtered_back_projection_of_exact_data_finds_the_disc():
    factors = torch.exp(-disc_chords(ANGLES, 64, 1.5, 0.0, 0.0, 40.0) / 40)[0]
    operator = PETProjection(LINES, sensitivity=factors)
    image = operator.direct_inverse(factors * disc_chords(ANGLES, 64, 1.5, 12.0, 7.0, 22.0))
    inside, outside = disc(96, 1.0, 12.0, 7.0, 18.0) == 1, disc(96, 1.0, 12.0, 7.0, 26.0) == 0
    assert float(image[inside].mean()) == pytest.approx(1, abs=0.02)
    assert float(image[outside].abs().mean()) < 0.02


def test_blur_has_the_width_asked_for_and_keeps_the_counts():
    operator = PETProjection(
        ParallelGeometry(image_shape=(41, 41), pixel_spacing=1.0, angles=[0.0], n_detectors=41, detector_spacing=1.0),
        fwhm=6.0,
    )
    point = torch.zeros(1, 41, 41)
    point[0, 20, 20] = 1
    profile = operator(point)[0, 0]
    position = torch.arange(41) - 20.0
    assert float(profile.sum()) == pytest.approx(1, abs=1e-4)
    deviation = float((profile * position**2).sum().sqrt())
    assert deviation == pytest.approx((2.548**2 + 1 / 12) ** 0.5, rel=0.01)  # a pixel has a width of its own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fwhm": -1.0}, "fwhm must be 0 or a length"),
        ({"sensitivity": torch.zeros(60, 64)}, "sensitivity must be .* not 0 everywhere"),
        ({"sensitivity": torch.ones(64, 60)}, r"sensitivity must be .* of shape \(60, 64\)"),
    ],
)
def test_impossible_values_are_named(change, message):
    with pytest.raises(ValueError, match=f"PETProjection: {message}"):
        PETProjection(LINES, **change)
