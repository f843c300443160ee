"""The exported network is the same function."""

from functools import partial

import pytest
import torch

from disinr_monai.networks import DisINR, FrequencyEncoder, HashGrid, HashGridEncoder, SirenEncoder
from disinr_monai.networks.scriptable import GatheredGrid

ENCODERS = {
    "hash": partial(HashGridEncoder, n_levels=7, log2_hashmap_size=8, out_dim=16, hidden_dim=16),
    "nerf": partial(FrequencyEncoder, out_dim=16, hidden_dim=16, n_layers=2),
    "siren": partial(SirenEncoder, out_dim=16, hidden_dim=16, n_layers=2),
}


@pytest.mark.parametrize("in_dim", [2, 3])
@pytest.mark.parametrize("name", ENCODERS)
def test_exported_field_is_the_same_function(name, in_dim, rng, tmp_path):
    network = DisINR(partial(ENCODERS[name], in_dim=in_dim), out_channels=2, hidden_dim=16, n_subjects=2, seed=3)
    with torch.no_grad():
        for parameter in network.parameters():  # the hash tables start almost at 0
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    points = 2 * torch.rand(1, in_dim, *(6, 5, 4)[:in_dim], generator=rng) - 1
    torch.jit.script(network).save(tmp_path / "field.ts")
    exported = torch.jit.load(tmp_path / "field.ts")
    with torch.no_grad():
        torch.testing.assert_close(exported(points), network(points), rtol=1e-4, atol=1e-5)
        other = points.flip(-1) * 0.9
        both = exported(torch.cat((points, other)))
        torch.testing.assert_close(both[1:], network(other), rtol=1e-4, atol=1e-5)
    assert network.state_dict().keys() == before.keys(), "exporting must leave the network as it was"


def test_gathered_grid_is_the_sparse_one(rng):
    grid = HashGrid(2, seed=1)
    points = 2 * torch.rand(500, 2, generator=rng) - 1
    points[0], points[1] = -1.0, 1.0
    torch.testing.assert_close(torch.jit.script(GatheredGrid(grid))(points), grid(points), rtol=1e-5, atol=1e-9)
