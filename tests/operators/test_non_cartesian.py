"""The non-Cartesian operator against the Fourier sum itself, the Cartesian operator, and another package."""

import numpy as np
import pytest
import torch

from disinr_monai.data.simulate.patterns import radial_trajectory
from disinr_monai.operators import MultiCoilFourier, NonCartesianFourier
from disinr_monai.operators.calibration import dense_radius, density_compensation
from disinr_monai.operators.nufft import NUFFT
from tests.operators.helpers import random_like, scattered
from tests.problems import blob

SHAPE = (12, 9)


def make(dtype: torch.dtype = torch.complex128, density=None, trajectory=None, n_coils: int = 3) -> NonCartesianFourier:
    trajectory = scattered((7, 11), SHAPE) if trajectory is None else trajectory
    return NonCartesianFourier(random_like((n_coils, *SHAPE), True, 2).to(dtype), trajectory, density)


def fourier_matrix(trajectory, shape: tuple[int, int]) -> np.ndarray:
    """``(n, H W)``, written down anew from the documented convention."""
    rows, columns = (np.arange(n) - n // 2 for n in shape)
    k = np.asarray(trajectory).reshape(-1, 2)
    phase = k[:, 0, None, None] * rows[:, None] / shape[0] + k[:, 1, None, None] * columns[None] / shape[1]
    return np.exp(-2j * np.pi * phase).reshape(len(k), -1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex128, 3e-6), (torch.complex64, 5e-6)])
@pytest.mark.parametrize("shape", [(12, 9), (7, 16)])
def test_against_the_fourier_sum(shape, dtype, tolerance):
    trajectory = scattered((6, 9), shape)
    trajectory[0, 0] = torch.tensor(shape) / 2  # the edge
    maps = random_like((2, *shape), True, 0)
    density = torch.rand(6, 9, dtype=torch.float64) + 0.1
    operator = NonCartesianFourier(maps.to(dtype), trajectory, density)
    image = random_like((2, *shape), False, 1)
    x = (maps.numpy() * (image[0] + 1j * image[1]).numpy()).reshape(2, -1)
    expected = (x @ fourier_matrix(trajectory, shape).T).reshape(2, 6, 9) * np.sqrt(density.numpy() / np.prod(shape))
    difference = operator(image.to(dtype.to_real())).numpy() - expected
    assert np.linalg.norm(difference) < tolerance * np.linalg.norm(expected)


def test_agrees_with_finufft():
    finufft = pytest.importorskip("finufft")
    shape, trajectory = (40, 36), scattered((20, 30), (40, 36)).reshape(-1, 2).numpy()
    image = random_like((2, *shape), True, 0)
    x, y = (trajectory * 2 * np.pi / shape).T.copy()
    expected = finufft.nufft2d2(x, y, image.numpy(), eps=1e-12, isign=-1)
    samples = NUFFT(trajectory, shape)(image)
    assert np.linalg.norm(samples.numpy() - expected) < 2e-6 * np.linalg.norm(expected)


def test_cartesian_positions_are_the_cartesian_operator():
    grid = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij"), -1)
    operator = make(trajectory=grid)
    cartesian = MultiCoilFourier(operator.maps, torch.ones(1, SHAPE[1]))
    image = random_like((2, *SHAPE), False, 1)
    torch.testing.assert_close(operator(image), cartesian(image), rtol=1e-5, atol=1e-5)
    values = random_like(operator.range_shape, True, 3)
    torch.testing.assert_close(operator.adjoint(values), cartesian.adjoint(values), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.gram(image), cartesian.gram(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_gram_is_forward_and_adjoint(batch):
    operator = make(density=torch.rand(7, 11) + 0.1)
    image = random_like((*batch, 2, *SHAPE), False, 1)
    expected = operator.adjoint(operator(image))
    assert torch.linalg.vector_norm(operator.gram(image) - expected) < 1e-5 * torch.linalg.vector_norm(expected)
    single = operator.float().gram(image.float())
    assert torch.linalg.vector_norm(single - expected) < 1e-5 * torch.linalg.vector_norm(expected)
    weights = torch.rand(operator.range_shape)
    weighted = operator.adjoint(operator(image.float()) * weights)
    torch.testing.assert_close(operator.gram(image.float(), weights), weighted)


def test_gradients_by_finite_differences():
    operator = NonCartesianFourier(random_like((2, 4, 5), True, 2), scattered((2, 3), (4, 5)))
    image = random_like((2, 4, 5), False, 1).requires_grad_()
    values = random_like(operator.range_shape, True, 3).requires_grad_()
    assert torch.autograd.gradcheck(operator, image)
    assert torch.autograd.gradcheck(operator.adjoint, values)
    assert torch.autograd.gradcheck(operator.gram, image, atol=1e-4)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).abs().square(), image)


def test_parts_are_whole_readouts_of_the_scan():
    operator = make(density=torch.rand(7, 11) + 0.1)
    held = operator.partition.held_out_blocks(0.3, torch.Generator().manual_seed(0))
    spokes = held[0].any(-1)
    assert torch.equal(held, spokes[None, :, None].expand_as(held))
    assert int(spokes.sum()) == 2
    part, select = operator.partition.restrict(~held)
    assert part.range_shape == (3, 5, 11)
    measurement = random_like(operator.range_shape, True, 1)
    torch.testing.assert_close(select(measurement), measurement[:, ~spokes])
    splits = [operator.partition.training_split(i, torch.Generator().manual_seed(i)) for i in range(8)]
    for keep in splits:
        assert torch.equal(keep, keep[:1, :, :1].expand_as(keep))
        assert 3 <= int(keep[0, :, 0].sum()) < 7
    assert len({tuple(keep[0, :, 0].tolist()) for keep in splits}) > 2


def test_a_readout_without_samples_is_left_out():
    keep = torch.rand(7, 11, generator=torch.Generator().manual_seed(0)) < 0.5
    keep[2] = False
    part, _ = make().partition.restrict(keep)
    assert part.range_shape == (3, 6, 11)
    assert part.n_measured == 3 * int(keep.sum())


def test_one_long_readout_withholds_samples_outside_the_centre():
    trajectory = radial_trajectory((20, 20), 12).reshape(1, -1, 2)
    operator = NonCartesianFourier(torch.ones(1, 20, 20, dtype=torch.complex64), trajectory)
    held = operator.partition.held_out_blocks(0.3, torch.Generator().manual_seed(0))[0, 0]
    assert 0 < int(held.sum()) < 0.3 * held.numel()
    assert np.linalg.norm(trajectory[0][held.numpy()], axis=-1).min() > dense_radius(trajectory)


def radial(n_spokes: int, size: int = 48, n_coils: int = 1) -> NonCartesianFourier:
    trajectory = radial_trajectory((size, size), n_spokes)
    maps = torch.ones(n_coils, size, size, dtype=torch.complex64) / n_coils**0.5
    return NonCartesianFourier(maps, trajectory, density_compensation(trajectory))


def test_density_is_the_area_of_the_samples():
    """Dense spokes fill the disc; spokes apart are one cell wide; doubled samples share their area."""
    size = 48
    dense = radial_trajectory((size, size), 100)
    area = density_compensation(dense)
    assert area.sum() == pytest.approx(np.pi * size**2 / 4, rel=0.08)
    ring = np.abs(np.linalg.norm(dense, axis=-1) - 16) < 0.1
    assert np.median(area[ring]) == pytest.approx(np.pi * 16 / 100 * 0.5, rel=0.08)
    single = density_compensation(radial_trajectory((size, size), 1))
    assert single[0, 10:-10] == pytest.approx(0.5, rel=0.02)
    twice = density_compensation(np.concatenate((dense, dense)))
    np.testing.assert_allclose(twice, np.tile(area / 2, (2, 1)), rtol=1e-6)


def test_adjoint_of_a_dense_radial_scan_is_the_image():
    image = torch.stack((blob(48, 48), torch.zeros(48, 48)))
    operator = radial(100)
    measured = operator(image)
    again = operator.direct_inverse(measured)
    # What the disc of a radial scan holds of it.
    k = torch.fft.fftshift(torch.fft.fftfreq(48, 1 / 48))
    disc = torch.hypot(k[:, None], k[None]) < 24
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image[0])))
    expected = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(spectrum * disc))).real
    assert float((again[0] - expected).square().mean().sqrt()) < 0.05
    assert float(again[0][image[0] == 1].mean()) == pytest.approx(1, abs=0.05)


def test_undersampling_and_norm_compare_with_cartesian_scans():
    """The weights of regularisers assume operators of about norm 1; k-space itself has the density of the centre."""
    for n_spokes in (8, 16, 100):
        operator = radial(n_spokes, n_coils=2)
        assert 0.9 < operator.norm_squared() < 2.2
        plain = NonCartesianFourier(operator.maps, operator.trajectory)
        assert plain.norm_squared() > n_spokes / 2
        assert operator.n_measured == pytest.approx(2 * 48**2 / (4 * operator.undersampling()), abs=1)
    assert radial(8).undersampling() > 1 > radial(100).undersampling()


def test_noise_is_estimated_from_the_outer_samples():
    operator = radial(20, n_coils=4)
    image = torch.stack((blob(48, 48), torch.zeros(48, 48)))
    smooth = torch.nn.functional.avg_pool2d(image[None], 5, 1, 2)[0]
    noise = 0.3 * torch.randn(operator.range_shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    variance = operator.noise.variance(operator(smooth) + operator.precondition(noise))
    density = operator.root_density.square()
    torch.testing.assert_close(variance / density, torch.full_like(density, 0.09), rtol=0.15, atol=0)
    # The energy that the noise is expected to leave is what it leaves.
    energy = float(operator.noise.residual_energy(operator.precondition(noise)))
    assert operator.noise.energy(variance) == pytest.approx(energy, rel=0.15)


def test_phase_of_the_centre():
    rows, columns = torch.linspace(-1, 1, 48)[:, None], torch.linspace(-1, 1, 48)[None]
    phase = torch.exp(1j * (0.4 + 0.8 * rows - 0.5 * columns))
    image = (blob(48, 48) + 0.1) * phase
    operator = radial(24)
    found = operator.phase_reference(operator(torch.stack((image.real, image.imag)).float()))
    inside = blob(48, 48) == 1
    error = torch.angle(found * phase.conj())[inside]
    assert float(error.abs().quantile(0.95)) < 0.15


def test_dense_radius():
    assert dense_radius(radial_trajectory((64, 64), 40)) == pytest.approx(40 / np.pi, abs=2)
    assert dense_radius(scattered((10, 3), (64, 64)) + 5) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": torch.ones(12, 9, dtype=torch.complex64)}, "n_coils, H, W"),
        ({"maps": torch.ones(2, 12, 9)}, "must be complex"),
        ({"trajectory": torch.zeros(7, 2)}, "n_readouts, n_samples, 2"),
        ({"trajectory": torch.zeros(7, 3, 3)}, "n_readouts, n_samples, 2"),
        ({"trajectory": torch.full((7, 3, 2), 5.0)}, "-4.5 to 4.5 along columns"),
        ({"trajectory": torch.full((7, 3, 2), torch.nan)}, "found nan"),
        ({"density": torch.ones(7, 4)}, "density must not be negative"),
        ({"density": -torch.ones(7, 3)}, "density must not be negative"),
    ],
)
def test_wrong_arguments(changes, message):
    given = {"maps": torch.ones(2, 12, 9, dtype=torch.complex64), "trajectory": torch.zeros(7, 3, 2), "density": None}
    given |= changes
    with pytest.raises(ValueError, match=f"NonCartesianFourier: .*{message}"):
        NonCartesianFourier(given["maps"], given["trajectory"], given["density"])
