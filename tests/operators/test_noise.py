"""What statistics of noise must be, tried on an example of every operator."""

import math
from collections.abc import Callable

import pytest
import torch

from disinr_monai.operators import Identity, LinearOperator, MultiCoilFourier
from tests.operators.helpers import every_operator, fan_beam, measured, random_like, random_range
from tests.problems import ct_case, mri_case


def white(make: Callable[[], LinearOperator], seed: int) -> torch.Tensor:
    """Noise of variance 1 in every sample that is measured, complex as the measurement is."""
    return random_range(make().double(), seed=seed) * measured(make())


@every_operator
@pytest.mark.parametrize("weight", [None, 2.5])
def test_energy_of_white_noise(make, weight):
    """What is expected of noise of known variance is what it leaves, in the mean over many draws."""
    operator, mask = make().double(), measured(make())
    weights = None if weight is None else torch.full(operator.range_shape, weight, dtype=torch.float64)
    is_complex = random_range(operator).is_complex()
    draws = [0.3 * random_like(operator.range_shape, is_complex, seed) * mask for seed in range(60)]
    left = torch.stack([operator.noise.residual_energy(noise, weights) for noise in draws]).mean()
    assert operator.noise.energy(torch.tensor(0.09), weights) == pytest.approx(float(left), rel=0.15)
    assert operator.noise.energy(None, weights) == 0


@every_operator
def test_energy_is_quadratic(make):
    operator = make().double()
    values, weights = white(make, 1), random_like(operator.range_shape, False, 2).square()
    one, two = (operator.noise.residual_energy(k * values, weights) for k in (1, 2))
    assert float(one) > 0
    assert float(two) == pytest.approx(4 * float(one))
    assert float(operator.noise.residual_energy(0 * values)) == 0


@every_operator
def test_variance_and_its_image(make):
    """A variance fits the measurement, and its image is one channel of finite values, not negative."""
    operator = make()
    measurement = operator(torch.rand(operator.domain_shape))
    measurement = measurement + white(make, 1).to(measurement.dtype)
    for weights in (None, torch.rand(operator.range_shape) + 0.5):
        variance = operator.noise.variance(measurement, weights)
        assert variance.expand(operator.range_shape).min() >= 0
        image = operator.noise.image(variance)
        assert image.shape == (1, *operator.domain_shape[1:])
        assert image.isfinite().all()
        assert image.min() >= 0
        scaled = operator.noise.image(4 * variance)
        torch.testing.assert_close(scaled, 2 * image)


@every_operator
def test_image_of_a_residual(make):
    """An image of the right shape, linear, and a descent direction of the least squares that it comes from."""
    operator = make().double()
    error = random_like(operator.domain_shape, False, 5)
    residual = operator(error)
    image = operator.noise.residual_image(residual)
    assert image.shape == operator.domain_shape
    torch.testing.assert_close(operator.noise.residual_image(3 * residual), 3 * image)
    assert float((image * error).sum()) > 0
    weighted = operator.noise.residual_image(residual, torch.full(operator.range_shape, 4.0, dtype=torch.float64))
    torch.testing.assert_close(weighted, 4 * image)


def test_variance_of_kspace_is_that_of_its_edge():
    operator = MultiCoilFourier(torch.ones(4, 48, 40, dtype=torch.complex64), torch.ones(40))
    noise = 0.3 * random_like(operator.range_shape, True, 0)
    assert float(operator.noise.variance(noise)) == pytest.approx(0.09, rel=0.1)
    assert float(operator.noise.variance(torch.zeros_like(noise))) == 0


def test_noise_of_a_composition_is_that_of_the_measurement():
    beam, image = fan_beam(), torch.rand(1, 5, 7)
    same = beam @ Identity((1, 5, 7))
    values, weights = beam(image) + torch.rand(beam.range_shape), torch.rand(beam.range_shape)
    variance = beam.noise.variance(values, weights)
    assert torch.equal(same.noise.variance(values, weights), variance)
    assert same.noise.energy(variance, weights) == beam.noise.energy(variance, weights)
    assert torch.equal(same.noise.image(variance), beam.noise.image(variance))
    assert torch.equal(same.noise.residual_image(values, weights), beam.noise.residual_image(values, weights))


def test_mri_energy_is_the_mean_square():
    case = mri_case()
    operator, image = case["scan"].operator, torch.randn(2, 24, 20)
    residual = operator(image) - case["scan"].measurement
    expected = residual.abs().square().sum() / operator.n_measured
    torch.testing.assert_close(operator.noise.residual_energy(residual), expected)


def test_ct_energy_is_its_quadratic_form():
    operator, generator = ct_case()["scan"].operator, torch.Generator().manual_seed(0)
    residual = torch.randn(operator.range_shape, generator=generator)
    weights = torch.rand(operator.range_shape, generator=generator) + 0.5
    kernel = operator.ramp.sharpened(torch.eye(80))
    torch.testing.assert_close(kernel, kernel.T, rtol=1e-3, atol=1e-5)
    rows = (weights.sqrt() * residual)[0]
    spacing = 3.0 / 2
    expected = (rows * (rows @ kernel)).sum() * math.pi * spacing / 24 / (32 * 32 * 4.0)
    torch.testing.assert_close(operator.noise.residual_energy(residual, weights), expected, rtol=1e-3, atol=0)
    # Noise of unit variance, in the mean over many draws.
    noise = torch.randn(2000, *operator.range_shape, generator=generator)
    mean = torch.stack([operator.noise.residual_energy(n, weights) for n in noise[:400]]).mean()
    assert operator.noise.energy(torch.ones(()), weights) == pytest.approx(float(mean), rel=0.05)


def test_ct_energy_is_about_the_error_of_the_image():
    operator = ct_case(n_views=90)["scan"].operator
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    smooth = torch.exp(-(rows**2 + columns**2) / 0.1)[None]
    fine = smooth * torch.cos(6 * rows + 9 * columns)
    for image in (smooth, fine):
        assert float(operator.noise.residual_energy(operator(image))) == pytest.approx(
            float(image.square().mean()), rel=0.3
        )


def test_noise_is_seen_in_rays_that_miss():
    case = ct_case(n_views=48)
    variance = case["scan"].operator.noise.variance(case["scan"].measurement, case["scan"].weights)
    expected = 1 / (1e3 * torch.exp(-0.024 * case["scan"].operator(case["reference"]))) / 0.024**2
    torch.testing.assert_close(variance, expected, rtol=0.2, atol=0)
