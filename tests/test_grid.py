import torch

from disinr_monai.grid import voxel_centres


def test_centres_of_an_asymmetric_grid():
    points = voxel_centres((5, 7))
    assert points.shape == (2, 5, 7)
    torch.testing.assert_close(points[0, :, 3], torch.tensor([-0.8, -0.4, 0.0, 0.4, 0.8]))
    assert (points[1, :, 0] == -6 / 7).all()
    assert (points.sum((1, 2)).abs() < 1e-5).all()
    assert voxel_centres((2, 3, 4)).shape == (3, 2, 3, 4)
