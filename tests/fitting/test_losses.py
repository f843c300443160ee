import math

import pytest
import torch

from disinr_monai.errors import InputError
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.regularisers import TVRegulariser, tv_value
from disinr_monai.operators import FanBeam, FanGeometry, Identity
from disinr_monai.scan import Scan
from tests.problems import mri_case


def test_l1_and_l2_of_a_known_residual():
    scan = Scan(Identity((1, 2, 3)), torch.zeros(1, 2, 3))
    image = torch.tensor([[[1.0, -2.0, 0.0], [0.0, 3.0, 0.0]]])
    assert MeasurementLoss("l1").one(image, scan) == pytest.approx(6 / 6)
    assert MeasurementLoss("l2").one(image, scan) == pytest.approx(0.5 * 14 / 6)


def test_mean_is_over_measured_samples_only():
    case = mri_case()
    image = torch.zeros(case["scan"].operator.domain_shape)
    expected = case["scan"].measurement.abs().sum() / (case["scan"].measurement != 0).sum()
    found = MeasurementLoss("l1").one(image, case["scan"])
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_weights_are_used_only_when_asked_for():
    image, weights = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.5, 1.5]]]) * 3
    scan = Scan(Identity((1, 1, 2)), torch.zeros(1, 1, 2), weights)
    assert MeasurementLoss("l1").one(image, scan) == pytest.approx(1.0)
    assert MeasurementLoss("l1", use_weights=True).one(image, scan) == pytest.approx(3.0)


def test_kept_samples_alone_count():
    image, keep = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[1.0, 0.0]]])
    scan = Scan(Identity((1, 1, 2)), torch.zeros(1, 1, 2))
    assert MeasurementLoss("l1").one(image, scan, keep) == pytest.approx(0.5)


def test_total_variation_of_a_step():
    image = torch.zeros(1, 4, 6)
    image[:, :, 3:] = 2.0  # one edge of height 2 and length 4
    assert float(tv_value(image, epsilon=0.0)) == pytest.approx(2 * 4 / 24)
    corner = torch.zeros(2, 3, 3)
    corner[0, 1, 1], corner[1, 1, 1] = 3.0, 4.0  # |x| = 5: from (0,1) and (1,0) one difference, from (1,1) two
    assert float(tv_value(corner, epsilon=0.0)) == pytest.approx((5 + 5 + 5 * math.sqrt(2)) / 9)


def test_total_variation_of_a_flat_image_has_a_finite_gradient():
    image = torch.ones(1, 4, 4, requires_grad=True)
    tv_value(image).backward()
    assert torch.isfinite(image.grad).all()


def test_batch_is_the_mean_over_cases():
    cases = [mri_case(index=0), mri_case(shift=0.2, index=1)]
    loss = MeasurementLoss("l1", regularisers=[TVRegulariser(0.1)])
    images = torch.rand(2, *cases[0]["scan"].operator.domain_shape)
    alone = [loss(images[i : i + 1], cases[i : i + 1]) for i in range(2)]
    assert float(loss(images, cases)) == pytest.approx(float(sum(alone) / 2), rel=1e-6)


def test_regularisers_add_up_and_weight_zero_leaves_one_out():
    image, scan = torch.rand(1, 4, 6), Scan(Identity((1, 4, 6)), torch.zeros(1, 4, 6))
    loss = MeasurementLoss(regularisers=[TVRegulariser(0.1), TVRegulariser(0.2), TVRegulariser(0.0)])
    expected = MeasurementLoss().one(image, scan) + 0.3 * tv_value(image)
    assert float(loss.one(image, scan)) == pytest.approx(float(expected), rel=1e-6)


def test_total_variation_needs_whole_images():
    with pytest.raises(InputError, match="found 7 scattered points of a streamed fit; set --tv_weight 0"):
        TVRegulariser(0.1)(torch.rand(1, 7))


def test_bad_settings():
    with pytest.raises(ValueError, match="MeasurementLoss: norm must be"):
        MeasurementLoss("huber")
    with pytest.raises(ValueError, match="TVRegulariser: weight must not be negative, found -1"):
        TVRegulariser(-1.0)


def test_l2_takes_the_ramp_once_and_weights_outside_of_it():
    operator = FanBeam(
        FanGeometry(
            image_shape=(8, 8),
            pixel_spacing=2.0,
            angles=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            n_detectors=20,
            detector_spacing=3.0,
            source_distance=50.0,
            detector_distance=50.0,
        )
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(operator.domain_shape, generator=generator, requires_grad=True)
    target = torch.rand(operator.range_shape, generator=generator)
    weights = torch.rand(operator.range_shape, generator=generator)
    MeasurementLoss("l2", use_weights=True).one(image, Scan(operator, target, weights)).backward()
    root = weights.sqrt()
    residual = (operator(image) - target).detach()
    expected = operator.adjoint(root * operator.precondition(root * residual)) / operator.n_measured
    torch.testing.assert_close(image.grad, expected, rtol=1e-4, atol=1e-6)
