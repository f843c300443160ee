import numpy as np
import pytest
import torch

from disinr_monai.data.coils import espirit as coil_maps
from disinr_monai.data.coils.espirit import espirit_maps
from disinr_monai.data.simulate.mri import SimulatedScan, simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom
from disinr_monai.errors import InputError
from disinr_monai.methods import ConjugateGradient
from disinr_monai.operators import MultiCoilFourier
from disinr_monai.scan import Scan


@pytest.fixture(scope="module")
def scan() -> SimulatedScan:
    return simulate_kspace(brain_phantom(120, np.random.default_rng(0))[:110], n_coils=6, noise_std=0.02)


def test_the_true_maps_are_found_up_to_a_phase(scan):
    maps = espirit_maps(scan.kspace, 24).numpy()
    inside = scan.reference[0] > 0.1
    phase = (scan.maps.conj() * maps).sum(0)
    error = np.abs(maps - scan.maps * phase / np.maximum(np.abs(phase), 1e-9))[:, inside]
    assert error.max() < 0.05
    assert np.sqrt((error**2).mean()) < 0.01
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(0)[inside], 1, atol=1e-4)
    # No jumps of the phase inside the head, whichever coil is blind there.
    jump = np.angle(phase[1:] * phase[:-1].conj())[inside[1:] & inside[:-1]]
    assert np.abs(jump).max() < 0.6


def wrapped(kspace: np.ndarray, n_columns: int) -> np.ndarray:
    """K-space of the same object with a smaller field of view along the columns."""
    shift = {"axes": (-2, -1)}
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, **shift), norm="ortho"), **shift)
    first = (images.shape[-1] - n_columns) // 2
    folded = np.zeros((*images.shape[:-1], n_columns), images.dtype)
    for column in range(images.shape[-1]):
        folded[..., (column - first) % n_columns] += images[..., column]
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(folded, **shift), norm="ortho"), **shift).astype(np.complex64)


def test_an_object_that_wraps_has_two_orthogonal_sets_which_explain_it(scan):
    kspace = wrapped(scan.kspace, 70)  # the head is 81 columns wide
    maps = espirit_maps(kspace, 24)
    assert maps.shape == (2, 6, 110, 70)
    size = (maps.abs() ** 2).sum(1)
    torch.testing.assert_close(size, (size > 0.5).float(), atol=1e-4, rtol=0)
    second = size[1] > 0
    assert 0.05 < float(second.float().mean()) < 0.4
    assert float(second[:, 20:50].float().mean()) < 0.04  # beyond the overlap at either edge
    assert float((maps[0].conj() * maps[1]).sum(0).abs().max()) < 0.1
    # Smooth: neighbours have nearly the same maps, also where the two eigenvectors could be any two of their plane.
    for part, inside in zip(maps, (size[0] > 0, second), strict=True):
        both = inside[1:] & inside[:-1]
        assert float((part[:, 1:] - part[:, :-1]).abs().sum(0)[both].quantile(0.95)) < 0.3
    residuals = []
    for sets in (maps, espirit_maps(kspace, 24, n_sets=1)):
        operator = MultiCoilFourier(sets, torch.ones(1, 70))
        image = ConjugateGradient(n_iterations=30, l2_weight=0.0).solve(Scan(operator, torch.from_numpy(kspace)))
        residuals.append(float((operator(image) - torch.from_numpy(kspace)).norm() / np.linalg.norm(kspace)))
    assert residuals[0] < 0.05
    assert residuals[1] > 3 * residuals[0]


@pytest.mark.parametrize("n_coils", [4, 8, 16])
@pytest.mark.parametrize("noise_std", [0.01, 0.1])
def test_an_object_inside_the_field_of_view_has_one_set(n_coils, noise_std):
    image = brain_phantom(96, np.random.default_rng(1))
    kspace = simulate_kspace(image, n_coils, noise_std, seed=n_coils).kspace
    assert espirit_maps(kspace, 24).shape == (n_coils, 96, 96)
    assert espirit_maps(wrapped(kspace, 56), 24).shape == (2, n_coils, 96, 56)


def test_only_the_centre_and_not_the_scale_matters(scan):
    kspace = np.zeros_like(scan.kspace)
    kspace[:, 55 - 12 : 55 + 12, 60 - 12 : 60 + 12] = scan.kspace[:, 55 - 12 : 55 + 12, 60 - 12 : 60 + 12]
    maps = espirit_maps(scan.kspace, (110, 24))
    torch.testing.assert_close(espirit_maps(torch.from_numpy(kspace), 24), maps)
    torch.testing.assert_close(espirit_maps(kspace * 1e-6, 24), maps, atol=2e-2, rtol=0)


def test_the_background_is_cropped_on_demand(scan):
    assert (espirit_maps(scan.kspace, 24, crop=0.0).abs() ** 2).sum(0).min() > 0.9
    cropped = (espirit_maps(scan.kspace, 24, crop=0.95).abs() ** 2).sum(0)
    assert (cropped == 0).float().mean() > 0.1


def test_the_cache_is_used_and_survives_damage(scan, tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path))
    first = espirit_maps(scan.kspace, 24)
    (file,) = (tmp_path / "espirit").iterdir()
    compute = coil_maps._espirit
    calls = []
    monkeypatch.setattr(coil_maps, "_espirit", lambda *a: calls.append(1) or compute(*a))
    assert torch.equal(espirit_maps(scan.kspace, 24), first)
    assert not calls
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(espirit_maps(scan.kspace, 24), first)
    assert torch.equal(espirit_maps(scan.kspace, 24), first)
    assert len(calls) == 1
    espirit_maps(scan.kspace, 24, thresh=0.03)
    assert len(calls) == 2


def test_without_a_writable_cache_it_still_works(scan, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path / "file"))
    assert espirit_maps(scan.kspace, 24).shape == scan.kspace.shape


def test_a_single_coil_sees_everything_alike():
    assert torch.equal(
        espirit_maps(np.ones((1, 12, 10), np.complex64), 0), torch.ones(1, 12, 10, dtype=torch.complex64)
    )


@pytest.mark.parametrize(
    ("kspace", "acs", "message"),
    [
        (np.ones((3, 32, 30), np.complex64), 0, "at least 8 fully sampled lines.*found 0"),
        (np.ones((3, 32, 30), np.complex64), (32, 7), "at least 8 fully sampled lines.*found 7"),
        (np.ones((0, 32, 30), np.complex64), 24, "found complex64 .0, 32, 30"),
        (np.ones((3, 32, 30), np.float32), 24, "complex k-space"),
        (np.zeros((3, 32, 30), np.complex64), 24, "only zeros"),
        (np.full((3, 32, 30), np.nan, np.complex64), 24, "found NaN"),
    ],
)
def test_unusable_calibration_is_refused(kspace, acs, message):
    with pytest.raises(InputError, match=message) as error:
        espirit_maps(kspace, acs, name="scan.h5")
    assert str(error.value).startswith("scan.h5: ")
