"""Measured voxels: what a random part is, and the nearest neighbour."""

import pytest
import torch

from disinr_monai.grid import voxel_centres
from disinr_monai.operators import Identity, MultiCoilFourier, Samples

SHAPE = (6, 5, 4)


def ramp(points: torch.Tensor) -> torch.Tensor:
    """A linear function of the coordinates: linear interpolation is exact."""
    return (0.3 + torch.tensor([0.5, -0.2, 0.9])[: len(points)] @ points.flatten(1)).reshape(1, *points.shape[1:])


@pytest.mark.parametrize("pixels", [None, torch.tensor([1, 5, 17, 80, 119])])
def test_a_part_is_a_part_of_the_measurement(pixels, rng):
    operator = Samples((1, *SHAPE), pixels, n_drawn=4)
    grid = voxel_centres(SHAPE)
    image = ramp(grid)
    part = operator.partition.draw(rng)
    values = part.operator(ramp(part.at(grid)))
    torch.testing.assert_close(part.select(operator(image)), values)
    assert values.shape == (1, 4)


def test_every_voxel_is_drawn_equally_often(rng):
    operator = Samples((1, *SHAPE), n_drawn=7)
    counts = torch.zeros(120)
    numbers = torch.arange(120.0)[None]
    for _ in range(4000):
        counts[operator.partition.draw(rng).select(numbers)[0].long()] += 1
    expected = 4000 * 7 / 120
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_what_is_left_out_is_not_drawn(rng):
    operator = Samples((1, *SHAPE), n_drawn=50)
    among = operator.partition.held_out_samples(0.2, rng)
    numbers = torch.arange(120)[None]
    drawn = torch.cat([operator.partition.draw(rng, among).select(numbers)[0] for _ in range(50)]).unique()
    assert torch.equal(drawn, among[0].nonzero()[:, 0])


def test_direct_inverse_is_the_nearest_measured_voxel():
    image = torch.zeros(1, 5, 5)
    image[0, 0, 0], image[0, 4, 3] = 1.0, 2.0
    operator = Samples((1, 5, 5), torch.tensor([0, 23]))
    result = operator.direct_inverse(operator(image))
    assert result[0, 1, 1] == 1.0
    assert result[0, 4, 4] == 2.0
    assert set(result.unique().tolist()) == {1.0, 2.0}


def test_operators_that_need_the_whole_image_have_no_parts(rng):
    assert Identity((1, 4, 4)).partition.draw(rng) is None
    assert MultiCoilFourier(torch.ones(1, 4, 4, dtype=torch.complex64), torch.ones(4)).partition.draw(rng) is None
