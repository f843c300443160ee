"""The one definition of every image metric, used by evaluation, benchmarks, reports and tests."""

from __future__ import annotations

import math

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

from disinr_monai.data.modalities import facts_of


def to_display(image: Tensor, modality: str, image_scale: float = 1.0) -> Tensor:
    """What is shown and compared: a real image ``(1, *S)`` with data range 1.

    Args:
        image: network image ``(C, *S)``, or a reference ``(1, *S)`` with ``image_scale`` 1.
        modality: ``"mri"``: magnitude times ``image_scale``; ``"ct"``: ``clip(x - 1/6, 0, 1)``, i.e. [-800, 400] HU;
            anything else: the image times ``image_scale``.
        image_scale: factor from network to reference units.
    """
    image = torch.as_tensor(image).detach().float()
    return facts_of(modality).display(image, image_scale)


def image_metrics(image: Tensor, reference: Tensor) -> dict[str, float]:
    r"""PSNR, SSIM and NRMSE of display images ``(1, *S)``, data range 1.

    .. math::
        \mathrm{PSNR} = -10 \log_{10} \overline{(x - r)^2}, \qquad
        \mathrm{NRMSE} = \|x - r\|_2 / \|r\|_2

    SSIM is MONAI's: Gaussian window of σ = 1.5 and 11 pixels (Wang et al., 2004).

    Raises:
        ValueError: shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image_metrics: image {tuple(image.shape)} and reference {tuple(reference.shape)} differ")
    image, reference = image.float().cpu(), reference.float().cpu()
    mse = float((image - reference).square().mean())
    ssim, _ = compute_ssim_and_cs(
        image.unsqueeze(0),
        reference.unsqueeze(0),
        spatial_dims=image.ndim - 1,
        kernel_size=[11] * (image.ndim - 1),
        kernel_sigma=[1.5] * (image.ndim - 1),
        data_range=1.0,
    )
    return {
        "psnr": -10 * math.log10(max(mse, 1e-20)),
        "ssim": float(ssim.mean()),
        "nrmse": float(torch.linalg.vector_norm(image - reference) / torch.linalg.vector_norm(reference)),
    }
