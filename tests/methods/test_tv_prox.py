import numpy as np
import pytest
import torch

from disinr_monai.methods.total_variation import TotalVariation
from disinr_monai.methods.tv_prox import TotalVariationProx, add_gradient_adjoint, gradient
from disinr_monai.operators import Identity
from disinr_monai.scan import Scan
from tests.methods.scans import blocks, error, tv_sum


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 6, 5), (1, 4, 5, 6)])
def test_gradient_and_its_adjoint(shape):
    image = torch.randn(shape, dtype=torch.float64)
    field = gradient(torch.randn(shape, dtype=torch.float64))
    right = (image * add_gradient_adjoint(torch.zeros_like(image), field)).sum()
    torch.testing.assert_close((gradient(image) * field).sum(), right)
    assert tv_sum(torch.ones(shape)) == 0


def test_total_variation_of_a_step():
    image = torch.zeros(1, 6, 9)
    image[0, :, 4:] = 0.5
    assert tv_sum(image) == pytest.approx(0.5 * 6)
    assert tv_sum(torch.cat((3 * image, 4 * image))) == pytest.approx(5 * 0.5 * 6)


def test_denoising_agrees_with_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    noisy = blocks().numpy() + 0.1 * np.random.default_rng(0).normal(size=(40, 48))
    expected = restoration.denoise_tv_chambolle(noisy, weight=0.1, eps=1e-9, max_num_iter=20000)
    measurement = torch.tensor(noisy, dtype=torch.float32)[None]
    image = TotalVariation(tv_weight=0.1).solve(Scan(Identity((1, 40, 48)), measurement))
    assert float((image[0] - torch.tensor(expected)).abs().max()) < 2e-3


def test_denoising_of_one_step_is_known():
    """A step of height 1 between n columns a side shrinks by weight / n on each side."""
    image = torch.zeros(1, 8, 20)
    image[..., 10:] = 1
    result = TotalVariationProx((1, 8, 20), image)(image, 0.5, 2000)
    torch.testing.assert_close(result[..., :10], torch.full((1, 8, 10), 0.05), atol=1e-4, rtol=0)
    torch.testing.assert_close(result[..., 10:], torch.full((1, 8, 10), 0.95), atol=1e-4, rtol=0)


@pytest.mark.parametrize("non_negative", [False, True])
@pytest.mark.parametrize("with_metric", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_compiled_steps_are_those_of_tensor_operations(channels, with_metric, non_negative):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(channels, 11, 7, generator=generator, dtype=torch.float64)
    metric = 0.5 + torch.rand(1, 11, 7, generator=generator, dtype=torch.float64) if with_metric else None
    plain = TotalVariationProx((channels, 11, 7), image, non_negative, metric)
    plain._compiled = False
    plain._next, plain._slope = torch.zeros_like(plain._dual), torch.zeros_like(plain._dual)
    plain._norm = image.new_zeros(11, 7)
    compiled = TotalVariationProx((channels, 11, 7), image, non_negative, metric)
    assert compiled._compiled
    for weight in (0.3, 0.3, 0.1):  # the dual variable stays from call to call
        given = image.clone()
        torch.testing.assert_close(compiled(given, weight, 4), plain(image, weight, 4), rtol=1e-10, atol=1e-12)
        assert torch.equal(given, image)


def test_warm_start_goes_on():
    noisy = blocks()[None] + 0.1 * torch.randn(1, 40, 48, generator=torch.Generator().manual_seed(0))
    prox = TotalVariationProx((1, 40, 48), noisy)
    long = TotalVariationProx((1, 40, 48), noisy)(noisy, 0.2, 1000)
    first = error(prox(noisy, 0.2, 5), long)
    for _ in range(30):
        last = error(prox(noisy, 0.2, 5), long)
    assert last < 0.15 * first
