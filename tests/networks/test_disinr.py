from functools import partial

import pytest
import torch

from disinr_monai.networks import DisINR, HashGridEncoder, MetaINR, NaiveINR

SMALL = partial(HashGridEncoder, in_dim=2, out_dim=16, hidden_dim=16, n_levels=4, log2_hashmap_size=8)


def grid(height: int = 5, width: int = 7) -> torch.Tensor:
    axes = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in (height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)


def ids(parameters) -> set[int]:
    return {id(parameter) for parameter in parameters}


def large_tables(network):
    """The start in ±1e-4 makes every image nearly zero; larger tables show differences."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("table"):
                parameter.mul_(1e4)
    return network


def test_image_layout_and_batch():
    network = large_tables(DisINR(SMALL, out_channels=2, n_subjects=3))
    with torch.no_grad():
        network.subjects[2].grid.table.add_(0.3)
    points = grid().expand(2, -1, -1, -1)
    images = network(points, torch.tensor([0, 2]))
    assert images.shape == (2, 2, 5, 7)
    torch.testing.assert_close(images[1:], network(grid(), 2))
    assert not torch.allclose(images[0], images[1])


def test_the_published_formula():
    network = large_tables(DisINR(SMALL, out_channels=1, n_subjects=2))
    flat = grid()[0].flatten(1).t()
    features = torch.cat((network.shared["encoder"](flat), network.subjects[1](flat)), -1)
    expected = network.shared["decoder"](features)
    assert torch.equal(network.formula(flat, 1), expected)
    torch.testing.assert_close(network(grid(), 1), expected.t().reshape(1, 1, 5, 7))


def test_a_matrix_product_less_is_the_same_image_and_gradient():
    """`render` multiplies the encoder's last matrix with the decoder's first; the published formula is the same."""
    network = large_tables(DisINR(SMALL, out_channels=2))
    flat = grid()[0].flatten(1).t()
    parameters = list(network.parameters())
    images = [network.render(flat), network.formula(flat)]
    torch.testing.assert_close(*images)
    gradients = [torch.autograd.grad(image.square().sum(), parameters) for image in images]
    for merged, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(merged, plain, rtol=1e-3, atol=1e-6 * float(plain.abs().max()) + 1e-7)


def test_an_encoder_without_a_perceptron_at_its_end_is_rendered_too():
    class Halved(torch.nn.Module):
        """Not an encoder that the network can look into."""

        def __init__(self, seed: int = 0) -> None:
            super().__init__()
            self.in_dim, self.out_dim = 2, 16
            self.inner = SMALL(seed=seed)

        def forward(self, points):
            return self.inner(points) / 2

    network = large_tables(DisINR(Halved, out_channels=1))
    flat = grid()[0].flatten(1).t()
    torch.testing.assert_close(network.render(flat), network.formula(flat))


def test_first_coordinate_runs_along_the_first_axis():
    network = large_tables(DisINR(SMALL, out_channels=1))
    image = network(grid())[0, 0]
    point = grid()[:, :, 3:4, 1:2]
    torch.testing.assert_close(network(point)[0, 0, 0, 0], image[3, 1])


def test_shared_and_subject_start_differ():
    network = DisINR(SMALL, out_channels=1, seed=7)
    assert not torch.equal(network.shared["encoder"].grid.table, network.subjects[0].grid.table)


def test_idle_subjects_get_no_gradient():
    network = DisINR(SMALL, out_channels=1, n_subjects=3)
    network(grid(), 1).sum().backward()
    assert all(p.grad is None for i in (0, 2) for p in network.subjects[i].parameters())
    assert all(p.grad is not None for p in network.subjects[1].parameters())


def test_amp_changes_little():
    network = large_tables(DisINR(SMALL, out_channels=1))
    exact = network(grid())
    network.set_amp(True)
    rounded = network(grid())
    assert not torch.equal(exact, rounded)
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()


def test_a_module_from_outside_takes_part_in_amp_by_its_switch():
    network = NaiveINR(SMALL, out_channels=1)
    network.subjects[0].extra = torch.nn.Identity()
    network.subjects[0].extra.amp = False
    network.set_amp(True)
    assert network.subjects[0].extra.amp is True
    assert not hasattr(network, "amp")


def test_naive_network_shares_nothing():
    network = NaiveINR(SMALL, out_channels=2)
    assert len(network.shared) == 0
    assert network(grid()).shape == (1, 2, 5, 7)
    assert NaiveINR(SMALL, out_channels=2, hidden_dim=8)(grid()).shape == (1, 2, 5, 7)


def test_what_is_fitted_at_test():
    """The subject encoder alone for the pair; everything from scratch."""
    network = DisINR(SMALL, out_channels=1)
    assert ids(network.fitted_at_test()) == ids(network.subjects[0].parameters())
    for network in (NaiveINR(SMALL, out_channels=1), MetaINR(SMALL, out_channels=1)):
        assert ids(network.fitted_at_test()) == ids(network.parameters())


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"DisINR: points must have shape \(B, 2, \*S\), found \(1, 3, 4, 4\)"):
        DisINR(SMALL, 1)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="n_subjects must be at least 1, found 0"):
        DisINR(SMALL, 1, n_subjects=0)
