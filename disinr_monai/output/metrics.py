"""Image metrics of evaluation, benchmarks, reports and tests."""

from __future__ import annotations

import math

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

from disinr_monai.modality import facts_of
from disinr_monai.output.body import body_mask
from disinr_monai.scan import Scan

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


def image_metrics(image: Tensor, reference: Tensor, body: Tensor | None = None) -> dict[str, float]:
    r"""PSNR, SSIM and NRMSE of display images ``(1, *S)``, data range 1.

    .. math::
        \mathrm{PSNR} = -10 \log_{10} \overline{(x - r)^2}, \qquad
        \mathrm{NRMSE} = \|x - r\|_2 / \|r\|_2

    SSIM is MONAI's: Gaussian window of σ = 1.5 and 11 pixels (Wang et al., 2004), 11³ voxels for a volume (fewer along
    an axis that is shorter), its mean over all places where the window lies inside the image. For volumes the same sums
    are made axis by axis and a slab at a time.

    Args:
        image: to be judged.
        reference: what it should be.
        body: mask ``(1, *S)``; if it holds any voxel, ``psnr_body`` and ``ssim_body`` are the mean squared error and
            the mean of the SSIM map within it.

    Raises:
        ValueError: shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image_metrics: image {tuple(image.shape)} and reference {tuple(reference.shape)} differ")
    image, reference = image.float().cpu(), reference.float().cpu()
    error = (image - reference).square()
    ssim = (_ssim_of_volume if image.ndim == 4 else _ssim_of_slice)(
        image[0], reference[0], None if body is None else body[0]
    )
    result = {
        "psnr": _psnr(error),
        "ssim": ssim[0],
        "nrmse": float(torch.linalg.vector_norm(image - reference) / torch.linalg.vector_norm(reference)),
    }
    if body is not None and body.any():
        result["psnr_body"] = _psnr(error[body])
        result |= {} if ssim[1] is None else {"ssim_body": ssim[1]}
    return result


def all_metrics(image: Tensor, reference: Tensor, is_hu: bool) -> dict[str, float]:
    """:func:`image_metrics` of the whole image and of the body, and of CT in a soft-tissue window.

    ``psnr_soft`` and ``ssim_soft`` are those of the whole image in the window [-160, 240] HU, clipped there, data
    range 1: a difference of 40 HU counts as 0.1 (in the wide window as 0.033).

    Args:
        image: display image ``(1, *S)``.
        reference: display image ``(1, *S)``.
        is_hu: whether they show HU, in the window [-800, 400].

    Raises:
        ValueError: shapes differ.
    """
    result = image_metrics(image, reference, body_mask(reference, is_hu))
    if is_hu:
        soft = image_metrics(*((shown * 3 - 1.6).clamp(0, 1) for shown in (image, reference)))
        result |= {"psnr_soft": soft["psnr"], "ssim_soft": soft["ssim"]}
    return result


def unsampled_error(scan: Scan, image: Tensor) -> float:
    r"""Normalised error of predicted samples, :math:`\|A x - y\|^2 / \|y\|^2`.

    Of samples that were not given to the method it needs no reference image. Their own noise :math:`n` is a part of it
    that nothing can predict: an image without error gets :math:`\|n\|^2 / \|y\|^2`.

    Args:
        scan: the samples that were taken away.
        image: network image ``(C, *S)``.
    """
    return float(
        scan.residual(image.to(scan.measurement.device)).abs().square().sum() / scan.measurement.abs().square().sum()
    )


def _psnr(squared_error: Tensor) -> float:
    return -10 * math.log10(max(float(squared_error.mean()), 1e-20))


def _ssim_of_slice(image: Tensor, reference: Tensor, body: Tensor | None) -> tuple[float, float | None]:
    """Mean SSIM of ``(H, W)`` and that within a mask (None where the window does not reach it)."""
    values, _ = compute_ssim_and_cs(image[None, None], reference[None, None], 2, [_WINDOW] * 2, [_SIGMA] * 2, 1.0)
    inside = None if body is None else values[0, 0][body[tuple(slice(_WINDOW // 2, -(_WINDOW // 2)) for _ in range(2))]]
    return float(values.mean()), float(inside.mean()) if inside is not None and len(inside) else None


def _ssim_of_volume(
    image: Tensor, reference: Tensor, body: Tensor | None, slab: int = 16
) -> tuple[float, float | None]:
    """The same of ``(X, Y, Z)``: MONAI's 11³ convolution would take a minute for 256² x 133 voxels."""
    windows = [_window(min(_WINDOW, n - 1 + n % 2)) for n in image.shape]
    length, totals, counts = len(windows[0]), [0.0, 0.0], [0, 0]
    valid = tuple(slice(len(w) // 2, n - len(w) // 2) for w, n in zip(windows, image.shape, strict=True))
    body = None if body is None else body[valid]
    for start in range(0, image.shape[0] - length + 1, slab):
        stop = min(start + slab, image.shape[0] - length + 1) + length - 1
        x, y = image[start:stop], reference[start:stop]
        mean_x, mean_y, xx, yy, xy = (_smooth(values, windows) for values in (x, y, x * x, y * y, x * y))
        product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
        structure = (2 * (xy - product) + _C2) / (xx + yy - squares + _C2)
        values = (2 * product + _C1) / (squares + _C1) * structure
        inside = values[:0] if body is None else values[body[start : start + len(values)]]
        for i, part in enumerate((values, inside)):
            totals[i], counts[i] = totals[i] + float(part.double().sum()), counts[i] + part.numel()
    return totals[0] / counts[0], totals[1] / counts[1] if counts[1] else None


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
