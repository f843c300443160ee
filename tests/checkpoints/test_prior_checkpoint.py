"""Released checkpoints that hold a learned prior."""

import json
from functools import partial

import pytest
import torch

from disinr_monai.checkpoints.released import combine, load_prior, load_shared, save_shared
from disinr_monai.errors import InputError
from disinr_monai.networks import DisINR
from tests.prior.helpers import make_prior
from tests.problems import ENCODER


@pytest.fixture
def networks():
    def make(seed: int, with_prior: bool) -> DisINR:
        prior = partial(make_prior, "mri") if with_prior else None
        network = DisINR(ENCODER, 2, hidden_dim=16, seed=seed, prior=prior)
        if with_prior:
            torch.manual_seed(seed)
            torch.nn.init.normal_(network.shared["prior"].refiner.last.weight)
        return network

    return make


def test_prior_travels_with_the_pair(networks, tmp_path):
    one, two = networks(1, True), networks(2, True)
    save_shared(tmp_path / "model.pt", one, "mri")
    load_shared(tmp_path / "model.pt", two, "mri")
    for (name, a), (_, b) in zip(one.shared.state_dict().items(), two.shared.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6, msg=name)


def test_parts_are_loaded_only_when_asked_for(networks, tmp_path):
    save_shared(tmp_path / "pair.pt", networks(1, False), "mri")
    save_shared(tmp_path / "both.pt", networks(2, True), "mri")
    with pytest.raises(InputError, match=r"shared\.prior"):
        load_shared(tmp_path / "pair.pt", networks(3, True), "mri")
    with pytest.raises(InputError, match=r"shared\.prior"):
        load_shared(tmp_path / "both.pt", networks(3, False), "mri")
    network = networks(3, True)
    before = network.shared["prior"].refiner.last.weight.clone()
    load_shared(tmp_path / "pair.pt", network, "mri", only_pair=True)
    assert torch.equal(network.shared["prior"].refiner.last.weight, before)
    expected = networks(1, False).shared["decoder"].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in network.shared["decoder"].state_dict().items())
    load_prior(tmp_path / "both.pt", network, "mri")
    assert not torch.equal(network.shared["prior"].refiner.last.weight, before)
    with pytest.raises(InputError, match=r"expected a learned prior for 'mri', .* holds none"):
        load_prior(tmp_path / "pair.pt", network, "mri")


def test_combine_pair_and_prior(networks, tmp_path):
    save_shared(tmp_path / "pair.pt", networks(1, False), "mri", {"seed": 1})
    save_shared(tmp_path / "prior.pt", networks(2, True), "mri", {"seed": 2})
    combine(tmp_path / "pair.pt", tmp_path / "prior.pt", tmp_path / "model.pt")
    network = networks(3, True)
    info = load_shared(tmp_path / "model.pt", network, "mri")
    assert info["seed"] == 1
    assert info["prior"]["seed"] == 2
    expected = networks(2, True).shared["prior"].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in network.shared["prior"].state_dict().items())
    with pytest.raises(InputError, match="no learned prior"):
        combine(tmp_path / "prior.pt", tmp_path / "pair.pt", tmp_path / "other.pt")
    assert json.loads(torch.load(tmp_path / "model.pt", weights_only=True)["architecture"]) == network.architecture()
