import nibabel as nib
import numpy as np
import pytest
import torch

from disinr_monai.data import AcquirePET, list_cases
from disinr_monai.data.simulate.pet import WATER_511, water_body
from disinr_monai.errors import InputError
from disinr_monai.methods import MLEM, DirectInverse, SeparableSurrogates

SMALL = {"image_size": 24, "n_views": 30, "counts": 2e5}
AFFINE = np.diag([5.0, 5.0, 8.0, 1.0])


def activity(size: int = 48) -> np.ndarray:
    """A body with a hot spot on the patient's right in front and a cold one: no flip or turn maps it onto itself."""
    x = (np.arange(size) - (size - 1) / 2) / size
    right, front = x[:, None], x[None]
    image = 1000.0 * ((right / 0.4) ** 2 + (front / 0.3) ** 2 < 1)
    image[(right - 0.2) ** 2 + (front - 0.1) ** 2 < 0.06**2] = 5000
    image[(right + 0.1) ** 2 + (front + 0.05) ** 2 < 0.1**2] = 0
    return image[..., None].astype(np.float32)


def measured(path, **options) -> list[dict]:
    acquire = AcquirePET(**options)
    return [acquire(case) for case in list_cases(path, "pet", 4, options.get("sinogram_axes"))]


def test_simulated_scan_is_what_it_says(write_nifti):
    path = write_nifti(activity(), AFFINE)
    case, again, other = (measured(path, **SMALL | {"counts": 5e4}, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(case["scan"].measurement, again["scan"].measurement)
    assert not torch.equal(case["scan"].measurement, other["scan"].measurement)
    assert float(case["scan"].measurement.sum()) == pytest.approx(5e4, rel=0.03)
    assert torch.equal(case["scan"].measurement, case["scan"].measurement.round())
    share = float(case["scan"].counts.background.sum()) / 5e4
    assert share == pytest.approx(0.4, rel=1e-3)
    # The operator that inverts it expects the same counts, although another, finer one made them.
    expected = case["scan"].counts.expected(case["scan"].operator(case["reference"]))
    deviance = (case["scan"].measurement - expected).square() / expected
    assert float(deviance.mean()) == pytest.approx(1, abs=0.15)
    assert float(case["reference"].max()) == 1
    assert case["output_scale"] == pytest.approx(5000, rel=0.05)


def test_orientation_from_file_to_image(write_nifti):
    turned = nib.as_closest_canonical(nib.Nifti1Image(activity(), AFFINE)).as_reoriented(
        np.array([[1, -1], [0, 1], [2, 1]])
    )
    path = write_nifti(np.asarray(turned.dataobj), turned.affine)
    case = measured(path, **SMALL)[0]
    image = MLEM(n_iterations=3, n_subsets=6)(None, None, case=case)[0]
    hot = np.unravel_index(int(image[0].argmax()), image.shape[1:])
    world = case["affine"].numpy() @ [*hot, 0, 1]
    centre = turned.affine @ [*(np.asarray(turned.shape[:2]) - 1) / 2, 0, 1]
    np.testing.assert_allclose(world[:2] - centre[:2], [0.2 * 240, 0.1 * 240], atol=15)


def test_mu_map_is_read_beside_the_activity_and_is_no_scan(write_nifti):
    path = write_nifti(activity(), AFFINE, "subject.nii.gz")
    mu = WATER_511 * (activity() > 0)
    write_nifti(mu.astype(np.float32), AFFINE, "subject_mumap.nii.gz")
    (case,) = measured(path.parent, **SMALL)
    assert case["info"]["attenuation"] == "subject_mumap.nii.gz"
    (none,) = measured(path.parent, **SMALL, attenuation="none")
    ratio = case["scan"].operator.sensitivity / case["scan"].operator.sensitivity.max()
    middle = ratio[0, 0, ratio.shape[-1] // 2]  # 0.6 of 240 mm of water, less the cold spot
    assert 0.2 < float(middle) < 0.35
    assert float(none["scan"].operator.sensitivity.std()) == 0
    write_nifti((10 * mu).astype(np.float32), AFFINE, "subject_mumap.nii.gz")
    with pytest.raises(InputError, match="1/mm"):
        measured(path.parent, **SMALL)
    write_nifti(mu[:-1].astype(np.float32), AFFINE, "subject_mumap.nii.gz")
    with pytest.raises(InputError, match="grid of the activity"):
        measured(path.parent, **SMALL)


def test_water_fills_the_outline():
    body = water_body(activity()[..., 0], 5.0)
    assert body[24, 24] == pytest.approx(WATER_511)
    assert body[18, 21] == pytest.approx(WATER_511)  # the cold spot is body
    assert body[0, 0] == 0


def emission_file(write_hdf5, **change):
    counts = np.random.default_rng(0).poisson(20, (30, 24)).astype(np.float32)
    content = {"sinogram": counts, "background": np.full((30, 24), 2.0), **change.pop("datasets", {})}
    content = {key: value for key, value in content.items() if value is not None}
    return write_hdf5(attributes={"bin_spacing": 4.0, **change}, **content)


def test_sinogram_file_as_it_is(write_hdf5):
    path = emission_file(write_hdf5, pixel_spacing=6.0, fwhm=5.0, datasets={"attenuation": np.full((30, 24), 0.7)})
    (case,) = measured(path)
    assert case["scan"].operator.domain_shape == (1, 16, 16)
    assert case["scan"].operator.fwhm == 5
    assert float(case["scan"].counts.background.mean()) == 2
    sensitivity = case["scan"].operator.sensitivity
    assert float(sensitivity.min()) == pytest.approx(float(sensitivity.max()))
    image = MLEM(n_iterations=4)(None, None, case=case)
    assert 0.1 < float(image.max()) < 5  # about 1
    assert case["output_scale"] == pytest.approx(float(sensitivity.max()) / np.exp(-0.7), rel=1e-4)
    assert "reference" not in case


@pytest.mark.parametrize("axes", ["view,plane,bin", ("bin", "view", "plane")])
def test_planes_and_axes(write_hdf5, axes):
    stack = np.random.default_rng(0).poisson(9, (3, 30, 24)).astype(np.float32)
    order = [("plane", "view", "bin").index(name) for name in (axes if isinstance(axes, tuple) else axes.split(","))]
    path = write_hdf5(sinogram=stack.transpose(order), attributes={"bin_spacing": 4.0})
    cases = measured(path, sinogram_axes=axes)
    assert len(cases) == 3
    assert np.array_equal(cases[2]["scan"].measurement[0], stack[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": {"sinogram": None, "other": np.ones(3)}}, "expected a dataset `sinogram`"),
        ({"datasets": {"sinogram": np.ones(5)}}, "must have shape"),
        ({"datasets": {"sinogram": np.zeros((30, 24))}}, "zeros only"),
        ({"datasets": {"sinogram": np.ones((30, 24), complex)}}, "must be real"),
        ({"datasets": {"sinogram": np.full((30, 24), np.nan)}}, "must be finite"),
        ({"datasets": {"sinogram": np.where(np.arange(24) % 4 == 0, -1.0, np.ones((30, 24)))}}, "precorrected"),
        ({"datasets": {"sinogram": np.full((30, 24), -1.0)}}, "wrong sign"),
        ({"datasets": {"background": np.ones((30, 23))}}, "must have the shape"),
        ({"datasets": {"background": np.full((30, 24), -1.0)}}, "must not be negative"),
        ({"datasets": {"attenuation_factors": np.full((30, 24), 7.0)}}, "between 0 and 1"),
        ({"datasets": {"randoms": np.ones((30, 24))}}, "found both"),
        ({"datasets": {"background": np.full((30, 24), 1e6)}}, "above the background"),
        ({"datasets": {"angles": np.arange(30.0)}}, "radians"),
        ({"datasets": {"angles": np.arange(29.0)}}, "30 finite angles"),
        ({"bin_spacing": -1.0}, "`bin_spacing` must be"),
        ({"axes": "view,row"}, "sinogram_axes"),
        ({"image_shape": (5,)}, "image_shape"),
        ({"affine": np.eye(3)}, "affine"),
        ({"datasets": {"transmission": np.ones((30, 24)), "sinogram": None}}, "transmission.json"),
    ],
)
def test_bad_sinogram_files_are_named(write_hdf5, change, message):
    path = emission_file(write_hdf5, **change)
    with pytest.raises(InputError, match=message) as caught:
        measured(path)
    assert "\n" not in str(caught.value)


def test_missing_geometry_and_blank_are_asked_for(write_hdf5):
    path = write_hdf5(sinogram=np.ones((30, 24)), transmission=np.ones((30, 24)))
    with pytest.raises(InputError, match="--bin_spacing"):
        measured(path)
    with pytest.raises(InputError, match="blank"):
        measured(path, scan="transmission")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match="damaged"):
        measured(path)


@pytest.mark.parametrize(
    "option",
    [
        {"counts": 0},
        {"scan": "both"},
        {"attenuation": "lead"},
        {"randoms_fraction": 0.6, "scatter_fraction": 0.5},
        {"bin_spacing": "wide"},
        {"arc": -3},
    ],
)
def test_impossible_options_are_named(option):
    with pytest.raises(InputError, match=next(iter(option))):
        AcquirePET(**option)


def test_ct_is_not_disturbed_by_pet_files(write_hdf5):
    write_hdf5("transmission.h5", transmission=np.ones((4, 5)), blank=np.ones((4, 5)))
    path = write_hdf5("ct.h5", sinogram=np.ones((4, 5)))
    assert [case["name"] for case in list_cases(path.parent, "ct")] == ["ct"]


def test_real_transmission_phantom(real_data):
    path = real_data("pet/mirt_pet_transmission_phantom.h5")
    options = {"scan": "transmission", "sinogram_axes": "bin,view", "bin_spacing": 3.375, "blank_scale": 1.03}
    (case,) = measured(path, **options)
    fbp = DirectInverse()(None, None, case=case)[0] * case["output_scale"]
    ml = SeparableSurrogates(n_iterations=8)(None, None, case=case)[0] * case["output_scale"]
    inside = (slice(70, 90), slice(70, 90))
    for image in (fbp, ml):
        assert 0.004 < float(image[0][inside].mean()) < 0.013  # soft tissue or lung, 1/mm
    assert float(ml[0, :12].abs().mean()) < 0.001


def test_real_precorrected_sinogram(real_data):
    path = real_data("pet/stir_recon_demo_smalllong.h5")
    axes = {"sinogram_axes": "view,plane,bin", "bin_spacing": 3.0}
    with pytest.raises(InputError, match="precorrected"):
        AcquirePET(**axes)(list_cases(path, "pet", 4, axes["sinogram_axes"])[13])
    cases = list_cases(path, "pet", 4, axes["sinogram_axes"])
    assert len(cases) == 27
    case = AcquirePET(**axes, precorrected=True)(cases[13])
    image = MLEM(n_iterations=2, n_subsets=8)(None, None, case=case)[0, 0]
    rows, columns = np.indices(image.shape) - 37.0
    outside = torch.from_numpy(np.hypot(rows, columns) > 36)
    assert float(image[outside].mean()) < 0.2 * float(image[~outside].mean())


def test_pet_dicom_in_its_units(write_dicom):
    path = write_dicom(pixels=activity()[..., 0].astype(np.int16), Modality="PT", RescaleSlope=2, RescaleIntercept=0)
    (case,) = measured(path, **SMALL)
    assert case["info"]["format"] == "dicom"
    assert case["output_scale"] == pytest.approx(10000, rel=0.05)
    assert case["subject"].startswith("patient-")
