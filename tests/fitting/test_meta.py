import copy
from functools import partial

import pytest
import torch
from torch.func import functional_call

from disinr_monai.errors import InputError
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.meta import MetaUpdate
from disinr_monai.fitting.regularisers import TVRegulariser
from disinr_monai.networks import HashGridEncoder, MetaINR, SirenEncoder
from tests.engines import adapt, trainer
from tests.problems import changed, mri_case, small_meta

ADAM = partial(torch.optim.Adam, fused=True)


def scan_loss(network: MetaINR, case: dict, loss: MeasurementLoss):
    """Measurement loss as a function of the weights."""
    points = case["points"][None].to(next(network.parameters()).dtype)
    return lambda weights: loss(functional_call(network, weights, (points,)), [case])


def in_double(encoder) -> tuple[MetaINR, dict]:
    network, case = MetaINR(encoder, 2).double(), mri_case()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(1e3 if name.endswith("table") else 1.0)
    scan = copy.deepcopy(case["scan"])
    return network, changed(case, operator=scan.operator.double(), measurement=scan.measurement.to(torch.complex128))


@pytest.mark.parametrize(
    "encoder",
    [
        partial(HashGridEncoder, 2, hidden_dim=8, n_layers=1, n_levels=3, log2_hashmap_size=6),
        partial(SirenEncoder, 2, hidden_dim=8, n_layers=1, omega_0=5.0),
    ],
    ids=["hash grid", "siren"],
)
def test_second_order_gradient_equals_finite_differences(encoder, rng):
    """Of the loss after two inner steps with respect to the start; the first-order gradient must be another."""
    network, case = in_double(encoder)
    loss = scan_loss(network, case, MeasurementLoss("l2"))
    start = dict(network.named_parameters())
    update = MetaUpdate("maml", n_steps=2, lr=2.0)
    _, exact = update.outer_gradient(loss, start)
    _, first_order = MetaUpdate("fomaml", n_steps=2, lr=2.0).outer_gradient(loss, start)
    direction = {k: torch.randn(v.shape, generator=rng, dtype=v.dtype) * v.abs().mean() for k, v in start.items()}

    def after(step: float) -> float:
        moved = {k: (v.detach() + step * direction[k]).requires_grad_(True) for k, v in start.items()}
        return float(update.outer_gradient(loss, moved)[0])

    def along(gradient) -> float:
        return float(sum((gradient[k] * direction[k]).sum() for k in start))

    expected = (after(1e-5) - after(-1e-5)) / 2e-5
    assert along(exact) == pytest.approx(expected, rel=1e-5)
    assert along(first_order) != pytest.approx(expected, rel=1e-2)


def test_reptile_with_rate_one_ends_where_the_inner_steps_end():
    network, case = small_meta(), mri_case()
    alone = copy.deepcopy(network)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        MeasurementLoss()(alone(case["points"][None]), [case]).backward()
        optimizer.step()
    update = MetaUpdate("reptile", n_steps=3, lr=1e-2, inner=ADAM)
    hooked = []  # what averages gradients over processes hangs there
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(hooked.append)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    trainer(network, optimizer, [case], 1, iteration_update=update).run()
    assert len(hooked) == len(list(network.parameters()))
    for mine, other in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("update", "outer"),
    [
        (MetaUpdate("reptile", n_steps=5, lr=1e-2, inner=ADAM), partial(torch.optim.SGD, lr=0.5)),
        (MetaUpdate("fomaml", n_steps=2, lr=1e-2, inner=ADAM), partial(torch.optim.Adam, lr=1e-2)),
        (MetaUpdate("maml", n_steps=2, lr=1e-1), partial(torch.optim.Adam, lr=1e-2)),
    ],
    ids=["reptile", "fomaml", "maml"],
)
def test_a_learned_start_is_ahead_on_a_scan_never_seen(update, outer):
    cases = [mri_case(shift=s, seed=i, index=i) for i, s in enumerate((-0.15, -0.05, 0.05, 0.15))]
    network, unseen = small_meta(), mri_case(shift=0.1, seed=9)
    trainer(network, outer(network.parameters()), cases, 8, iteration_update=update).run()
    losses = []
    for start in (network, small_meta()):
        losses.append(adapt(start, unseen, n_iterations=10)[0].history[-1]["loss"])
    assert losses[0] < 0.7 * losses[1]


def test_second_derivatives_stay_finite_where_a_residual_is_zero():
    """Unmeasured samples of k-space are exactly 0 on both sides."""
    network, case = small_meta(), mri_case()
    value, gradient = MetaUpdate("maml", n_steps=2, lr=0.1).outer_gradient(
        scan_loss(network, case, MeasurementLoss("l1", regularisers=[TVRegulariser(0.01)])),
        dict(network.named_parameters()),
    )
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() for g in gradient.values())


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="algorithm: expected one of reptile, fomaml, maml, found 'anil'"):
        MetaUpdate("anil")
    with pytest.raises(InputError, match="at least 1 step and a positive rate, found 0"):
        MetaUpdate(n_steps=0)
