import json

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireMRI
from disinr_monai.data.cases import list_cases
from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom, write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.methods import TotalVariation
from disinr_monai.output.metrics import image_metrics


@pytest.fixture(scope="module")
def phantom_case(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, "mri", 1, size=72)
    return list_cases(folder, "mri")[0]


@pytest.fixture(scope="module")
def full_scan() -> np.ndarray:
    image = brain_phantom(72, np.random.default_rng(3))[8:66] * 500  # (58, 72)
    return simulate_kspace(image, n_coils=4, noise_std=0.01).kspace[None]


def _check_contract(case: dict) -> None:
    operator = case["scan"].operator
    assert case["modality"] == "mri"
    assert tuple(case["scan"].measurement.shape) == operator.range_shape
    assert case["points"].shape == (2, *operator.domain_shape[1:])
    assert case["affine"].shape == (4, 4)
    assert case["scan"].weights is None
    json.dumps(case["info"])
    image = torch.linalg.vector_norm(operator.adjoint(case["scan"].measurement), dim=0)
    assert 0.8 < float(image.max()) < 2
    if "reference" in case:
        assert case["reference"].shape == (1, *operator.domain_shape[1:])
        assert float(case["reference"].max()) == pytest.approx(1)


def test_a_simulated_case(phantom_case):
    case = AcquireMRI(image_size=64, n_coils=4, maps="simulated", acs=12, acceleration=4)(phantom_case)
    _check_contract(case)
    assert case["scan"].operator.domain_shape == (2, 64, 64)
    assert np.linalg.norm(case["affine"][:3, 0]) == pytest.approx(240 / 64)
    lines = (case["scan"].measurement.abs().sum((0, 1)) > 0).sum()
    assert 64 / 4 <= lines <= 64 / 4 + 12
    assert case["info"]["sampled_fraction"] == pytest.approx(float(lines) / 64)


def test_a_scan_may_be_simulated_like_a_real_one(phantom_case):
    settings = {"image_size": 64, "n_coils": 4, "maps": "simulated"}
    plain = AcquireMRI(**settings)(phantom_case)
    case = AcquireMRI(**settings, object_phase="tissue", coils="array")(phantom_case)
    _check_contract(case)
    assert (case["info"]["object_phase"], case["info"]["coils"]) == ("tissue", "array")
    assert (plain["info"]["object_phase"], plain["info"]["coils"]) == ("smooth", "ring")
    # Another phase, the same head.
    assert not torch.allclose(case["scan"].measurement, plain["scan"].measurement, atol=0.1)
    assert torch.corrcoef(torch.stack([case["reference"].ravel(), plain["reference"].ravel()]))[0, 1] > 0.95
    for key in ("object_phase", "coils"):
        with pytest.raises(InputError, match=f"^{key}: expected .* or .*, found 'none'"):
            AcquireMRI(**{key: "none"})


def test_scales_lead_back_to_the_reference_and_the_file(phantom_case):
    """Noise-free and fully sampled, the adjoint is the reference, and in the file's units the phantom itself."""
    case = AcquireMRI(image_size=72, acceleration=1, noise_std=0.0, maps="simulated")(phantom_case)
    image = torch.linalg.vector_norm(case["scan"].operator.adjoint(case["scan"].measurement), dim=0)
    torch.testing.assert_close(image * case["image_scale"], case["reference"][0], atol=1e-4, rtol=0)
    phantom = brain_phantom(72, np.random.default_rng([0, 0]))
    restored = (image * case["image_scale"] * case["output_scale"]).numpy()
    assert np.corrcoef(restored.ravel(), phantom.ravel())[0, 1] > 0.99
    assert restored.mean() == pytest.approx(phantom.mean(), rel=0.02)


def test_seed_and_name_decide(phantom_case):
    settings = {"image_size": 48, "n_coils": 3, "maps": "simulated", "acs": 8, "acceleration": 3}
    first, again, other = (AcquireMRI(seed=seed, **settings)(phantom_case) for seed in (0, 0, 1))
    assert torch.equal(first["scan"].measurement, again["scan"].measurement)
    assert not torch.equal(first["scan"].measurement, other["scan"].measurement)
    renamed = AcquireMRI(seed=0, **settings)({**phantom_case, "name": "another"})
    assert not torch.equal(first["scan"].measurement, renamed["scan"].measurement)


def test_full_raw_scans_are_undersampled_with_a_reference(full_scan, write_hdf5):
    (listed,) = list_cases(write_hdf5(kspace=full_scan), "mri")
    case = AcquireMRI(acceleration=3, acs=16)(listed)
    _check_contract(case)
    assert case["info"]["retrospective"]
    assert case["info"]["acs_size"][1] == 16
    image = (
        torch.linalg.vector_norm(case["scan"].operator.adjoint(case["scan"].measurement), dim=0) * case["image_scale"]
    )
    assert float(((image - case["reference"][0]) ** 2).mean()) < 0.01
    again = AcquireMRI(acceleration=3, acs=16)(listed)
    assert torch.equal(case["scan"].measurement, again["scan"].measurement)


def test_undersampled_raw_scans_keep_their_mask(full_scan, write_hdf5):
    mask = np.zeros(72, bool)
    mask[::3] = mask[28:44] = True
    (listed,) = list_cases(write_hdf5(kspace=full_scan * mask), "mri")
    case = AcquireMRI()(listed)
    _check_contract(case)
    assert "reference" not in case
    np.testing.assert_array_equal((case["scan"].measurement.abs().sum((0, 1)) > 0).numpy(), mask)
    restored = case["scan"].measurement * case["image_scale"] * case["output_scale"]
    np.testing.assert_allclose(restored.numpy(), full_scan[0] * mask, rtol=1e-4)


def test_a_mask_in_the_file_undersamples_a_full_scan(full_scan, write_hdf5):
    mask = np.zeros(72, np.uint8)
    mask[::4] = mask[28:44] = 1
    (listed,) = list_cases(write_hdf5(kspace=full_scan, mask=mask), "mri")
    case = AcquireMRI()(listed)
    assert "reference" in case
    assert case["info"]["sampled_fraction"] == pytest.approx(mask.mean())


def test_the_files_own_maps_are_used(full_scan, write_hdf5):
    maps = np.full_like(full_scan, 0.5)
    (listed,) = list_cases(write_hdf5(kspace=full_scan, sensitivity_maps=maps), "mri")
    for choice in ("espirit", "file", "simulated"):
        case = AcquireMRI(maps=choice, acs=0)(listed)
        assert (case["scan"].operator.maps == 0.5).all()
        assert case["info"]["maps"] == "file"


@pytest.mark.parametrize("pattern", ["random", "poisson", "radial"])
def test_patterns_of_a_simulated_scan(phantom_case, pattern):
    settings = {"image_size": 64, "n_coils": 4, "acs": 12, "acceleration": 4, "pattern": pattern, "noise_std": 0.003}
    case, true = (AcquireMRI(maps=maps, **settings)(phantom_case) for maps in ("espirit", "simulated"))
    _check_contract(case)
    assert case["info"]["pattern"] == pattern
    if pattern == "radial":
        assert case["scan"].operator.range_shape == (4, round(np.pi / 2 * 64 / 4), 128)
        assert case["info"]["acs_size"] >= [12, 12]
    else:
        assert case["info"]["sampled_fraction"] == pytest.approx(1 / 4, rel=0.05)
    # The maps come from the measured centre and are those of the simulation, up to a common phase.
    maps, expected = case["scan"].operator.maps, true["scan"].operator.maps
    inside = maps.abs().sum(0) > 0
    assert inside.float().mean() > 0.3
    assert float((maps * expected.conj()).sum(0).abs()[inside].quantile(0.02)) > 0.96
    # The same coils: the images agree with the reference, which does not know the pattern.
    image = TotalVariation(tv_weight=3e-4, n_iterations=60)(None, None, case=case)[0]
    image = torch.linalg.vector_norm(image, dim=0) * case["image_scale"]
    assert image_metrics(image[None], case["reference"])["psnr"] > 23
    uniform = AcquireMRI(**{**settings, "pattern": "uniform"})(phantom_case)
    torch.testing.assert_close(case["reference"], uniform["reference"])


def test_a_whole_number_may_be_written_with_a_point(phantom_case):
    """As JSON written by other programs has it; half a line is refused."""
    settings = {"n_coils": 4, "image_size": 64, "acs": 8}
    whole = AcquireMRI(**settings)(phantom_case)
    point = AcquireMRI(**{key: float(value) for key, value in settings.items()})(phantom_case)
    assert torch.equal(whole["scan"].measurement, point["scan"].measurement)
    with pytest.raises(InputError, match=r"acs: expected a whole number from 0 to 8192, found 7\.5"):
        AcquireMRI(acs=7.5)


def test_seed_turns_the_spokes(phantom_case):
    settings = {"image_size": 48, "n_coils": 2, "maps": "simulated", "pattern": "radial"}
    first, again, other = (AcquireMRI(seed=seed, **settings)(phantom_case) for seed in (0, 0, 1))
    assert torch.equal(first["scan"].measurement, again["scan"].measurement)
    assert not np.allclose(first["scan"].operator.trajectory, other["scan"].operator.trajectory)


def test_full_raw_scans_along_spokes(full_scan, write_hdf5):
    (listed,) = list_cases(write_hdf5(kspace=full_scan), "mri")
    case = AcquireMRI(pattern="radial", acceleration=1.5)(listed)
    _check_contract(case)
    assert case["scan"].operator.domain_shape == (2, 58, 72)
    assert case["info"]["retrospective"]
    image = (
        torch.linalg.vector_norm(case["scan"].operator.adjoint(case["scan"].measurement), dim=0) * case["image_scale"]
    )
    assert image_metrics(image[None], case["reference"])["psnr"] > 22


def test_what_cannot_be_acquired(full_scan, write_hdf5, phantom_case):
    sparse = full_scan.copy()
    sparse[..., 1::2] = 0
    (listed,) = list_cases(write_hdf5("no_acs.h5", kspace=sparse), "mri")
    with pytest.raises(InputError, match=r"no_acs\.h5: coil maps need at least 8 fully sampled lines"):
        AcquireMRI()(listed)
    with pytest.raises(InputError, match=r"no_acs\.h5: expected `sensitivity_maps`.*found none"):
        AcquireMRI(maps="file")(listed)
    with pytest.raises(InputError, match=r"phantom.*expected `sensitivity_maps`"):
        AcquireMRI(maps="file")(phantom_case)
    wrong = {"maps": "x", "acceleration": 0, "n_coils": 0, "noise_std": -1, "image_size": "a", "pattern": "star"}
    for key, value in wrong.items():
        with pytest.raises(InputError, match=f"^{key}: expected"):
            AcquireMRI(**{key: value})


def test_a_real_raw_scan(real_data):
    (listed,) = list_cases(real_data("kspace/brain8ch_poisson_undersampled_sigpy.h5"), "mri")
    case = AcquireMRI()(listed)
    _check_contract(case)
    assert case["scan"].operator.domain_shape == (2, 230, 180)
    assert case["info"]["acs_size"] == [24, 24]
    image = torch.linalg.vector_norm(case["scan"].operator.adjoint(case["scan"].measurement), dim=0)
    # A head in the middle, dark around it.
    assert image[60:170, 50:130].mean() > 5 * image[:12].mean()
    inside = image > 0.2
    assert (case["scan"].operator.maps.abs().sum(0) > 0)[torch.fft.ifftshift(inside)].float().mean() > 0.995


def test_a_real_volume(real_data):
    listed = list_cases(real_data("mri3d/ARC_M2208_T2w_1mm_brain.nii.gz"), "mri", 1)[0]
    case = AcquireMRI(maps="simulated")(listed)
    _check_contract(case)
    assert case["scan"].operator.domain_shape == (2, 256, 256)
    assert case["scan"].operator.range_shape == (8, 256, 256)
