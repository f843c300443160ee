from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from disinr_monai import operators
from disinr_monai.data import AcquireCT
from disinr_monai.data.cases import list_cases
from disinr_monai.data.phantoms import write_phantoms
from disinr_monai.data.read_sinogram import read_sinogram
from disinr_monai.errors import InputError

_HAS_FAN_BEAM = hasattr(operators, "FanBeam") and importlib.util.find_spec("disinr_monai.data.simulate_ct") is not None
needs_fan_beam = pytest.mark.skipif(not _HAS_FAN_BEAM, reason="needs FanBeam and simulate_fan_beam")

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
    np.testing.assert_array_equal(scan["sinogram"], _sinogram()[None])
    assert scan["image_shape"] == (20, 24)
    assert scan["water_attenuation"] == 0.02
    # The middle of the image is on the rotation axis.
    np.testing.assert_allclose(scan["affine"] @ [9.5, 11.5, 0, 1], [0, 0, 0, 1])
    datasets = {**GEOMETRY, "sinogram": _sinogram()[None], "affine": np.diag([2.0, 2, 2, 1])}
    np.testing.assert_array_equal(read_sinogram(write_hdf5(**datasets))["affine"], np.diag([2.0, 2, 2, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sinogram": None}, r"expected a dataset `sinogram`.*found keys none"),
        ({"sinogram": np.ones((2, 11, 30))}, r"must have shape .*found \(2, 11, 30\)"),
        ({"sinogram": np.ones(30)}, r"must have shape .*found \(30,\)"),
        ({"sinogram": _sinogram() * 1j}, "must be real, found complex"),
        ({"sinogram": np.full((11, 30), np.nan)}, "found 330 NaN"),
        ({"sinogram": np.zeros((11, 30))}, "the same value everywhere"),
        ({"source_distance": None}, "geometry source_distance as attribute"),
        ({"detector_spacing": -1.0}, "`detector_spacing` must be one positive length"),
        ({"angles": np.arange(3.0)}, "must hold 11 finite angles .* found 3"),
        ({"angles": np.linspace(0, 360, 11)}, "must be in radians, found a range of 360"),
        ({"image_shape": [20]}, r"`image_shape` must be two numbers"),
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
    for key, value in {"n_views": 0, "photons": -1, "electronic_noise": -1, "image_size": 2}.items():
        with pytest.raises(InputError, match=f"^{key}: expected"):
            AcquireCT(**{key: value})


@pytest.mark.parametrize(
    ("shape", "size"), [((512, 512), 512), ((300, 260), 512), ((256, 256), 512), ((700, 768), 768)]
)
def test_the_measured_image_is_finer_than_the_reconstruction(shape, size):
    acquire = AcquireCT()
    image = np.full(shape, -2000.0, np.float32)
    image[shape[0] // 4 : shape[0] // 2, 50:120] = 100
    fine, affine = acquire._fine_image(image, np.eye(4))
    assert fine.shape == (size, size)
    assert fine.min() == -1000
    assert fine.max() == pytest.approx(100)
    middle = (size - 1) / 2
    np.testing.assert_allclose((affine @ [middle, middle, 0, 1])[:2], (np.array(shape) - 1) / 2, atol=0.51)


@needs_fan_beam
def test_a_simulated_case(phantom_case):
    case = AcquireCT(**SMALL)(phantom_case)
    assert case["modality"] == "ct"
    assert tuple(case["measurement"].shape) == case["operator"].range_shape == (1, 20, 160)
    assert case["reference"].shape == case["operator"].domain_shape == (1, 48, 48)
    assert case["points"].shape == (2, 48, 48)
    assert case["weights"].shape == case["measurement"].shape
    assert float(case["weights"].mean()) == pytest.approx(1, rel=0.01)
    assert np.linalg.norm(case["affine"][:3, 0]) == pytest.approx(400 / 48)
    assert case["reference"].min() == 0
    json.dumps(case["info"])


@needs_fan_beam
def test_the_operator_explains_the_measurement(phantom_case):
    case = AcquireCT(photons=0, **SMALL)(phantom_case)
    expected = case["operator"](case["reference"])
    error = torch.linalg.vector_norm(expected - case["measurement"]) / torch.linalg.vector_norm(case["measurement"])
    assert 1e-6 < float(error) < 0.05


@needs_fan_beam
def test_seed_and_name_decide(phantom_case):
    first, again, other = (AcquireCT(seed=seed, **SMALL)(phantom_case)["measurement"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@needs_fan_beam
def test_a_sinogram_file_is_taken_as_it_is(write_hdf5):
    (listed,) = list_cases(write_hdf5(sinogram=_sinogram(), attributes=GEOMETRY), "ct")
    case = AcquireCT()(listed)
    assert "reference" not in case
    assert case["operator"].domain_shape == (1, 20, 24)
    np.testing.assert_allclose(case["measurement"][0] * 0.024, _sinogram(), rtol=1e-5)


@needs_fan_beam
def test_a_source_inside_the_patient_is_refused(phantom_case):
    with pytest.raises(InputError, match="phantom"):
        AcquireCT(**{**SMALL, "source_distance": 20.0})(phantom_case)
