"""Every encoder × every property. A new encoder needs one line in EXAMPLES."""

import copy

import pytest
import torch

from disinr_monai import networks
from disinr_monai.networks import FrequencyEncoder, HashGridEncoder, SirenEncoder

EXAMPLES = {
    "HashGridEncoder": lambda seed=0: HashGridEncoder(2, out_dim=12, hidden_dim=16, log2_hashmap_size=10, seed=seed),
    "FrequencyEncoder": lambda seed=0: FrequencyEncoder(2, out_dim=12, n_frequencies=4, hidden_dim=16, seed=seed),
    "SirenEncoder": lambda seed=0: SirenEncoder(2, out_dim=12, hidden_dim=16, n_layers=2, seed=seed),
}


def test_every_exported_encoder_has_an_example():
    exported = {name for name in networks.__all__ if name.endswith("Encoder")}
    assert exported == set(EXAMPLES)


@pytest.fixture(params=EXAMPLES)
def make(request):
    return EXAMPLES[request.param]


@pytest.fixture
def points(rng):
    return torch.rand(33, 2, generator=rng) * 2 - 1


def test_width(make, points):
    encoder = make()
    assert encoder(points).shape == (33, encoder.out_dim)
    assert encoder.in_dim == 2


def test_points_are_encoded_one_by_one(make, points):
    encoder = make()
    torch.testing.assert_close(encoder(points)[5:9], encoder(points[5:9].clone()), rtol=1e-4, atol=1e-6)


def test_every_parameter_gets_a_gradient(make, points):
    encoder = make()
    encoder(points).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_seed_decides_the_start(make):
    a, b, c = make(seed=1), make(seed=1), make(seed=2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_reset_gives_the_start_back(make, points):
    encoder = make(seed=4)
    before = copy.deepcopy(encoder.state_dict())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    encoder.reset(4)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


def test_saved_and_loaded_it_draws_the_same(make, points, tmp_path):
    encoder, other = make(seed=1), make(seed=2)
    torch.save(encoder.state_dict(), tmp_path / "e.pt")
    other.load_state_dict(torch.load(tmp_path / "e.pt", weights_only=True))
    assert torch.equal(encoder(points), other(points))
