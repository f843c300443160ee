"""The reports themselves, where their folder is present: projections (cases 05, 07 and 13)."""

import numpy as np
import pytest

from disinr_monai.data import AcquireCT, list_cases
from disinr_monai.errors import InputError
from disinr_monai.methods import DirectInverse, TotalVariation
from disinr_monai.modality import image_to_hu

TV = TotalVariation(tv_weight=1.2, absolute=True, non_negative=True, n_iterations=60)


def _acquired(file, **options) -> dict:
    return AcquireCT(file_geometry=options.get("ct_geometry"))(list_cases(file, "ct", **options)[0])


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("transmission", "transmission I / I0; store its negative logarithm"),
        ("counts", "photon counts"),
        ("negative", "the wrong sign"),
    ],
)
def test_05_what_is_no_line_integral_is_named(report, name, cause):
    with pytest.raises(InputError, match=cause):
        _acquired(report(5) / f"c05_{name}.h5")


def test_05_centimetres_are_doubted_and_right_ones_give_water(report):
    folder = report(5)
    assert any("lengths in cm" in text for text in _acquired(folder / "c05_cm.h5")["info"]["unverified"])
    right = _acquired(folder / "c05_right.h5")
    assert not any("lengths" in text for text in right["info"]["unverified"])
    image = image_to_hu(TV.solve(right["scan"]))[0].numpy()
    assert np.median(image[image > -200]) == pytest.approx(0, abs=15)


@pytest.mark.parametrize("name", ["full", "clockwise", "endpoint", "golden", "halffan", "halffan_curved_axis"])
def test_07_any_order_of_views_gives_the_image(report, name):
    image = image_to_hu(TV.solve(_acquired(report(7) / f"c07_{name}.h5")["scan"]))[0].numpy()
    assert np.median(image[(image > -200) & (image < 100)]) == pytest.approx(0, abs=15)
    assert np.percentile(image, 99) == pytest.approx(200, abs=20)


def test_13_a_cone_beam_is_listed_as_it_is_read(report):
    file = report(13) / "c13_cone.h5"
    given = {"geometry": "cone", "detector_spacing": 8.0, "source_distance": 300.0, "detector_distance": 200.0}
    given |= {"image_shape": [24, 24, 20], "pixel_spacing": 5.0}
    case = _acquired(file, ct_geometry=given)
    assert case["scan"].operator.domain_shape == (1, 24, 24, 20)
    image = image_to_hu(DirectInverse().solve(case["scan"]))[0].numpy()
    assert image.max() == pytest.approx(0, abs=150)
