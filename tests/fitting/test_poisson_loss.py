from dataclasses import replace

import pytest
import torch

from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import PoissonLoss
from disinr_monai.fitting.regularisers import TVRegulariser
from disinr_monai.grid import voxel_centres
from disinr_monai.operators import Identity, ParallelGeometry, PETProjection
from disinr_monai.operators.count_model import EmissionCounts, TransmissionCounts
from disinr_monai.scan import Scan
from tests.problems import blob, small_naive


def problem(kind: str = "emission") -> tuple[torch.Tensor, Scan]:
    """Image and counts of a small scan, double precision."""
    generator = torch.Generator().manual_seed(0)
    angles = [0.1, 0.7, 1.4, 2.2, 2.9]
    lines = ParallelGeometry(
        image_shape=(12, 10), pixel_spacing=1.0, angles=angles, n_detectors=16, detector_spacing=1.0
    )
    operator = PETProjection(lines, fwhm=1.5).double()
    image = blob(12, 10)[None].double()
    background = torch.rand(operator.range_shape, generator=generator).double() + 0.5
    if kind == "emission":
        model = EmissionCounts(background)
    else:
        model = TransmissionCounts(20 + 10 * torch.rand(operator.range_shape, generator=generator).double(), background)
    counts = torch.poisson(model.expected(operator(image)), generator=generator)
    return image, Scan(operator, counts, counts=model)


@pytest.mark.parametrize("kind", ["emission", "transmission"])
def test_gradient_is_that_of_finite_differences(kind):
    image, scan = problem(kind)
    loss = PoissonLoss([TVRegulariser(0.1)])
    x = (image * 0.8 + 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss.one(x, scan), x)
    for i in (0, 37, 61, 119):
        step = torch.zeros(120, dtype=torch.float64)
        step[i] = 1e-5
        up, down = (loss.one(x + s * step.view_as(x), scan) for s in (1, -1))
        assert float(gradient.flatten()[i]) == pytest.approx(float(up - down) / 2e-5, rel=1e-5, abs=1e-9)


def test_value_is_the_likelihood_up_to_a_constant():
    image, scan = problem()
    values = []
    for x in (image, 0.5 * image + 0.2):
        expected = scan.counts.expected(scan.operator(x))
        likelihood = float((expected - scan.measurement * expected.log()).sum())
        values.append(likelihood - scan.operator.n_measured * float(PoissonLoss().data(x, scan)))
    assert values[0] == pytest.approx(values[1])


def test_parabola_joins_the_likelihood_smoothly():
    y = problem()[1].measurement.flatten()[:40]
    scan = Scan(Identity((40,)), y)  # expected counts are given as they are
    loss, floor = PoissonLoss(floor=0.5), 0.5 * float(y.mean())
    for shift in (-1e-6, 1e-6):
        x = torch.full_like(y, floor * (1 + shift)).requires_grad_()
        (slope,) = torch.autograd.grad(loss._deviance(x, scan).sum(), x)
        torch.testing.assert_close(slope, 1 - y / floor, rtol=1e-3, atol=1e-3)
    assert bool(torch.isfinite(loss._deviance(torch.zeros_like(y), scan)).all())


def test_a_negative_pixel_can_rise_but_not_fall():
    image, scan = problem()
    x = torch.full_like(image, -0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(PoissonLoss().one(x, scan), x)
    assert bool((gradient <= 0).all())
    assert bool((gradient < 0).any())
    nothing = replace(scan, measurement=torch.zeros_like(scan.measurement))
    (gradient,) = torch.autograd.grad(PoissonLoss().one(x, nothing), x)
    assert not bool(gradient.any())


def test_adaptation_fits_counts_to_their_noise():
    scan = problem()[1]
    case = {"name": "scan", "scan": Scan(scan.operator.float(), scan.measurement.float(), counts=scan.counts.float())}
    inferer = AdaptationInferer(PoissonLoss(), n_iterations=150, lr=1e-2, amp=False, quiet=True, early_stop=True)
    image = inferer(voxel_centres((12, 10))[None], small_naive(out_channels=1), case=case)
    assert image.shape == (1, 1, 12, 10)
    assert inferer.history[-1]["loss"] < 0.7 < 2 * inferer.history[0]["loss"]
    assert 0 < inferer.history[-1]["held_out"]
