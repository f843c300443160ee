"""Where the rays run, and which numbers a geometry cannot have."""

import math

import numpy as np
import pytest
import torch

from disinr_monai.operators import ConeGeometry, FanGeometry, ParallelGeometry
from disinr_monai.operators.tomography.projector import ray_matrix


def test_known_directions():
    """At 0 the rays run along columns, bins from left to right; at 90 degrees along rows, bins from bottom to top."""
    geometry = ParallelGeometry(
        image_shape=(3, 3), pixel_spacing=2.0, angles=[0, np.pi / 2], n_detectors=3, detector_spacing=2.0, n_subrays=1
    )
    image = np.arange(9.0).reshape(3, 3)
    sums = (ray_matrix(geometry) @ image.ravel()).reshape(2, 3)
    np.testing.assert_allclose(sums[0], 2 * image.sum(0), rtol=1e-6)
    np.testing.assert_allclose(sums[1], 2 * image.sum(1)[::-1], rtol=1e-6)


def test_a_far_fan_is_parallel():
    common = {
        "image_shape": (20, 24),
        "pixel_spacing": 1.0,
        "angles": [0.1, 0.8, 2.5, 4.0],
        "n_detectors": 15,
        "detector_spacing": 1.5,
    }
    fan = FanGeometry(source_distance=1e7, detector_distance=0.0, **common)
    assert abs(ray_matrix(fan) - ray_matrix(ParallelGeometry(**common))).max() < 1e-3


def test_equal_geometries_are_one_key():
    """However the numbers are written: a stored matrix is found again."""
    listed = make(FanGeometry, angles=[0.0, 0.5], image_shape=[9, 8])
    typed = make(FanGeometry, angles=torch.tensor([0.0, 0.5]), image_shape=np.array([9, 8]), pixel_spacing=1)
    assert listed == typed
    assert hash(listed) == hash(typed)
    assert listed != make(FanGeometry, angles=[0.0, 0.5], n_subrays=3)


def test_lengths_in_another_unit():
    cone = make(ConeGeometry, detector_offset_v=3.0).in_units_of(2.0)
    assert cone == make(
        ConeGeometry,
        pixel_spacing=0.5,
        detector_spacing=1.0,
        source_distance=60.0,
        detector_distance=45.0,
        detector_offset_v=1.5,
    )


DETECTOR = {"n_detectors": 81, "detector_spacing": 2.0}
SOURCE = {"source_distance": 120.0, "detector_distance": 90.0}
VALID = {
    ParallelGeometry: {"image_shape": (9, 8), **DETECTOR},
    FanGeometry: {"image_shape": (9, 8), **DETECTOR, **SOURCE},
    ConeGeometry: {"image_shape": (9, 8, 7), "detector_shape": (5, 81), "detector_spacing": 2.0, **SOURCE},
}


def make(kind, **changes):
    return kind(**{"pixel_spacing": 1.0, "angles": [0.0, 0.7], **VALID[kind], **changes})


EVERY = [
    ({"pixel_spacing": 0}, "pixel_spacing must be a positive length"),
    ({"angles": []}, "angles must be a 1-D list of finite radians"),
    ({"angles": [[0.0]]}, "angles must be"),
    ({"angles": [math.nan]}, "angles must be"),
    ({"detector_spacing": -1.0}, "detector_spacing must be a positive length"),
    ({"detector_offset": math.nan}, "detector_offset must be a length"),
]
FLAT = [
    ({"image_shape": (9,)}, r"image_shape must be two positive integers \(H, W\), found \(9,\)"),
    ({"image_shape": (9, 0)}, "image_shape must be two positive integers"),
    ({"n_detectors": 0}, "n_detectors must be a positive integer"),
    ({"n_detectors": math.nan}, "n_detectors must be a positive integer"),
    ({"n_subrays": 0}, "n_subrays must be a positive integer"),
]
DIVERGENT = [
    ({"detector_distance": -1.0}, "detector_distance must be 0 or a length"),
    ({"source_distance": 5.0}, "source_distance must be larger than the image's half diagonal of 6.0 mm, found 5.0"),
    ({"axis_offset": math.inf}, "axis_offset must be a length"),
]
FAN = [({"curved": True, "detector_spacing": 9.0}, "within 90 degrees of the central ray")]
CONE = [
    ({"image_shape": (4, 5)}, r"image_shape must be three positive integers \(H, W, D\), found \(4, 5\)"),
    ({"detector_shape": (4,)}, r"detector_shape must be two positive integers \(rows, columns\)"),
    ({"detector_shape": (0, 4)}, "detector_shape must be two positive integers"),
    ({"detector_spacing_v": 0.0}, "detector_spacing_v must be a positive length"),
    ({"detector_offset_v": math.nan}, "detector_offset_v must be a length"),
]
WRONG = {
    ParallelGeometry: [*EVERY, *FLAT],
    FanGeometry: [*EVERY, *FLAT, *DIVERGENT, *FAN],
    ConeGeometry: [*EVERY, *DIVERGENT, *CONE],
}


@pytest.mark.parametrize(
    ("kind", "changes", "message"), [(kind, *wrong) for kind, cases in WRONG.items() for wrong in cases]
)
def test_wrong_numbers_are_named(kind, changes, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: .*{message}"):
        make(kind, **changes)
