import numpy as np
import pytest
import torch

from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom
from disinr_monai.operators import MultiCoilFourier, ifft2c


@pytest.fixture(scope="module")
def magnitude() -> np.ndarray:
    return brain_phantom(96, np.random.default_rng(0))[10:87, :]  # (77, 96): odd, not square


def test_the_object_stays_where_it_is(magnitude):
    scan = simulate_kspace(magnitude, n_coils=4, noise_std=0.0)
    assert scan.kspace.shape == scan.maps.shape == (4, 77, 96)
    assert scan.reference.shape == (1, 77, 96)
    shifts = [
        np.corrcoef(np.roll(scan.reference[0], shift, axis=axis).ravel(), magnitude.ravel())[0, 1]
        for shift, axis in ((0, 0), (1, 0), (-1, 0), (1, 1), (-1, 1))
    ]
    assert shifts[0] > 0.995
    assert np.argmax(shifts) == 0
    assert abs(shifts[1] - shifts[2]) < 0.01
    assert abs(shifts[3] - shifts[4]) < 0.01
    assert scan.reference.mean() == pytest.approx(magnitude.mean(), rel=0.02)


def test_maps_have_unit_norm_and_differ_over_the_image(magnitude):
    maps = simulate_kspace(magnitude, n_coils=8).maps
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(0), 1, rtol=1e-5)
    peaks = {tuple(np.unravel_index(np.abs(m).argmax(), m.shape)) for m in maps}
    assert len(peaks) == 8
    # Smooth: neighbours differ by little everywhere.
    assert np.abs(np.diff(maps, axis=-1)).max() < 0.2


def test_the_true_maps_nearly_explain_the_scan_but_not_exactly(magnitude):
    """Measured on a finer grid: the operator fits it to a fraction of a per cent, not to rounding."""
    scan = simulate_kspace(magnitude, noise_std=0.0)
    operator = MultiCoilFourier(torch.from_numpy(scan.maps), torch.ones(77, 96))
    kspace = torch.from_numpy(scan.kspace)
    residual = torch.linalg.vector_norm(operator(operator.adjoint(kspace)) - kspace) / torch.linalg.vector_norm(kspace)
    assert 1e-6 < residual < 0.01
    combined = torch.linalg.vector_norm(operator.adjoint(kspace), dim=0)
    np.testing.assert_allclose(combined, scan.reference[0], atol=1e-5)


def test_spokes_see_the_same_object_as_lines(magnitude):
    """On whole positions the transform of the fine object is the Cartesian scan; noise is relative to the samples."""
    grid = np.stack(np.meshgrid(np.arange(77) - 38, np.arange(96) - 48, indexing="ij"), -1)
    cartesian = simulate_kspace(magnitude, n_coils=2, noise_std=0.0)
    scan = simulate_kspace(magnitude, n_coils=2, noise_std=0.0, trajectory=grid)
    assert np.linalg.norm(scan.kspace - cartesian.kspace) < 1e-5 * np.linalg.norm(cartesian.kspace)
    part = grid[30:40, 40:60] + 0.3
    clean, noisy = (simulate_kspace(magnitude, 2, std, trajectory=part) for std in (0.0, 0.1))
    noise = np.sqrt((np.abs(noisy.kspace - clean.kspace) ** 2).mean())
    assert noise == pytest.approx(0.1 * np.sqrt((np.abs(clean.kspace) ** 2).mean()), rel=0.1)
    np.testing.assert_array_equal(noisy.reference, cartesian.reference)


def test_noise_has_the_stated_size(magnitude):
    mask = np.arange(96) % 4 == 0
    clean = simulate_kspace(magnitude, noise_std=0.0, seed=3, mask=mask)
    noisy = simulate_kspace(magnitude, noise_std=0.05, seed=3, mask=mask)
    noise = noisy.kspace - clean.kspace
    rms = np.sqrt((np.abs(clean.kspace[..., mask]) ** 2).mean())
    assert noisy.noise_std == pytest.approx(0.05 * rms, rel=1e-4)
    assert np.sqrt((np.abs(noise) ** 2).mean()) == pytest.approx(0.05 * rms, rel=0.02)
    assert noise.real.std() == pytest.approx(noise.imag.std(), rel=0.02)
    np.testing.assert_array_equal(noisy.reference, clean.reference)


def test_seeds_decide(magnitude):
    first, again, other = (simulate_kspace(magnitude, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.kspace, again.kspace)
    assert not np.allclose(first.kspace, other.kspace)
    assert not np.allclose(first.maps, other.maps)


def test_the_image_has_a_smooth_phase(magnitude):
    scan = simulate_kspace(magnitude, n_coils=1, noise_std=0.0)
    image = (scan.maps.conj() * ifft2c(torch.from_numpy(scan.kspace)).numpy())[0]
    inside = magnitude > 0.4
    jump = np.angle(image[1:] * image[:-1].conj())[inside[1:] & inside[:-1]]
    assert np.abs(jump).max() < 0.5
    assert np.ptp(np.angle(image[inside])) > 0.3


@pytest.mark.parametrize("arguments", [{"magnitude": np.ones(4)}, {"n_coils": 0}, {"noise_std": -1}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match="simulate_kspace"):
        simulate_kspace(**{"magnitude": np.ones((8, 8)), **arguments})
