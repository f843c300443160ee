"""What a full raw scan is compared with: known maps, known noise."""

import math

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireMRI, SkipFailed
from disinr_monai.data.cases import list_cases
from disinr_monai.data.coils.reference import full_reference
from disinr_monai.errors import InputError
from disinr_monai.handlers.compare import table_row
from disinr_monai.methods import ConjugateGradient

N, N_COILS, SIGMA = 96, 8, 0.02


def smooth_maps() -> np.ndarray:
    """Coils on a circle, unit root sum of squares."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, N),) * 2, indexing="ij")
    angles = 2 * np.pi * np.arange(N_COILS) / N_COILS
    maps = np.stack([np.exp(1j * a) / ((y - 1.6 * np.sin(a)) ** 2 + (x - 1.6 * np.cos(a)) ** 2) for a in angles])
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64)


def transform(images: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes)


@pytest.fixture(scope="module")
def scan() -> dict[str, np.ndarray]:
    """A soft disc of 1, with noise of standard deviation SIGMA in each complex sample of each coil."""
    rng = np.random.default_rng(0)
    radius = np.hypot(*np.meshgrid(*(np.arange(N) - N // 2,) * 2, indexing="ij"))
    image = (1 / (1 + np.exp((radius - 24) / 1.5))).astype(np.float32)
    noise = rng.standard_normal((2, N_COILS, N, N)) * SIGMA / math.sqrt(2)
    images = image * smooth_maps() + noise[0] + 1j * noise[1]
    return {"image": image, "images": images, "kspace": transform(images).astype(np.complex64), "radius": radius}


@pytest.mark.parametrize("maps", [smooth_maps(), None], ids=["known maps", "espirit"])
def test_combined_has_no_bias_inside_and_rss_has_a_known_one_in_air(scan, maps):
    combined, rss = (full_reference(scan["images"], scan["kspace"], maps, k, "x") for k in ("combined", "rss"))
    inside, air = scan["radius"] < 15, scan["radius"] > 36
    # Root sum of squares of n complex channels of noise: about sigma sqrt(n); of one, sigma sqrt(pi) / 2.
    assert rss.image[0][air].mean() == pytest.approx(SIGMA * math.sqrt(N_COILS), rel=0.03)
    assert combined.image[0][air].mean() == pytest.approx(SIGMA * math.sqrt(math.pi) / 2, rel=0.06)
    errors = [found.image[0][inside] - scan["image"][inside] for found in (combined, rss)]
    # A magnitude of signal 1 and n channels is too large by (2 n - 1) sigma^2 / 4 where noise is small.
    assert errors[0].mean() == pytest.approx(SIGMA**2 / 4, abs=2e-3 if maps is None else 1e-3)
    assert errors[1].mean() == pytest.approx((2 * N_COILS - 1) * SIGMA**2 / 4, abs=1e-3)
    # The noise that it claims is the one it has.
    for found, error in zip((combined, rss), errors, strict=True):
        assert found.noise == pytest.approx(SIGMA / math.sqrt(2), rel=0.1)
        assert error.std() == pytest.approx(SIGMA / math.sqrt(2), rel=0.1)
        assert found.variance == pytest.approx(SIGMA**2, rel=0.2)


def test_correlated_coils_have_another_noise_in_the_combination(scan):
    """Half of the noise is common to all coils: the sum of eight coils keeps it, single coils do not show it."""
    rng = np.random.default_rng(1)
    common = rng.standard_normal((2, N, N)) * SIGMA / math.sqrt(2)
    images = scan["images"] + common[0] + 1j * common[1]
    maps = np.full((N_COILS, N, N), N_COILS**-0.5, np.complex64)
    images = images - scan["image"] * smooth_maps() + scan["image"] * maps
    inside, expected = scan["radius"] < 15, SIGMA * math.sqrt((1 + N_COILS) / 2)
    for kind in ("combined", "rss"):
        found = full_reference(images, transform(images).astype(np.complex64), maps, kind, "x")
        assert (found.image[0][inside] - scan["image"][inside]).std() == pytest.approx(expected, rel=0.1)
        assert found.noise == pytest.approx(expected, rel=0.15)


def test_maps_of_another_size_give_the_image_that_they_belong_to(scan):
    """Twice the maps, half the image; nothing where they are zero."""
    maps = 2 * smooth_maps()
    maps[:, :10] = 0
    found = full_reference(scan["images"], scan["kspace"], maps, "combined", "x")
    inside = scan["radius"] < 15
    assert found.image[0][inside].mean() == pytest.approx(0.5, abs=0.002)
    assert not found.image[0, :10].any()
    assert found.noise == pytest.approx(SIGMA / math.sqrt(2) / 2, rel=0.1)


@pytest.mark.parametrize("kind", ["combined", "rss"])
def test_the_case_says_what_it_is_compared_with(scan, kind, write_hdf5):
    file = write_hdf5(kspace=scan["kspace"][None], sensitivity_maps=smooth_maps()[None])
    (listed,) = list_cases(file, "mri")
    case = SkipFailed(AcquireMRI(acceleration=3, acs=16, reference=kind))(listed)
    info = case["info"]
    assert info["reference"] == kind
    assert info["reference_noise"] == pytest.approx(SIGMA / math.sqrt(2), rel=0.15)
    limit = -20 * math.log10(info["reference_noise"])
    assert f"reference: {kind}" in info["read_as"]
    assert f"limits PSNR to about {limit:.1f} dB" in info["read_as"]
    if kind == "rss":
        expected = np.sqrt((np.abs(scan["images"]) ** 2).sum(0))
        torch.testing.assert_close(case["reference"][0], torch.from_numpy(expected / expected.max()).float())


def test_samples_taken_away_judge_the_image(scan, write_hdf5):
    """The true image predicts them up to their noise; no image predicts nothing."""
    file = write_hdf5(kspace=scan["kspace"][None], sensitivity_maps=smooth_maps()[None])
    (listed,) = list_cases(file, "mri")
    case = AcquireMRI(acceleration=3, acs=16)(listed)
    taken, rest = case["scan"].operator.sampled, case["unsampled"].operator.sampled
    assert bool((taken + rest == 1).all())
    scale = case["image_scale"] * case["output_scale"]
    truth = torch.stack([torch.from_numpy(scan["image"]), torch.zeros(N, N)]) / scale
    rows = [table_row(case, "x", image, 1.0, ConjugateGradient(), "mri") for image in (truth, 0 * truth)]
    assert rows[0]["unsampled_error"] == pytest.approx(rows[0]["unsampled_noise"], rel=0.15)
    assert rows[1]["unsampled_error"] == pytest.approx(1)
    assert rows[0]["psnr"] > rows[1]["psnr"]
    assert rows[0]["psnr_body"] == pytest.approx(rows[0]["reference_ceiling"], abs=1)


def test_an_unknown_reference_is_refused():
    with pytest.raises(InputError, match="reference: expected combined or rss, found 'sos'"):
        AcquireMRI(reference="sos")
