"""Non-Cartesian scans and noise measurements in HDF5 files."""

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.readers.fastmri import read_fastmri
from disinr_monai.data.readers.kspace import prewhiten, whitening_matrix
from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.patterns import radial_trajectory
from disinr_monai.data.simulate.phantoms import brain_phantom
from disinr_monai.errors import InputError
from disinr_monai.methods import ConjugateGradient, TotalVariation
from disinr_monai.operators import MultiCoilFourier, NonCartesianFourier
from disinr_monai.output.metrics import image_metrics

SHAPE = (64, 56)


@pytest.fixture(scope="module")
def radial():
    """Trajectory and simulation of a scan that is not square."""
    image = brain_phantom(72, np.random.default_rng(1))[4:68, 8:64] * 300
    trajectory = radial_trajectory(SHAPE, 60)
    return trajectory, simulate_kspace(image, n_coils=4, noise_std=0.002, trajectory=trajectory)


def test_a_radial_file_becomes_its_operator(radial, write_hdf5):
    trajectory, scan = radial
    header = b"<encodedSpace><fieldOfView_mm><x>128</x><y>168</y><z>5</z></fieldOfView_mm></encodedSpace>"
    path = write_hdf5(
        attributes={"image_shape": SHAPE},
        kspace=np.stack((scan.kspace, 2 * scan.kspace)),
        trajectory=trajectory,
        ismrmrd_header=header,
    )
    cases = list_cases(path, "mri")
    assert [case["slice"] for case in cases] == [0, 1]
    case = AcquireMRI()(cases[1])
    operator = case["scan"].operator
    assert isinstance(operator, NonCartesianFourier)
    assert operator.domain_shape == (2, *SHAPE)
    assert operator.range_shape == (4, 60, 128)
    assert "reference" not in case
    np.testing.assert_allclose(np.linalg.norm(case["affine"][:3, :3], axis=0), [2, 3, 5])
    image = torch.linalg.vector_norm(operator.adjoint(case["scan"].measurement), dim=0)
    assert float(torch.quantile(image, 0.999)) == pytest.approx(1, rel=1e-3)
    # In the units of the file, at the right place.
    image = image * case["image_scale"] * case["output_scale"] / 2
    assert image_metrics(image[None] / 300, torch.from_numpy(scan.reference) / 300)["psnr"] > 24
    single = read_fastmri(write_hdf5("one.h5", kspace=scan.kspace, trajectory=trajectory))
    assert single.shape == (64, 64)


def test_maps_of_the_file_have_the_shape_of_the_image(radial, write_hdf5):
    trajectory, scan = radial
    data = {"kspace": scan.kspace, "trajectory": trajectory}
    path = write_hdf5(attributes={"image_shape": SHAPE}, sensitivity_maps=scan.maps, **data)
    case = AcquireMRI(maps="file")(list_cases(path, "mri")[0])
    torch.testing.assert_close(case["scan"].operator.maps, torch.from_numpy(scan.maps))
    wrong = write_hdf5("wrong.h5", attributes={"image_shape": SHAPE}, sensitivity_maps=scan.kspace, **data)
    with pytest.raises(InputError, match=r"wrong\.h5: `sensitivity_maps` must have the shape"):
        read_fastmri(wrong)


def one_spiral(n: int = 8000) -> np.ndarray:
    t = np.sqrt(np.linspace(0, 1, n, endpoint=False))
    return 31.9 * np.stack((t * np.sin(2 * np.pi * 34 * t), t * np.cos(2 * np.pi * 34 * t)), -1)[None]


def test_a_single_spiral_readout(write_hdf5):
    image = brain_phantom(64, np.random.default_rng(1))
    trajectory = one_spiral()
    scan = simulate_kspace(image, n_coils=4, noise_std=0.0, trajectory=trajectory)
    case = AcquireMRI()(list_cases(write_hdf5(kspace=scan.kspace, trajectory=trajectory), "mri")[0])
    assert case["scan"].operator.domain_shape == (2, 64, 64)
    image = torch.linalg.vector_norm(case["scan"].operator.adjoint(case["scan"].measurement), dim=0)
    restored = image * case["image_scale"] * case["output_scale"]
    assert image_metrics(restored[None], torch.from_numpy(scan.reference))["psnr"] > 26


def _kspace(n_readouts: int = 5, n_samples: int = 20) -> np.ndarray:
    return np.ones((2, n_readouts, n_samples), np.complex64)


def _bad(index: tuple, value: float) -> np.ndarray:
    trajectory = radial_trajectory((32, 32), 5)[:, :20].copy()
    trajectory[index] = value
    return trajectory


GOOD = radial_trajectory((32, 32), 5)[:, :20]
BAD = {
    "shape": (GOOD[:4], {}, r"must have shape \(5, 20, 2\).*found \(4, 20, 2\)"),
    "transposed": (GOOD.transpose(1, 0, 2), {}, r"must have shape \(5, 20, 2\).*found \(20, 5, 2\)"),
    "three dimensions": (np.zeros((5, 20, 3)), {}, r"found \(5, 20, 3\)"),
    "complex": (GOOD.astype(complex), {}, "must be real, found complex128"),
    "nan": (_bad((1, 2, 0), np.nan), {}, "must be finite, found 1 NaN"),
    "infinite": (_bad((1, 2, 0), np.inf), {}, "must be finite, found 1 NaN"),
    "cycles per pixel": (GOOD / 32, {}, r"cycles per field of view, from -N/2 to N/2, found at most 0\.5"),
    "radians": (GOOD / 32 * 2 * np.pi, {}, r"found at most 3\.14; multiply"),
    "beyond the image": (GOOD, {"image_shape": (32, 24)}, "within 16 along rows and 12 along columns"),
    "pixels of an image": (GOOD / 32, {"image_shape": (32, 32)}, "within 16 along rows"),
    "image shape": (GOOD, {"image_shape": (32, 32, 1)}, "`image_shape` must be two whole numbers"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_trajectories_are_named(write_hdf5, problem):
    trajectory, attributes, message = BAD[problem]
    path = write_hdf5("bad.h5", attributes, kspace=_kspace(), trajectory=trajectory)
    with pytest.raises(InputError, match=message) as error:
        read_fastmri(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mask_beside_a_trajectory_is_refused(write_hdf5):
    path = write_hdf5(kspace=_kspace(), trajectory=GOOD, mask=np.ones(20))
    with pytest.raises(InputError, match="expected `mask` or `trajectory`, found both"):
        read_fastmri(path)


def correlated_noise(n_coils: int, n_samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise and the matrix that mixes its coils."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((n_coils, n_coils)) + 1j * rng.standard_normal((n_coils, n_coils))
    white = rng.standard_normal((2, n_coils, n_samples)) / np.sqrt(2)
    return mix @ (white[0] + 1j * white[1]), mix


def covariance(noise: np.ndarray) -> np.ndarray:
    return noise @ noise.conj().T / noise.shape[1]


def test_whitened_noise_has_unit_covariance():
    noise, mix = correlated_noise(4, 20000)
    matrix = whitening_matrix(noise, 4)
    np.testing.assert_allclose(covariance(matrix @ noise), np.eye(4), atol=1e-10)
    # Also noise that the matrix was not computed from.
    other = mix @ np.linalg.solve(mix, correlated_noise(4, 20000, seed=0)[0])[:, ::-1]
    np.testing.assert_allclose(covariance(matrix @ other), np.eye(4), atol=0.05)


def test_noise_in_the_file_whitens_kspace_and_maps(write_hdf5):
    rng = np.random.default_rng(0)
    kspace = (rng.standard_normal((4, 12, 10)) + 1j).astype(np.complex64)
    noise, _ = correlated_noise(4, 2000)
    scan = read_fastmri(write_hdf5(kspace=kspace, noise=noise.astype(np.complex64), sensitivity_maps=kspace))
    assert scan.info["prewhitened"]
    expected, maps = prewhiten(kspace, kspace, noise.astype(np.complex64))
    np.testing.assert_allclose(scan.kspace, expected)
    again = np.tensordot(whitening_matrix(noise, 4), kspace, axes=1)
    np.testing.assert_allclose(scan.kspace, again, rtol=1e-3, atol=1e-4)
    # Maps are mixed in the same way and keep their size.
    np.testing.assert_allclose(scan.maps, maps)
    assert np.linalg.norm(maps) == pytest.approx(np.linalg.norm(kspace), rel=1e-5)
    ratio = maps / expected
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0, 0, 0], ratio.shape), rtol=1e-3)


def test_whitening_pays_where_one_coil_is_noisy(write_hdf5):
    """Least squares with plain coils counts the broken coil as much as the good ones."""
    image = brain_phantom(64, np.random.default_rng(2))
    scan = simulate_kspace(image, n_coils=4, noise_std=0.0)
    size = np.array([0.5, 0.05, 0.05, 0.05])[:, None] * np.abs(scan.kspace).mean() * 4
    noise = correlated_noise(4, 64 * 64)[0]
    noise = size * (whitening_matrix(noise, 4) @ noise)
    kspace = (scan.kspace + noise.reshape(4, 64, 64)[:, ::-1]).astype(np.complex64)
    mask = np.arange(64) % 2 == 0
    mask[20:44] = True
    errors = {}
    for name, extra in {"plain": {}, "white": {"noise": noise}}.items():
        path = write_hdf5(f"{name}.h5", kspace=kspace * mask, sensitivity_maps=scan.maps, **extra)
        case = AcquireMRI(maps="file")(list_cases(path, "mri")[0])
        found = ConjugateGradient()(None, None, case=case)[0]
        found = torch.linalg.vector_norm(found, dim=0)
        reference = torch.from_numpy(scan.reference[0])
        found = found * (found * reference).sum() / found.square().sum()
        errors[name] = float((found - reference).square().mean())
    assert errors["white"] < 0.3 * errors["plain"]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.ones((3, 100), complex), r"complex with shape \(2, samples\).*found complex128 \(3, 100\)"),
        (np.ones((2, 100)), "must be complex"),
        (np.ones((2, 5), complex), "at least 8 finite samples a coil, found 5"),
        (np.full((2, 50), np.nan + 0j), "found 50 with NaN"),
        (np.ones((2, 50), complex), "independent noise in every coil"),
        (np.array([[1, 0]]).T * correlated_noise(2, 50)[0], "independent noise in every coil"),
    ],
)
def test_bad_noise_is_named(write_hdf5, noise, message):
    path = write_hdf5("noise.h5", kspace=np.ones((2, 12, 10), np.complex64), noise=noise)
    with pytest.raises(InputError, match=message) as error:
        read_fastmri(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["lines, partial Fourier", "partial echo", "block", "scattered"])
def test_undersampled_cartesian_files_of_any_pattern(write_hdf5, kind):
    """Not square, sampled on one side only or anywhere: the scan is taken as it is and becomes an image."""
    image = np.pad(brain_phantom(56, np.random.default_rng(1)), ((4, 4), (12, 12)))
    scan = simulate_kspace(image, n_coils=4, noise_std=0.001)
    mask = np.zeros(image.shape, bool)
    if kind == "lines, partial Fourier":
        mask[:, ::2] = mask[:, 30:50] = True
        mask[:, :20] = False
    elif kind == "partial echo":
        mask[16:, 4:76] = True
    elif kind == "block":  # without a gap, but on one side
        mask[:, 16:] = True
    else:
        mask = np.random.default_rng(0).random(image.shape) < 0.4
        mask[20:44, 30:50] = True
    case = AcquireMRI()(list_cases(write_hdf5(kspace=scan.kspace * mask), "mri")[0])
    operator = case["scan"].operator
    assert isinstance(operator, MultiCoilFourier)
    assert "reference" not in case
    np.testing.assert_array_equal((case["scan"].measurement.abs().sum(0) > 0).numpy(), mask)
    found = TotalVariation(tv_weight=3e-3)(None, None, case=case)[0]
    found = torch.linalg.vector_norm(found, dim=0) * case["image_scale"] * case["output_scale"]
    assert image_metrics(found[None], torch.from_numpy(scan.reference))["psnr"] > 24
    held = operator.partition.held_out_blocks(0.1, torch.Generator().manual_seed(0))
    for part in (held, ~operator.partition.training_split(0, torch.Generator())):
        assert 0 < int((part[0] & torch.from_numpy(mask)).sum()) < mask.sum() / 2
