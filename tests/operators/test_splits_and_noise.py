"""Restriction of operators to a part of a scan, energy of residuals and of noise."""

from __future__ import annotations

import math

import pytest
import torch

from disinr_monai.operators import Identity
from tests.problems import ct_case, mri_case


def test_mri_splits_keep_the_centre():
    operator = mri_case()["scan"].operator
    for index in range(10):
        keep = operator.partition.training_split(index, torch.Generator().manual_seed(index))
        assert keep[:, :, 7:13].all()


def test_restriction_of_a_restriction_and_of_any_operator():
    case = ct_case()
    keep = torch.zeros(case["scan"].operator.range_shape, dtype=torch.bool)
    keep[:, 3:15] = True
    part, select = case["scan"].operator.partition.restrict(keep)
    inner, choose = part.partition.restrict(torch.arange(12)[None, :, None].expand(part.range_shape) % 3 == 1)
    image = torch.randn(1, 32, 32)
    torch.testing.assert_close(inner(image), choose(select(case["scan"].operator(image))))
    masked, choose = Identity((1, 4, 4)).partition.restrict(torch.eye(4, dtype=torch.bool)[None])
    assert masked.n_measured == 4
    torch.testing.assert_close(masked(torch.ones(1, 4, 4)), torch.eye(4)[None])


def test_ordered_subsets_cover_every_view_once():
    operator = ct_case()["scan"].operator
    parts = operator.partition.subsets(6)
    assert [part.range_shape[1] for part, _ in parts] == [6, 6, 6, 6]
    image = torch.rand(1, 32, 32)
    total = sum(part.adjoint(select(operator(image))) for part, select in parts)
    torch.testing.assert_close(total, operator.adjoint(operator(image)), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_gram_is_forward_and_adjoint(modality):
    case = ct_case() if modality == "ct" else mri_case()
    image = torch.randn(case["scan"].operator.domain_shape)
    expected = case["scan"].operator.adjoint(case["scan"].operator(image))
    torch.testing.assert_close(case["scan"].operator.gram(image), expected, rtol=1e-4, atol=1e-4)


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
