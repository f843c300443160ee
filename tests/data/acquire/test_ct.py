import json

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireCT
from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.sinogram import read_sinogram
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.methods import TotalVariation

GEOMETRY = {
    "angles": np.linspace(0, 6, 11),
    "detector_spacing": 2.0,
    "source_distance": 300.0,
    "detector_distance": 200.0,
    "pixel_spacing": 1.5,
    "image_shape": [20, 24],
}
SMALL = {"image_size": 48, "pixel_spacing": 4.0, "n_detectors": 160, "detector_spacing": 4.0, "n_views": 20}


@pytest.fixture(scope="module")
def phantom_case(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, "ct", 1, size=96)
    return list_cases(folder, "ct")[0]


def _sinogram() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 3, (11, 30)).astype(np.float32)


def test_a_sinogram_file_with_its_geometry(write_hdf5):
    scan = read_sinogram(write_hdf5(sinogram=_sinogram(), attributes=GEOMETRY))
    np.testing.assert_array_equal(scan["projections"], _sinogram())
    assert scan["geometry"].image_shape == (20, 24)
    assert scan["settings"]["water_attenuation"] == 0.02
    # The middle of the image is on the rotation axis.
    np.testing.assert_allclose(scan["affine"] @ [9.5, 11.5, 0, 1], [0, 0, 0, 1])
    datasets = {**GEOMETRY, "sinogram": _sinogram()[None], "affine": np.diag([2.0, 2, 2, 1])}
    np.testing.assert_array_equal(read_sinogram(write_hdf5(**datasets))["affine"], np.diag([2.0, 2, 2, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sinogram": None}, r"expected a dataset `sinogram`.*found keys none"),
        ({"sinogram": np.ones((2, 2, 11, 30))}, r"must have shape .*found \(2, 2, 11, 30\)"),
        ({"sinogram": np.ones((2, 11, 30))}, "holds 2 scans, found the request for scan None"),
        ({"sinogram": np.zeros((0, 30))}, "`angles` must hold 0|found the same value everywhere or no value"),
        ({"sinogram": np.full((11, 30), b"a")}, "must be real, found"),
        ({"geometry": "helix"}, "`geometry` must be one of parallel, fan_flat, fan_curved, cone, found 'helix'"),
        ({"geometry": "cone"}, "geometry cone must have 3 axes"),
        ({"detector_offset": np.nan}, "`detector_offset` must be one finite number"),
        ({"detector_distance": "far"}, "`detector_distance` must be one finite number"),
        ({"angles": "none"}, "must hold 11 finite angles"),
        ({"sinogram": np.ones(30)}, r"must have shape .*found \(30,\)"),
        ({"sinogram": _sinogram() * 1j}, "must be real, found complex"),
        ({"sinogram": np.full((11, 30), np.nan)}, "found 330 NaN"),
        ({"sinogram": np.zeros((11, 30))}, "the same value everywhere"),
        ({"source_distance": None}, "geometry source_distance as attribute"),
        ({"detector_spacing": -1.0}, "`detector_spacing` must be one positive length"),
        ({"angles": np.arange(3.0)}, "must hold 11 finite angles .* found 3"),
        ({"angles": np.linspace(0, 360, 11)}, "must be in radians, found a range of 360"),
        ({"image_shape": [20]}, "`image_shape` must be two whole numbers"),
        ({"image_shape": [np.inf, 20]}, r"must be two whole numbers \(H, W\) from 2 to 8192, found"),
        ({"image_shape": [10**6, 10**6]}, "from 2 to 8192, found"),
        ({"image_shape": "large"}, "`image_shape` must be two whole numbers"),
        ({"affine": "none"}, "`affine` must be a finite 4x4"),
        ({"affine": np.eye(3)}, "`affine` must be a finite 4x4"),
    ],
)
def test_bad_sinograms_are_named_with_what_was_found(write_hdf5, change, message):
    values = {"sinogram": _sinogram(), **GEOMETRY, **change}
    sinogram = values.pop("sinogram")
    datasets = {} if sinogram is None else {"sinogram": sinogram}
    path = write_hdf5("bad.h5", attributes={k: v for k, v in values.items() if v is not None}, **datasets)
    with pytest.raises(InputError, match=message) as error:
        read_sinogram(path)
    assert str(path) in str(error.value)


def test_impossible_settings():
    wrong = {"n_views": 0, "photons": 0.5, "electronic_noise": 1e308, "image_size": 2, "detector_spacing": 1e308}
    wrong |= {"pixel_spacing": 1e-320, "source_distance": 1e12, "detector_distance": -1}
    for key, value in wrong.items():
        with pytest.raises(InputError, match=f"^{key}: expected"):
            AcquireCT(**{key: value})


@pytest.mark.parametrize(
    ("shape", "size"), [((512, 512), 512), ((300, 260), 512), ((256, 256), 512), ((700, 768), 768)]
)
def test_the_measured_image_is_finer_than_the_reconstruction(shape, size):
    acquire = AcquireCT()
    image = np.full(shape, -1000.0, np.float32)
    image[shape[0] // 4 : shape[0] // 2, 50:120] = 100
    fine, affine = acquire._fine_image(image, np.eye(4))
    assert fine.shape == (size, size)
    assert fine.min() == -1000
    assert fine.max() == pytest.approx(100)
    middle = (size - 1) / 2
    np.testing.assert_allclose((affine @ [middle, middle, 0, 1])[:2], (np.array(shape) - 1) / 2, atol=0.51)


def test_a_simulated_case(phantom_case):
    case = AcquireCT(**SMALL)(phantom_case)
    assert case["modality"] == "ct"
    assert tuple(case["scan"].measurement.shape) == case["scan"].operator.range_shape == (1, 20, 160)
    assert case["reference"].shape == case["scan"].operator.domain_shape == (1, 48, 48)
    assert case["points"].shape == (2, 48, 48)
    assert case["scan"].weights.shape == case["scan"].measurement.shape
    assert float(case["scan"].weights.mean()) == pytest.approx(1, rel=0.01)
    assert np.linalg.norm(case["affine"][:3, 0]) == pytest.approx(400 / 48)
    assert case["reference"].min() == 0
    json.dumps(case["info"])


def test_the_operator_explains_the_measurement(phantom_case):
    case = AcquireCT(photons=0, **SMALL)(phantom_case)
    expected = case["scan"].operator(case["reference"])
    error = torch.linalg.vector_norm(expected - case["scan"].measurement) / torch.linalg.vector_norm(
        case["scan"].measurement
    )
    assert 1e-6 < float(error) < 0.05


def test_seed_and_name_decide(phantom_case):
    first, again, other = (AcquireCT(seed=seed, **SMALL)(phantom_case)["scan"].measurement for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_sinogram_file_is_taken_as_it_is(write_hdf5):
    (listed,) = list_cases(write_hdf5(sinogram=_sinogram(), attributes=GEOMETRY), "ct")
    case = AcquireCT()(listed)
    assert "reference" not in case
    assert case["scan"].operator.domain_shape == (1, 20, 24)
    # In units of the pixel, 1.5 mm.
    np.testing.assert_allclose(case["scan"].measurement[0] * 0.024 * 1.5, _sinogram(), rtol=1e-5)
    assert case["scan"].operator.geometry.source_distance == 200.0
    assert case["info"]["pixel_spacing"] == 1.5
    json.dumps(case["info"])


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"geometry": "parallel", "detector_offset": 3.0, "axis_offset": 1.5}, "ParallelBeam"),
        ({"geometry": "fan_curved", "detector_offset": 3.0}, "FanBeam"),
        ({"geometry": "cone", "image_shape": [20, 24, 6], "detector_spacing_v": 3.0}, "ConeBeam"),
    ],
)
def test_the_geometry_is_that_of_the_file(write_hdf5, attributes, name):
    sinogram = np.repeat(_sinogram()[:, None], 5, axis=1) if name == "ConeBeam" else _sinogram().astype(">f4")
    path = write_hdf5(sinogram=sinogram, attributes={**GEOMETRY, **attributes})
    (listed,) = list_cases(path, "ct")
    case = AcquireCT()(listed)
    operator = case["scan"].operator
    assert type(operator).__name__ == name
    assert operator.domain_shape == (1, *attributes.get("image_shape", [20, 24]))
    if name == "ParallelBeam":
        assert operator.geometry.detector_offset == pytest.approx(1.0)  # (3 - 1.5) mm in pixels
    elif name == "FanBeam":
        assert operator.geometry.curved
        assert operator.geometry.detector_offset == pytest.approx(2.0)
    else:
        spacings = (operator.geometry.detector_spacing, operator.geometry.detector_spacing_v)
        assert spacings == pytest.approx((2 / 1.5, 3 / 1.5))
        assert case["points"].shape == (3, 20, 24, 6)
    assert torch.isfinite(operator.direct_inverse(case["scan"].measurement)).all()


def test_what_the_file_lacks_is_given(write_hdf5):
    (listed,) = list_cases(write_hdf5(sinogram=_sinogram()), "ct")
    with pytest.raises(InputError, match=r"expected the geometry detector_spacing, angles, .*--ct_geometry"):
        AcquireCT()(listed)
    with pytest.raises(InputError, match=r"ct_geometry: expected .*, found sourcedistance"):
        AcquireCT(file_geometry={"sourcedistance": 3})(listed)
    given = {key: GEOMETRY[key] for key in ("angles", "detector_spacing", "source_distance", "detector_distance")}
    case = AcquireCT(image_size=32, file_geometry=given)(listed)
    # The detector's field of view at the axis: 30 cells of 2 mm, magnified 5/3 times.
    assert case["info"]["pixel_spacing"] == pytest.approx(30 * 2 * 0.6 / 32)
    assert case["scan"].operator.domain_shape == (1, 32, 32)


def test_the_helsinki_sinograms(real_data):
    """Four discs of 70 mm in one file, geometry in the challenge's names."""
    cases = list_cases(real_data("ct_raw/htc2022_ta-td_30deg_fanbeam.h5"), "ct")
    assert [case["slice"] for case in cases] == [0, 1, 2, 3]
    case = AcquireCT(image_size=128)(cases[0])
    assert case["info"]["source_distance"] == pytest.approx(410.66)
    assert case["info"]["detector_distance"] == pytest.approx(553.74 - 410.66)
    # 560 cells of 0.2 mm, magnified 1.348 times.
    assert case["info"]["pixel_spacing"] == pytest.approx(560 * 0.1483223 / 128, rel=1e-4)
    operator = case["scan"].operator
    angles = np.degrees(np.asarray(operator.geometry.angles))
    assert angles[[0, -1]] == pytest.approx([269, 299])
    image = TotalVariation(tv_weight=1.0, absolute=True, non_negative=True, n_iterations=40).solve(case["scan"])
    assert float((operator(image) - case["scan"].measurement).norm() / case["scan"].measurement.norm()) < 0.03
    # The disc lies within the field of view: across the arc's middle direction its width is 70 mm.
    middle = image[0, :, 64] if abs(np.cos(np.radians(284))) < 0.7 else image[0, 64]
    assert float(image.max()) > 1.0
    assert int((middle > 0.3).sum()) * case["info"]["pixel_spacing"] == pytest.approx(70, abs=16)


def test_a_source_inside_the_patient_is_refused(phantom_case):
    with pytest.raises(InputError, match="phantom"):
        AcquireCT(**{**SMALL, "source_distance": 20.0})(phantom_case)
