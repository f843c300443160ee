import math

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from skimage.metrics import structural_similarity

from disinr_monai.output.metrics import image_metrics, to_display


def test_psnr_and_nrmse_of_a_known_error():
    reference = torch.full((1, 16, 12), 0.5)
    result = image_metrics(reference + 0.1, reference)
    assert result["psnr"] == pytest.approx(20.0, abs=1e-4)
    assert result["nrmse"] == pytest.approx(0.2, abs=1e-6)


def test_ssim_is_the_gaussian_one_of_wang(rng):
    reference = torch.rand(1, 40, 33, generator=rng)
    image = (reference + 0.1 * torch.randn(1, 40, 33, generator=rng)).clamp(0, 1)
    _, full = structural_similarity(
        image[0].numpy(), reference[0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert image_metrics(image, reference)["ssim"] == pytest.approx(float(full[5:-5, 5:-5].mean()), abs=2e-4)


@pytest.mark.parametrize("shape", [(40, 21, 17), (12, 30, 11)])
def test_ssim_of_a_volume_is_monais(shape, rng):
    reference = torch.rand(1, *shape, generator=rng)
    image = (reference + 0.1 * torch.randn(1, *shape, generator=rng)).clamp(0, 1)
    expected, _ = compute_ssim_and_cs(image[None], reference[None], 3, [11] * 3, [1.5] * 3, 1.0)
    assert image_metrics(image, reference)["ssim"] == pytest.approx(float(expected.mean()), abs=1e-5)


def test_ssim_of_a_thin_volume(rng):
    reference = torch.rand(1, 30, 30, 4, generator=rng)
    assert image_metrics(reference, reference)["ssim"] == pytest.approx(1.0, abs=1e-5)
    assert image_metrics(1 - reference, reference)["ssim"] < 0.1


def test_identical_images():
    image = torch.rand(1, 16, 16)
    result = image_metrics(image, image)
    assert result["psnr"] > 100
    assert result["ssim"] == pytest.approx(1.0, abs=1e-5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        image_metrics(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))


def test_ct_is_shown_in_its_window():
    hu = torch.tensor([[[-1000.0, -800.0, -200.0, 400.0, 1500.0]]])
    shown = to_display((hu + 1000) / 1200, "ct")
    torch.testing.assert_close(shown, torch.tensor([[[0.0, 0.0, 0.5, 1.0, 1.0]]]))


def test_mri_is_shown_as_scaled_magnitude():
    image = torch.tensor([3.0, 4.0]).reshape(2, 1, 1)
    assert float(to_display(image, "mri", 0.1)) == pytest.approx(0.5)
    assert math.isclose(float(to_display(torch.full((1, 1, 1), 2.0), "volume", 3.0)), 6.0)


def test_display_has_no_gradient():
    assert not to_display(torch.ones(2, 3, 3, requires_grad=True), "mri").requires_grad
    assert np.isfinite(to_display(torch.zeros(2, 3, 3), "mri").numpy()).all()
