from __future__ import annotations

import numpy as np
import pytest
import torch

from disinr_monai.pictures import _plane, save_panels


@pytest.mark.parametrize("first", ["R", "L"])
@pytest.mark.parametrize("second", ["A", "P"])
def test_patient_right_is_left_and_front_is_up(first, second):
    """A mark at the patient's right front shows at the upper left, however the array is stored."""
    affine = np.diag([1.0 if first == "R" else -1.0, 1.0 if second == "A" else -1.0, 1.0, 1.0])
    image = torch.zeros(1, 5, 7)
    image[0, -1 if first == "R" else 0, -1 if second == "A" else 0] = 1
    plane = _plane(image, affine)
    assert plane.shape == (7, 5)
    assert plane[0, 0] == 1


def test_swapped_axes_give_the_same_view():
    image = torch.rand(1, 5, 7)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    swapped = affine[:, [1, 0, 2, 3]]
    np.testing.assert_array_equal(_plane(image, affine), _plane(image.transpose(1, 2), swapped))


def test_without_geometry_as_stored():
    image = torch.rand(1, 5, 7)
    np.testing.assert_array_equal(_plane(image, None), image[0].numpy())


def test_a_failing_picture_leaves_nothing(tmp_path):
    with pytest.raises(IndexError):
        save_panels(tmp_path / "a.png", {"x": torch.zeros(0)})
    save_panels(tmp_path / "b.png", {"x": torch.rand(1, 8, 8)}, reference=torch.rand(1, 8, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
