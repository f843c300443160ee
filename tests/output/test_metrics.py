import math

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from skimage.metrics import structural_similarity

from disinr_monai.output.body import body_mask
from disinr_monai.output.metrics import all_metrics, image_metrics, to_display


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


def disc(shape: tuple[int, ...], radius: float) -> torch.Tensor:
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    return (sum(axis**2 for axis in axes) <= radius**2)[None]


@pytest.mark.parametrize("shape", [(64, 64), (40, 40, 40)])
def test_inside_the_body_only_the_error_inside_counts(shape):
    """A disc (a ball) with an error of 0.1 inside and 0.3 outside: 20 dB in it, in all what both weigh."""
    inside = disc(shape, 12)
    reference = 0.5 * inside.float()
    found = image_metrics(reference + torch.where(inside, 0.1, 0.3), reference, inside)
    assert found["psnr_body"] == pytest.approx(20.0, abs=1e-3)
    share = float(inside.float().mean())
    assert found["psnr"] == pytest.approx(-10 * math.log10(share * 0.01 + (1 - share) * 0.09), abs=1e-3)
    without = image_metrics(reference + torch.where(inside, 0.1, 0.3), reference)
    assert without == {key: found[key] for key in ("psnr", "ssim", "nrmse")}


@pytest.mark.parametrize("shape", [(64, 64), (40, 40, 40)])
def test_ssim_inside_is_the_mean_of_its_map_there(shape):
    """Flat images of 0.6 and 0.4: one factor of SSIM is left, the same wherever no window meets the edge."""
    inside = disc(shape, 20 if len(shape) == 2 else 14)
    core = disc(shape, 8 if len(shape) == 2 else 4)
    reference = 0.4 * inside.float()
    image = torch.where(inside, 0.6, 0.9)
    expected = (2 * 0.6 * 0.4 + 0.01**2) / (0.6**2 + 0.4**2 + 0.01**2)
    assert image_metrics(image, reference, core)["ssim_body"] == pytest.approx(expected, abs=2e-4)
    assert image_metrics(reference, reference, core)["ssim_body"] == pytest.approx(1, abs=1e-5)


def test_a_mask_that_no_window_reaches_has_no_ssim():
    reference, corner = torch.rand(1, 20, 20), torch.zeros(1, 20, 20, dtype=torch.bool)
    corner[0, 0, 0] = True
    found = image_metrics(reference + 0.1, reference, corner)
    assert found["psnr_body"] == pytest.approx(20, abs=1e-3)
    assert "ssim_body" not in found


@pytest.mark.parametrize("shape", [(80, 80), (48, 48, 48)])
def test_the_body_is_the_largest_part_with_its_holes_filled(shape, rng):
    """A disc with a hole, a second small one beside it, and noise of 3 % of the signal."""
    body, hole = disc(shape, 14), disc(shape, 5)
    reference = torch.where(body & ~hole, 0.8, 0.0)
    reference[0, 2:6, 2:6] = 1.0
    reference = (reference + 0.03 * torch.randn(reference.shape, generator=rng)).abs()
    found = body_mask(reference, is_hu=False)
    assert (found & hole).sum() == hole.sum()
    assert not found[0, 2:6, 2:6].any()
    assert bool((found | ~body).all())
    assert not bool((found & ~disc(shape, 16.5)).any())  # smoothing moves the edge by less than 2.5 voxels


def test_the_body_in_ct_is_above_minus_500_hu():
    hu = torch.full((1, 64, 64), -1000.0)
    hu[disc((64, 64), 20)], hu[disc((64, 64), 10)] = 40.0, -800.0  # a lung in it
    hu[0, 60:62] = 200.0  # the table
    found = body_mask(to_display((hu + 1000) / 1200, "ct"), is_hu=True)
    assert abs(int(found.sum()) - int(disc((64, 64), 20).sum())) < 80  # half a pixel of the edge
    assert not found[0, 58:].any()


def test_an_empty_reference_has_no_body():
    empty = torch.zeros(1, 32, 32)
    assert not body_mask(empty, is_hu=False).any()
    assert not body_mask(empty, is_hu=True).any()
    assert "psnr_body" not in all_metrics(empty + 0.1, empty, is_hu=True)


def test_soft_tissue_counts_in_its_own_window():
    """40 HU too much are a tenth of [-160, 240] HU, and nothing where both are below or above the window."""
    hu = torch.full((1, 32, 32), 50.0)
    shown = [to_display((image + 1000) / 1200, "ct") for image in (hu + 40, hu)]
    found = all_metrics(*shown, is_hu=True)
    assert found["psnr_soft"] == pytest.approx(20, abs=1e-3)
    assert found["psnr"] == pytest.approx(-20 * math.log10(40 / 1200), abs=1e-3)
    bone = [to_display((image + 1000) / 1200, "ct") for image in (hu + 300, hu + 250)]
    assert all_metrics(*bone, is_hu=True)["psnr_soft"] > 100
    assert "psnr_soft" not in all_metrics(*shown, is_hu=False)
