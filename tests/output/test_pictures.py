import numpy as np
import pytest
import torch

from disinr_monai.output.pictures import _plane, save_panels


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


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_three_planes_of_a_volume(signs, order):
    """A mark at the patient's right, front and head end of the middle planes shows at their upper left, in mm."""
    spacing = np.array([1.0, 2.0, 4.0])
    shape = np.array([9, 7, 5])
    middle = shape // 2
    volume = torch.zeros(*shape)
    ends = [n - 1 for n in shape]
    for axis in range(3):
        at = list(ends)
        at[axis] = middle[axis]
        volume[tuple(at)] = 1.0 + axis  # one mark a plane, in its corner towards right, front and head
    affine = np.diag([*spacing, 1.0])
    axes = [axis for axis in range(3) if signs[axis] < 0]
    volume = volume.flip(axes).permute(order)
    affine = (affine @ np.diag([*signs, 1.0]))[:, [*order, 3]]
    picture = _plane(volume[None], affine)
    heights, widths = (14, 20, 20), (9, 9, 14)  # axial 9 x 14 mm, coronal 9 x 20, sagittal 14 x 20
    assert picture.shape == (sum(heights) + 2 * 2, 14)
    top = 0
    for mark, height, width in zip((3.0, 2.0, 1.0), heights, widths, strict=True):
        left = (14 - width) // 2
        assert picture[top, left] == mark
        assert picture[top + height - 1, left + width - 1] == 0
        top += height + 2


def test_a_failing_picture_leaves_nothing(tmp_path):
    with pytest.raises(IndexError):
        save_panels(tmp_path / "a.png", {"x": torch.zeros(0)})
    save_panels(tmp_path / "b.png", {"x": torch.rand(1, 8, 8)}, reference=torch.rand(1, 8, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
