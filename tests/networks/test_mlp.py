import itertools

import pytest
import torch

from disinr_monai.networks import MLP, HashGridEncoder, mlp
from disinr_monai.networks.mlp import fused_mlp


def layer_by_layer(features, weights, added, at):
    """The same perceptron by ordinary automatic differentiation, in float64."""
    values = features.double()
    for layer, weight in enumerate(weights):
        values = (values if layer == 0 else values.relu()) @ weight.double().t()
        if added is not None and layer == at:
            values = values + added.double()
    return values


def problem(seed: int = 0, n: int = 700):
    generator = torch.Generator().manual_seed(seed)
    widths = (12, 16, 24, 20, 2)
    # Powers of two and small integers: exact in bfloat16 and in every sum, so that nothing is left to rounding.
    features = torch.randint(-2, 3, (n, widths[0]), generator=generator).float()
    weights = [torch.randint(-1, 2, (o, i), generator=generator).float() for i, o in itertools.pairwise(widths)]
    weights = [w * (torch.rand(w.shape, generator=generator) < 0.2) for w in weights]
    added = torch.randint(-2, 3, (n, 24), generator=generator).float()
    gradient = torch.randint(-1, 2, (n, 2), generator=generator).float()
    return features, weights, added, gradient


@pytest.mark.parametrize("block", [64, 8192])
@pytest.mark.parametrize("with_added", [True, False])
def test_value_and_gradients_are_those_of_the_layers(block, with_added, monkeypatch):
    monkeypatch.setattr(mlp, "BLOCK", block)
    features, weights, added, gradient = problem()
    added = added if with_added else None
    leaves = [t.requires_grad_() for t in (features, *weights, *([added] if with_added else []))]
    fused = fused_mlp(features, weights, added, at=1)
    expected = layer_by_layer(features, weights, added, 1)
    torch.testing.assert_close(fused.double(), expected, rtol=5e-3, atol=0.1)
    got = torch.autograd.grad(fused, leaves, gradient)
    wanted = torch.autograd.grad(expected, leaves, gradient.double())
    for a, b in zip(got, wanted, strict=True):
        assert b.norm() > 0
        assert (a - b).norm() < 0.01 * b.norm()


def test_only_what_is_asked_for_gets_a_gradient():
    features, weights, added, gradient = problem()
    weights[2].requires_grad_()
    out = fused_mlp(features, weights, added, at=1)
    (only,) = torch.autograd.grad(out, [weights[2]], gradient)
    weights = [w.detach() for w in weights]
    weights[2].requires_grad_()
    (expected,) = torch.autograd.grad(layer_by_layer(features, weights, added, 1), [weights[2]], gradient.double())
    assert (only - expected).norm() < 0.01 * expected.norm()


def test_the_float32_switch_gives_second_derivatives():
    network = MLP(3, 2, hidden_dim=8)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (first,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].abs().sum() > 0


def test_no_points():
    encoder = HashGridEncoder(2, out_dim=4, hidden_dim=8, n_levels=2)
    encoder.mlp.amp = True
    assert encoder.mlp(torch.zeros(0, 16)).shape == (0, 4)
