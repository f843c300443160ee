from functools import partial

import pytest
import torch

from disinr_monai.errors import InputError
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.networks import FrequencyEncoder, SirenEncoder, Strainer
from tests.problems import mri_case, small_strainer

RENDER = Strainer.render
LAYERS = ["grid.table", "mlp.weights.0", "mlp.weights.1", "mlp.weights.2"]


def changed(network: Strainer, monkeypatch) -> tuple[set[str], set[str]]:
    """Names of the encoder's and the head's tensors that an adaptation changes by any bit."""
    fields = []
    monkeypatch.setattr(Strainer, "render", lambda self, *a: fields.append(self) or RENDER(self, *a))
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=3, lr=1e-2, amp=False, quiet=True)
    case = mri_case()
    inferer(case["points"][None], network, case=case)
    before, after = network.state_dict(), fields[-1].state_dict()
    names = {name for name in before if not torch.equal(before[name], after[name])}
    encoder, head = "shared.encoder.", "subjects.0."
    return (
        {n.removeprefix(encoder) for n in names if n.startswith(encoder)},
        {n.removeprefix(head) for n in names if n.startswith(head)},
    )


@pytest.mark.parametrize(("depth", "fitted"), [(0, LAYERS), (1, LAYERS[1:]), (3, LAYERS[3:]), (4, []), ("all", [])])
def test_frozen_layers_keep_every_bit_and_the_others_move(depth, fitted, monkeypatch):
    encoder, head = changed(small_strainer(freeze_depth=depth), monkeypatch)
    assert encoder == set(fitted)
    assert head == {"weights.0", "weights.1", "weights.2"}


def test_the_network_given_stays_the_start_of_the_next_scan():
    network, case = small_strainer(), mri_case()
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=5, amp=False, quiet=True)
    first, second = (inferer(case["points"][None], network, case=case) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("encoder", "n_layers"),
    [
        (partial(SirenEncoder, 2, out_dim=8, hidden_dim=8, n_layers=3), 4),
        (partial(FrequencyEncoder, 2, out_dim=8, hidden_dim=8, n_layers=2), 3),
    ],
)
def test_depth_counts_the_layers_of_other_backbones(encoder, n_layers):
    network = Strainer(encoder, 1, hidden_dim=8, freeze_depth=n_layers)
    assert list(network.fitted_at_test()) == list(network.subjects[0].parameters())
    with pytest.raises(InputError, match=f"freeze_depth: expected 0 to {n_layers} layers or all, found {n_layers + 1}"):
        Strainer(encoder, 1, freeze_depth=n_layers + 1)


def test_heads_share_the_encoder_only():
    network, points = small_strainer(n_subjects=3), mri_case()["points"][None]
    images = network(points.expand(2, -1, -1, -1), torch.tensor([0, 2]))
    assert not torch.allclose(images[0], images[1])
    flat = points[0].flatten(1).t()
    expected = network.subjects[2](network.shared["encoder"](flat))
    torch.testing.assert_close(images[1].flatten(1).t(), expected)
    network(points, 2).sum().backward()
    assert all(p.grad is None for p in network.subjects[0].parameters())
    assert all(p.grad is not None for p in network.shared.parameters())
