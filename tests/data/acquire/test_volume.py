from pathlib import Path

import nibabel
import numpy as np
import pytest

from disinr_monai.data import AcquireVolume, list_cases
from disinr_monai.errors import InputError

AFFINE = np.array([[-1.0, 0.0, 0.0, 30.0], [0.0, 1.5, 0.0, -20.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def body(shape=(20, 16, 12), seed=0) -> np.ndarray:
    """HU: air, a body off centre, a denser part towards one corner."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = np.where((x / 0.8) ** 2 + (y / 0.7) ** 2 + (z / 0.9) ** 2 < 1, 40.0, -1000.0)
    image[(x - 0.3) ** 2 + (y - 0.2) ** 2 + (z - 0.3) ** 2 < 0.05] = 900.0
    return (image + np.random.default_rng(seed).normal(0, 5, shape)).astype(np.float32)


def acquire(path: Path, image: np.ndarray, affine: np.ndarray = AFFINE, **options) -> dict:
    nibabel.save(nibabel.Nifti1Image(image, affine), path)
    return AcquireVolume(**options)(list_cases(path, "volume")[0])


def world_of_peak(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    weights = np.clip(image - 0.85, 0, None)
    index = [(weights * i).sum() / weights.sum() for i in np.indices(image.shape)]
    return affine[:3, :3] @ index + affine[:3, 3]


def test_a_ct_volume_is_one_windowed_case(tmp_path):
    image = body()
    case = acquire(tmp_path / "a.nii.gz", image)
    assert case["info"]["volume_modality"] == "ct"
    assert case["reference"].shape == (1, 20, 16, 12)
    # The first axis pointed to the left: the canonical one points to the right.
    expected = np.clip((image[::-1] + 800) / 1200, 0, 1)
    np.testing.assert_allclose(case["reference"][0], expected, atol=1e-6)
    np.testing.assert_allclose(case["affine"][:3, 0], [1, 0, 0])
    np.testing.assert_array_equal(case["scan"].measurement[0], case["reference"].flatten())
    np.testing.assert_allclose(
        case["reference"][0] * case["output_scale"] + case["output_offset"], np.clip(image[::-1], -800, 400), atol=1e-3
    )


def test_an_mr_volume_is_scaled_by_its_percentile(tmp_path):
    image = np.abs(body()) + 3
    case = acquire(tmp_path / "a.nii.gz", image)
    assert case["info"]["volume_modality"] == "mri"
    np.testing.assert_allclose(case["reference"][0] * case["output_scale"], image[::-1], rtol=1e-5)
    assert case["output_scale"] == pytest.approx(np.percentile(image, 99.9), rel=1e-5)


@pytest.mark.parametrize(("low", "kind", "found"), [(-50, "auto", None), (-50, "mri", "mri"), (-50, "ct", "ct")])
def test_values_that_could_be_either_are_not_guessed(tmp_path, low, kind, found):
    image = np.linspace(low, 300, 20 * 16 * 12).reshape(20, 16, 12).astype(np.float32)
    if found is None:
        with pytest.raises(InputError, match="say which with --volume_modality ct or mri"):
            acquire(tmp_path / "a.nii.gz", image, volume_modality=kind)
    else:
        case = acquire(tmp_path / "a.nii.gz", image, volume_modality=kind)
        assert case["info"]["volume_modality"] == found


def test_scaled_values_are_no_ct(tmp_path):
    with pytest.raises(InputError, match="expected CT values in HU"):
        acquire(tmp_path / "a.nii.gz", np.random.default_rng(0).random((8, 8, 8)), volume_modality="ct")


@pytest.mark.parametrize("options", [{"volume_shape": [10, 12, 9]}, {"max_voxels": 1500}])
def test_resampling_leaves_the_world_where_it_is(tmp_path, options, caplog):
    image = body()
    whole = acquire(tmp_path / "a.nii.gz", image)
    with caplog.at_level("INFO"):
        part = acquire(tmp_path / "a.nii.gz", image, **options)
    assert "resampled from 20 x 16 x 12" in caplog.text
    if "volume_shape" in options:
        assert part["reference"].shape == (1, 10, 12, 9)
    assert part["reference"].numel() <= options.get("max_voxels", 1e9)
    corners = []
    for case in (whole, part):
        first = np.append([-0.5] * 3, 1)
        last = np.append(np.array(case["reference"].shape[1:]) - 0.5, 1)
        corners.append(np.array([case["affine"].numpy() @ first, case["affine"].numpy() @ last]))
    np.testing.assert_allclose(*corners, atol=1e-9)
    places = [world_of_peak(np.asarray(case["reference"][0]), case["affine"].numpy()) for case in (whole, part)]
    assert np.abs(places[0] - places[1]).max() < 0.5 * np.diag(np.abs(AFFINE))[:3].min()


def test_noise_and_sampling(tmp_path):
    image = body((24, 24, 24))
    case = acquire(tmp_path / "a.nii.gz", image, noise_std=0.1, sampled_fraction=0.25)
    assert case["scan"].operator.n_measured == round(0.25 * 24**3)
    difference = case["scan"].measurement - case["scan"].operator(case["reference"])
    assert float(difference.std()) == pytest.approx(0.1, rel=0.05)
    again = acquire(tmp_path / "a.nii.gz", image, noise_std=0.1, sampled_fraction=0.25)
    assert (case["scan"].measurement == again["scan"].measurement).all()
    other = acquire(tmp_path / "a.nii.gz", image, noise_std=0.1, sampled_fraction=0.25, seed=1)
    assert (case["scan"].operator.pixels != other["scan"].operator.pixels).any()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"volume_modality": "pet"}, "volume_modality"),
        ({"volume_shape": [10, 10]}, "volume_shape"),
        ({"sampled_fraction": 0.0}, "sampled_fraction"),
        ({"sampled_fraction": 1.5}, "sampled_fraction"),
        ({"points_per_step": 0}, "points_per_step"),
        ({"noise_std": -1.0}, "noise_std"),
    ],
)
def test_wrong_settings_name_their_key(options, key):
    with pytest.raises(InputError, match=rf"^{key}: expected"):
        AcquireVolume(**options)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5, 5)), "the same value 0 everywhere"),
        (np.full((5, 5, 5), np.nan), "found 125 NaN"),
        (np.random.default_rng(0).random((5, 5, 1)), "at least 2 voxels along each axis, found 5 x 5 x 1"),
    ],
)
def test_bad_volumes_are_refused(tmp_path, image, message):
    with pytest.raises(InputError, match=message):
        acquire(tmp_path / "a.nii.gz", image.astype(np.float32))


def test_a_raw_measurement_is_no_volume(tmp_path):
    import h5py

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 8), np.complex64)
    with pytest.raises(InputError, match=r"expected NIfTI \(.nii, .nii.gz\) or DICOM \(CT or MR\) files"):
        list_cases(tmp_path, "volume")


def test_a_real_dicom_series_is_the_nifti_of_it(data_dir):
    """Geometry and values against the same scan, converted by others and averaged 2 x 2 in the plane."""
    cases = list_cases(data_dir / "ct_dicom", "volume")
    assert len(cases) == 1
    series = AcquireVolume()(cases[0])
    assert series["info"]["format"] == "dicom"
    assert series["reference"].shape == (1, 512, 512, 18)
    nifti = AcquireVolume()(list_cases(data_dir / "ct3d" / "KiTS-00072_256.nii.gz", "volume")[0])
    low = series["reference"][0].unfold(0, 2, 2).unfold(1, 2, 2).mean((-1, -2))
    corners = [c["affine"].numpy() @ [-0.5, -0.5, 0, 1] for c in (series, nifti)]
    np.testing.assert_allclose(*corners, atol=0.05)
    assert float((low - nifti["reference"][0]).abs().mean()) < 0.01
