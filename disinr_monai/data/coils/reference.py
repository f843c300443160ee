"""The reference image of a fully sampled raw MRI scan."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from disinr_monai.data.coils.espirit import espirit_maps
from disinr_monai.operators import MultiCoilFourier
from disinr_monai.scan import Scan

REFERENCES = ("combined", "rss")
_CENTRE = 32
_LEAST_MAP = 0.05
_OUTER = (5 / 12, 1 / 4)  # of readout and phase encoding: the corners beyond hold hardly any signal
_TEXTS = {"combined": "coils combined with maps of the full scan", "rss": "root sum of squares of the full scan"}


class FullReference(NamedTuple):
    """Reference image of a full scan.

    Attributes:
        image: float32 ``(1, H, W)``, in the units of the k-space.
        noise: standard deviation of its noise where there is signal, the same units; 0 if the scan does not tell.
        variance: of the noise of one complex sample of the k-space; 0 if the scan does not tell.
    """

    image: NDArray[np.float32]
    noise: float
    variance: float


def full_reference(
    images: NDArray, kspace: NDArray, maps: NDArray | None, kind: Literal["combined", "rss"], name: str
) -> FullReference:
    r"""Combine the coil images :math:`x_c` of a fully sampled scan into one.

    .. math:: \text{combined:}\ \Big|\frac{\sum_c \bar s_c x_c}{\sum_c |s_c|^2}\Big| \qquad
        \text{rss:}\ \sqrt{\textstyle\sum_c |x_c|^2}

    The maps :math:`s_c` are the file's own, or those of ESPIRiT from the middle 32² samples of the full scan. These
    are kept everywhere (``crop`` 0): in air the combined reference is the noise of one channel, of mean
    :math:`σ \sqrt{π} / 2`. The root sum of squares has about :math:`σ \sqrt{n}` there, with n coils, and is too large
    wherever the signal is weak. Of an object that wraps around the field of view (two sets of maps) it is the root sum
    of squares of both images. Where the root sum of squares of the file's maps is below 0.05 of its largest, the
    reference is 0.

    The noise of a magnitude where there is signal has half the variance of the complex noise,
    :math:`s^H Ψ s / (2 |s|^4)`, with :math:`s = x` for the root sum of squares, and the covariance :math:`Ψ` of the
    coils in the corners of k-space, scaled so that its mean variance is what the scan itself shows
    (:meth:`~disinr_monai.scan.Scan.noise_level`). Its mean over the pixels above a tenth of the maximum is given.

    Args:
        images: complex ``(n_coils, H, W)``, orthonormal inverse transform of ``kspace``.
        kspace: complex ``(n_coils, H, W)``, every sample measured.
        maps: complex ``(n_coils, H, W)``; None to estimate them.
        kind: which of the two.
        name: what error messages call the data.

    Raises:
        InputError: no coil maps can be estimated (:func:`~disinr_monai.data.coils.espirit.espirit_maps`).
    """
    if kind == "rss":
        image = np.sqrt((np.abs(images) ** 2).sum(0)).astype(np.float32)
        weights = images / np.maximum(image, np.finfo(np.float32).tiny)
    else:
        if maps is None:
            maps = espirit_maps(kspace, min(_CENTRE, *kspace.shape[1:]), crop=0.0, name=name).numpy()
        sets = maps.reshape(-1, *images.shape)
        size = np.sqrt((np.abs(sets) ** 2).sum(1, keepdims=True))
        seen = size > _LEAST_MAP * size.max()
        sets = sets * (seen / np.where(seen, size, 1) ** 2)
        image = np.linalg.norm((sets.conj() * images).sum(1), axis=0).astype(np.float32)
        weights = sets[0]
    covariance = _covariance(kspace)
    bright = weights[:, image > 0.1 * image.max()]
    noise = math.sqrt(float(np.mean((bright.conj() * (covariance @ bright)).sum(0).real)) / 2) if bright.size else 0.0
    return FullReference(image[None], noise, float(np.trace(covariance).real) / len(kspace))


def _covariance(kspace: NDArray) -> NDArray[np.complex128]:
    """Covariance of the noise of the coils ``(n_coils, n_coils)``; zero if the scan does not tell."""
    samples = torch.from_numpy(np.ascontiguousarray(kspace, dtype=np.complex64))
    full = MultiCoilFourier(torch.ones_like(samples), torch.ones(samples.shape[1:]))
    variance = float(Scan(full, samples).noise_level().mean())
    rows, columns = (
        np.abs(np.arange(n) - n // 2) >= n * part for n, part in zip(kspace.shape[1:], _OUTER, strict=True)
    )
    outer = kspace[:, rows][:, :, columns].reshape(len(kspace), -1).astype(np.complex128)
    covariance = outer @ outer.conj().T
    return covariance * (variance * len(kspace) / max(float(np.trace(covariance).real), np.finfo(float).tiny))


def reference_info(kind: str, noise: float) -> dict[str, Any]:
    """Facts about a reference for a case's ``info``.

    ``reference`` names it; ``reference_noise`` is the standard deviation of its noise over its maximum and
    ``reference_ceiling`` the PSNR in dB that an image without any error would get against it (absent if unknown).

    Args:
        kind: ``"combined"`` or ``"rss"``.
        noise: standard deviation relative to the maximum; 0 if unknown.
    """
    known = {"reference_noise": noise, "reference_ceiling": -20 * math.log10(noise)} if noise > 0 else {}
    return {"reference": kind, **known}


def describe_reference(info: dict[str, Any]) -> str:
    """Describe in words which reference a scan is compared with, and how good it is itself."""
    ceiling = info.get("reference_ceiling")
    limit = "its noise is unknown" if ceiling is None else f"its own noise limits PSNR to about {ceiling:.1f} dB"
    return f"reference: {info['reference']} ({_TEXTS[info['reference']]}; {limit})"
