import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from disinr_monai.data.resample import block_average, pad_to_square, resample_slice

AFFINE = np.array([[0.0, 2.0, 0, -30], [-3.0, 0, 0, 50], [0, 0, 5.0, 7], [0, 0, 0, 1]])


def _blob(shape: tuple[int, int], where: tuple[float, float], width: float = 3.0) -> np.ndarray:
    i, j = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.exp(-((i - where[0]) ** 2 + (j - where[1]) ** 2) / (2 * width**2)).astype(np.float32)


def _place(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (affine @ [*center_of_mass(image), 0, 1])[:3]


@pytest.mark.parametrize("size", [32, 64, 129])
def test_physical_positions_are_kept(size):
    image = _blob((51, 70), (20, 44))
    result, affine = resample_slice(image, AFFINE, size)
    assert result.shape == (size, size)
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    assert spacing == pytest.approx([153 / size] * 2)
    assert np.abs(_place(result, affine) - _place(image, AFFINE)).max() < spacing[0] / 2
    np.testing.assert_allclose(affine[:, 2], AFFINE[:, 2])


def test_the_aspect_is_kept_and_the_rest_is_padding():
    result, _ = resample_slice(np.ones((60, 30), np.float32), np.eye(4), 40, fill=-1)
    assert (result[:, 10:30] == 1).all()
    assert (result[:, :10] == -1).all()
    assert (result[:, 30:] == -1).all()


def test_a_fitting_slice_is_untouched():
    image = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    result, affine = resample_slice(image, np.diag([2.0, 2, 1, 1]), 16)
    np.testing.assert_array_equal(result, image)
    np.testing.assert_array_equal(affine, np.diag([2.0, 2, 1, 1]))


def test_padding_and_block_average_keep_positions():
    image = _blob((40, 64), (13, 41))
    square, affine = pad_to_square(image, AFFINE, 0.0)
    assert square.shape == (64, 64)
    np.testing.assert_allclose(_place(square, affine), _place(image, AFFINE), atol=1e-3)
    mean, coarse = block_average(square, affine, 4)
    assert mean.shape == (16, 16)
    assert mean.mean() == pytest.approx(square.mean())
    np.testing.assert_allclose(_place(mean, coarse), _place(image, AFFINE), atol=1e-2)
