import pytest
import torch

from disinr_monai.networks import Refiner


@pytest.mark.parametrize("shape", [(32, 32), (31, 29), (8, 50), (5, 7)])
def test_refiner_starts_at_zero_for_any_size(shape):
    features = torch.randn(2, 5, *shape)
    network = Refiner(5, 2, (8, 12, 16))
    correction = network(features)
    assert correction.shape == (2, 2, *shape)
    assert correction.dtype == torch.float32
    assert not correction.any()
    torch.nn.init.normal_(network.last.weight)
    assert network(features).any()


def test_refiner_depends_on_its_seed_only():
    torch.manual_seed(1)
    one = Refiner(3, 1, seed=4).state_dict()
    torch.manual_seed(2)
    two = Refiner(3, 1, seed=4).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert 0.5e6 < sum(v.numel() for v in one.values()) < 1e6
