import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from disinr_monai.data.simulate.ct import simulate_fan_beam
from disinr_monai.modality import CT_ATTENUATION, hu_to_image, image_to_hu
from disinr_monai.operators import FanBeam, FanGeometry

GEOMETRY = {
    "angles": np.array([0.0, 0.6, math.pi / 2, 3.3, 5.0]),
    "n_detectors": 60,
    "detector_spacing": 2.0,
    "source_distance": 90.0,
    "detector_distance": 70.0,
}
SLICE = FanGeometry(image_shape=(160, 120), pixel_spacing=0.5, **GEOMETRY)
CENTRE, RADIUS = np.array([8.0, -13.0]), 17.0


def disc_hu(height: int = 160, width: int = 120, spacing: float = 0.5) -> np.ndarray:
    x = ((np.arange(width * 4) + 0.5) / 4 - width / 2) * spacing
    y = -((np.arange(height * 4) + 0.5) / 4 - height / 2) * spacing
    inside = (x[None] - CENTRE[0]) ** 2 + (y[:, None] - CENTRE[1]) ** 2 <= RADIUS**2
    return 1200 * inside.reshape(height, 4, width, 4).mean((1, 3)) - 1000


def disc_chords(n_rays_per_cell: int = 50) -> np.ndarray:
    """Chords through the disc, averaged as intensities over each detector cell."""
    chords = []
    n = GEOMETRY["n_detectors"] * n_rays_per_cell
    u = (np.arange(n) - (n - 1) / 2) * GEOMETRY["detector_spacing"] / n_rays_per_cell
    for angle in GEOMETRY["angles"]:
        source = GEOMETRY["source_distance"] * np.array([math.sin(angle), -math.cos(angle)])
        centre = GEOMETRY["detector_distance"] * np.array([-math.sin(angle), math.cos(angle)])
        direction = centre + u[:, None] * np.array([math.cos(angle), math.sin(angle)]) - source
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        offset = CENTRE - source
        distance = offset[0] * direction[:, 1] - offset[1] * direction[:, 0]
        chords.append(2 * np.sqrt(np.maximum(RADIUS**2 - distance**2, 0)))
    intensity = np.exp(-CT_ATTENUATION * np.array(chords)).reshape(len(GEOMETRY["angles"]), -1, n_rays_per_cell)
    return -np.log(intensity.mean(-1)) / CT_ATTENUATION


def test_units():
    hu = torch.tensor([-1000.0, -800.0, 0.0, 200.0, 400.0])
    torch.testing.assert_close(hu_to_image(hu), torch.tensor([0, 1 / 6, 5 / 6, 1, 7 / 6]))
    torch.testing.assert_close(image_to_hu(hu_to_image(hu)), hu, atol=1e-3, rtol=0)
    assert CT_ATTENUATION * float(hu_to_image(0.0)) == pytest.approx(0.02)


def test_disc_has_its_analytic_integrals():
    measurement, weights, info = simulate_fan_beam(disc_hu(), replace(SLICE, n_subrays=3), photons=0)
    assert measurement.shape == (1, 5, 60)
    assert weights is None
    assert info == {}
    error = measurement[0].numpy() - disc_chords()
    assert np.sqrt((error**2).mean()) < 0.15
    assert np.abs(error).max() < 1.2


def test_agrees_with_the_operator_on_a_smooth_image():
    x, y = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 160))
    image = np.exp(-6 * ((x - 0.2) ** 2 + (y + 0.3) ** 2))
    coarse = torch.tensor(image.reshape(80, 2, 60, 2).mean((1, 3)), dtype=torch.float32)[None]
    measurement, _, _ = simulate_fan_beam(image_to_hu(image), SLICE, photons=0)
    expected = FanBeam(FanGeometry(image_shape=(80, 60), pixel_spacing=1.0, **GEOMETRY))(coarse)
    assert float((measurement - expected).abs().max()) < 0.02 * float(expected.max())


def test_noise_has_the_variance_of_its_counts():
    photons, electronic_noise = 2000.0, 8.0
    clean, _, _ = simulate_fan_beam(disc_hu(), SLICE, photons=0)
    noisy = [
        simulate_fan_beam(disc_hu(), SLICE, photons=photons, electronic_noise=electronic_noise, seed=seed)
        for seed in range(40)
    ]
    counts = photons * torch.exp(-CT_ATTENUATION * clean.double())
    deviation = torch.sqrt(counts + electronic_noise**2) / counts / CT_ATTENUATION
    score = torch.stack([(y - clean) / deviation for y, _, _ in noisy])
    assert float(score.mean()) == pytest.approx(0, abs=0.05)
    assert float(score.std()) == pytest.approx(1, abs=0.03)
    weights = torch.stack([w for _, w, _ in noisy])
    assert float(weights.mean()) == pytest.approx(1, abs=1e-4)
    expected = deviation**-2 / (deviation**-2).mean()
    torch.testing.assert_close(weights.mean(0).double(), expected, rtol=0.05, atol=0.01)


def test_seeds():
    def run(seed):
        return simulate_fan_beam(disc_hu(), SLICE, photons=1e4, seed=seed)[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_no_photon_arrives():
    lead = np.full((160, 120), 60000.0)
    measurement, weights, info = simulate_fan_beam(lead, SLICE, photons=1e3)
    assert torch.isfinite(measurement).all()
    assert torch.isfinite(weights).all()
    assert info["rays_without_counts"] > 0
    assert float(measurement.max()) == pytest.approx(math.log(1e3) / CT_ATTENUATION)


def test_below_air_is_air():
    measurement, _, _ = simulate_fan_beam(np.full((160, 120), -2000.0), SLICE, photons=0)
    assert float(measurement.abs().max()) == 0


@pytest.mark.parametrize(
    ("hu", "changes", "options"),
    [
        (np.zeros((2, 3, 4)), {}, {}),
        (np.zeros((4, 5)), {}, {}),
        (np.full((4, 4), np.nan), {}, {}),
        (np.zeros((4, 4)), {}, {"photons": -1}),
        (np.zeros((4, 4)), {}, {"electronic_noise": -1}),
        (np.zeros((4, 4)), {"detector_spacing": 1e4}, {}),
        (np.zeros((4, 4)), {"detector_offset": 1.0}, {}),
        (np.zeros((4, 4)), {"curved": True}, {}),
    ],
)
def test_wrong_arguments(hu, changes, options):
    with pytest.raises(ValueError, match="simulate_fan_beam"):
        simulate_fan_beam(hu, replace(SLICE, image_shape=(4, 4), **changes), **options)
