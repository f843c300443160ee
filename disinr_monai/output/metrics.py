"""Image metrics of evaluation, benchmarks, reports and tests."""

from __future__ import annotations

import math

import torch
from monai.metrics import SSIMMetric
from torch import Tensor

from disinr_monai.modality import facts_of

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def to_display(image: Tensor, modality: str, image_scale: float = 1.0) -> Tensor:
    """Convert an image for display and comparison: real, ``(1, *S)``, data range 1.

    Args:
        image: network image ``(C, *S)``, or a reference ``(1, *S)`` with ``image_scale`` 1.
        modality: ``"mri"``: magnitude times ``image_scale``; ``"ct"``: ``clip(x - 1/6, 0, 1)``, i.e. [-800, 400] HU;
            anything else: the image times ``image_scale``.
        image_scale: factor from network to reference units.
    """
    return facts_of(modality).display(torch.as_tensor(image).detach().float(), image_scale)


def image_metrics(image: Tensor, reference: Tensor) -> dict[str, float]:
    r"""PSNR, SSIM and NRMSE of display images ``(1, *S)``, data range 1.

    .. math::
        \mathrm{PSNR} = -10 \log_{10} \overline{(x - r)^2}, \qquad
        \mathrm{NRMSE} = \|x - r\|_2 / \|r\|_2

    SSIM is MONAI's: Gaussian window of σ = 1.5 and 11 pixels (Wang et al., 2004), 11³ voxels for a volume (fewer along
    an axis that is shorter). For volumes the same sums are made axis by axis and a slab at a time.

    Raises:
        ValueError: shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image_metrics: image {tuple(image.shape)} and reference {tuple(reference.shape)} differ")
    image, reference = image.float().cpu(), reference.float().cpu()
    mse = float((image - reference).square().mean())
    ssim = _ssim_of_volume if image.ndim == 4 else SSIMMetric(spatial_dims=2)
    return {
        "psnr": -10 * math.log10(max(mse, 1e-20)),
        "ssim": float(ssim(image[None], reference[None])),
        "nrmse": float(torch.linalg.vector_norm(image - reference) / torch.linalg.vector_norm(reference)),
    }


def _ssim_of_volume(image: Tensor, reference: Tensor, slab: int = 16) -> float:
    """Mean SSIM of ``(1, 1, X, Y, Z)``: MONAI's 11³ convolution would take a minute for 256² x 133 voxels."""
    image, reference = image[0, 0], reference[0, 0]
    windows = [_window(min(_WINDOW, n - 1 + n % 2)) for n in image.shape]
    length, total, count = len(windows[0]), 0.0, 0
    for start in range(0, image.shape[0] - length + 1, slab):
        stop = min(start + slab, image.shape[0] - length + 1) + length - 1
        x, y = image[start:stop], reference[start:stop]
        mean_x, mean_y, xx, yy, xy = (_smooth(values, windows) for values in (x, y, x * x, y * y, x * y))
        product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
        structure = (2 * (xy - product) + _C2) / (xx + yy - squares + _C2)
        values = (2 * product + _C1) / (squares + _C1) * structure
        total, count = total + float(values.double().sum()), count + values.numel()
    return total / count


def _window(length: int) -> Tensor:
    distance = torch.arange(length) - (length - 1) / 2
    window = torch.exp(-0.5 * (distance / _SIGMA).square())
    return window / window.sum()


def _smooth(values: Tensor, windows: list[Tensor]) -> Tensor:
    """Windowed means along each axis, where the window lies inside."""
    for axis, window in enumerate(windows):
        n = values.shape[axis] - len(window) + 1
        out = values.narrow(axis, 0, n) * window[0]
        for i in range(1, len(window)):
            out.add_(values.narrow(axis, i, n), alpha=float(window[i]))
        values = out
    return values
