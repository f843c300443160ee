"""Estimates of the noise against noise that is known, of coils that share it."""

import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.patterns import equispaced_mask, poisson_mask, radial_trajectory, random_mask
from disinr_monai.data.simulate.phantoms import brain_phantom
from disinr_monai.operators import FanBeam, FanGeometry, MultiCoilFourier, NonCartesianFourier
from disinr_monai.operators.calibration import density_compensation
from disinr_monai.operators.noise_level import kspace_noise, ray_noise
from disinr_monai.scan import Scan

N = 128
LEVELS = (0.003, 0.01, 0.03, 0.1, 0.3)
# Largest error, at 0.003 and from 0.01 on. The samples of a Poisson disc are in no readout.
TOLERANCES = {"uniform": (0.1, 0.1), "random": (0.1, 0.1), "poisson": (1.0, 0.3), "radial": (0.1, 0.1)}


def correlated(n_coils: int, rng: np.random.Generator) -> NDArray:
    """Root of a covariance with mean diagonal 1: gains from 0.7 to 1.4, correlations up to about 0.5."""
    parts = rng.standard_normal((2, n_coils, 2 * n_coils))
    shared = (parts[0] + 1j * parts[1]) @ (parts[0] - 1j * parts[1]).T / (4 * n_coils)
    near = np.exp(-np.abs(np.subtract.outer(np.arange(n_coils), np.arange(n_coils))))
    gains = rng.uniform(0.7, 1.4, n_coils)
    covariance = (0.6 * np.eye(n_coils) + 0.2 * shared + 0.2 * near) * np.outer(gains, gains)
    return np.linalg.cholesky(covariance * n_coils / np.trace(covariance).real)


@functools.cache
def clean(pattern: str, n_coils: int):
    image = brain_phantom(N, np.random.default_rng(0))
    if pattern == "poisson":  # It has nothing but outer samples to go by, and edges of one pixel are everywhere there.
        image = gaussian_filter(image, 0.8)
    if pattern == "radial":
        trajectory = radial_trajectory((N, N), 24, 0.3)
        kspace = simulate_kspace(image, n_coils, 0.0, 1, trajectory=trajectory).kspace
        operator = NonCartesianFourier(
            torch.ones(n_coils, N, N, dtype=torch.complex64), trajectory, density_compensation(trajectory)
        )
        return operator, kspace
    masks = {"uniform": equispaced_mask(N, 4, 16), "random": random_mask(N, 4, 16), "poisson": None}
    mask = poisson_mask((N, N), 6, 16) if pattern == "poisson" else np.broadcast_to(masks[pattern], (N, N))
    kspace = simulate_kspace(image, n_coils, 0.0, 1).kspace * mask
    return MultiCoilFourier(torch.ones(n_coils, N, N, dtype=torch.complex64), torch.from_numpy(mask.copy())), kspace


def scan_of(pattern: str, n_coils: int, level: float, seed: int = 0) -> Scan:
    operator, kspace = clean(pattern, n_coils)
    rng = np.random.default_rng(seed)
    white = (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)) / np.sqrt(2)
    noise = np.tensordot(correlated(n_coils, rng), white, 1)
    sampled = kspace != 0
    noise *= level * np.sqrt((np.abs(kspace[sampled]) ** 2).mean())
    measurement = torch.from_numpy(((kspace + noise) * sampled.any(0)).astype(np.complex64))
    return Scan(operator, operator.precondition(measurement))


@pytest.mark.parametrize("n_coils", [1, 4, 8, 16])
@pytest.mark.parametrize("pattern", TOLERANCES)
def test_known_noise_is_found(pattern, n_coils):
    for level in LEVELS:
        # Relative to the measurement, noise included.
        found = scan_of(pattern, n_coils, level).noise_std() * np.sqrt(1 + level**2)
        assert found == pytest.approx(level, rel=TOLERANCES[pattern][level > 0.003])


def test_zero_filling_is_no_silence():
    """An interpolated matrix, an asymmetric echo and an elliptical edge leave noise in the samples that are there."""
    scan = scan_of("uniform", 4, 0.03)
    rows, columns = torch.linspace(-1, 1, N)[:, None], torch.linspace(-1, 1, N)[None]
    for kept in (rows.abs() < 0.6, rows > -0.3, rows.square() + columns.square() < 0.7):
        cut = scan.measurement * kept
        part = Scan(scan.operator, cut)
        assert float(part.noise_level()) == pytest.approx(float(scan.noise_level()), rel=0.1)
    assert float(Scan(scan.operator, 0 * cut).noise_level()) == 0


def test_noise_scales_with_the_measurement():
    for pattern in TOLERANCES:
        scan = scan_of(pattern, 4, 0.03)
        louder = Scan(scan.operator, 1000 * scan.measurement)
        torch.testing.assert_close(louder.noise_level(), 1e6 * scan.noise_level())
        assert louder.noise_std() == pytest.approx(scan.noise_std(), rel=1e-4)


def test_noise_that_is_known_is_kept_by_every_part():
    scan = scan_of("uniform", 4, 0.03)
    known = Scan(scan.operator, scan.measurement, noise=torch.tensor(7.0))
    keep = scan.operator.partition.training_split(0, torch.Generator().manual_seed(0))
    assert float(known.restrict(keep).noise_level()) == 7
    radial = scan_of("radial", 4, 0.03)
    varying = radial.noise_level()
    part = Scan(radial.operator, radial.measurement, noise=varying).restrict(
        radial.operator.partition.training_split(0, torch.Generator().manual_seed(0))
    )
    assert part.noise_level().shape == part.operator.range_shape[1:]
    assert part.noise_level().max() <= varying.max()


def test_points_of_noise_alone():
    noise = torch.randn(2, 40, 44, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert float(kspace_noise(noise, torch.rand(40, 44))) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("photons", [5e3, 1e5])
def test_noise_of_rays_grows_with_the_attenuation(photons):
    """The variance e^y / n of each ray, with its weights and without, of a body that no ray misses."""
    beam = FanBeam(
        FanGeometry(
            image_shape=(64, 64), pixel_spacing=2.0, angles=np.arange(40) * np.pi / 20, n_detectors=120,
            detector_spacing=1.5, source_distance=200.0, detector_distance=100.0,
        )
    )  # fmt: skip
    rows, columns = torch.linspace(-1, 1, 64)[:, None], torch.linspace(-1, 1, 64)[None]
    image = 0.02 * torch.exp(-2 * (rows.square() + columns.square()))[None]
    integrals = beam(image)
    variance = integrals.exp() / photons
    values = integrals + variance.sqrt() * torch.randn(beam.range_shape, generator=torch.Generator().manual_seed(0))
    for weights in (None, 1 / variance / (1 / variance).mean()):
        found = ray_noise(values, weights)
        assert float((found / variance).log().abs().quantile(0.95)) < 0.15
    assert float(beam.noise.estimate(values).mean()) == pytest.approx(float(variance.mean()), rel=0.1)
