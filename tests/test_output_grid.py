import numpy as np
import pytest
import torch

from disinr_monai.errors import InputError
from disinr_monai.grid import output_grid, voxel_centres

AFFINE = np.array([[0.0, -2.0, 0.0, 7.0], [1.5, 0.0, 0.0, -3.0], [0.0, 0.0, 4.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


def world_of_points(points: torch.Tensor, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Where normalised coordinates lie, by the source's own affine."""
    index = [((p + 1) * n - 1) / 2 for p, n in zip(points.double().numpy(), shape, strict=True)]
    index += [np.zeros_like(index[0])] * (3 - len(index))
    return np.tensordot(affine[:3, :3], np.stack(index), 1) + affine[:3, 3].reshape(3, *[1] * (points.ndim - 1))


@pytest.mark.parametrize("shape", [(10, 6), (10, 6, 5)])
@pytest.mark.parametrize("spacing", [0.7, 1.1, 5.0, [0.5, 3.0, 2.0]])
def test_affine_and_points_say_the_same_place(shape, spacing):
    points, affine = output_grid(shape, AFFINE, spacing)
    index = np.indices(points.shape[1:]).astype(float)
    index = np.concatenate([index, np.zeros((3 - len(shape), *points.shape[1:]))])
    expected = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, *[1] * len(shape))
    np.testing.assert_allclose(world_of_points(points, shape, AFFINE), expected, atol=1e-5)
    assert points.abs().max() <= 1
    wanted = np.broadcast_to(spacing, 3)[: len(shape)]
    np.testing.assert_allclose(np.linalg.norm(affine[:3, : len(shape)], axis=0), wanted)
    lengths = np.array(shape) * np.linalg.norm(AFFINE[:3, : len(shape)], axis=0)
    assert (np.abs(np.array(points.shape[1:]) * wanted - lengths) <= np.maximum(wanted / 2, wanted - lengths)).all()


def test_the_sources_own_spacing_is_its_own_grid():
    points, affine = output_grid((10, 6, 5), AFFINE, [1.5, 2.0, 4.0])
    torch.testing.assert_close(points, voxel_centres((10, 6, 5)))
    np.testing.assert_allclose(affine, AFFINE, atol=1e-12)


@pytest.mark.parametrize("spacing", [0, -1.0, "fine", [1.0], [1.0, 2.0, 3.0, 4.0], float("nan"), 1e-3])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(InputError, match=r"^output_spacing: expected"):
        output_grid((100, 100, 100), np.eye(4), spacing)
