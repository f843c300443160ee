from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.operators.calibration import acs_size, middle
from disinr_monai.operators.coils import (
    check_maps,
    coil_images,
    combine_coils,
    phase_of,
    to_channels,
    to_complex,
    visible,
)
from disinr_monai.operators.kspace_partition import KspacePartition
from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.noise import KspaceNoise


def fft2c(image: Tensor) -> Tensor:
    """Centred orthonormal 2-D Fourier transform of a complex image over the last two axes (fastMRI's convention)."""
    shifted = torch.fft.ifftshift(image, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))


def ifft2c(kspace: Tensor) -> Tensor:
    """Inverse of :func:`fft2c`."""
    shifted = torch.fft.ifftshift(kspace, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=(-2, -1))


class MultiCoilFourier(LinearOperator):
    r"""Cartesian multi-coil MRI: coil sensitivities, Fourier transform, sampling.

    .. math:: y_c = M\, F (s_c \odot x), \qquad c = 1 \dots n_\text{coils}

    with the complex image :math:`x` (two real channels outside), coil sensitivity maps :math:`s_c`, the centred
    orthonormal Fourier transform :math:`F` and the sampling mask :math:`M` (1 = measured). Axes are
    ``(coil, k1, k0)`` for k-space and ``(row, column)`` for the image; unmeasured samples are exactly zero.

    Several sets of maps stand for an object that wraps around the field of view (soft SENSE, Uecker et al., Magn.
    Reson. Med. 71:990, 2014): :math:`y_c = M F \sum_j s_{jc} \odot x_j`, with the images :math:`x_j` in consecutive
    pairs of channels.

    Args:
        coil_sensitivity_maps: complex, ``(n_coils, H, W)`` or ``(n_sets, n_coils, H, W)``.
        mask: real or boolean, ``(H, W)`` or anything that broadcasts to it, e.g. ``(1, W)`` for whole lines.

    Raises:
        ValueError: wrong rank, a real-valued map, or a mask that does not fit.
    """

    partition_type, noise_type = KspacePartition, KspaceNoise

    def __init__(self, coil_sensitivity_maps: Tensor, mask: Tensor) -> None:
        n_sets, n_coils, height, width = check_maps("MultiCoilFourier", coil_sensitivity_maps)
        try:
            mask = torch.broadcast_to(mask.to(coil_sensitivity_maps.real.dtype), (height, width))
        except RuntimeError:
            raise ValueError(
                f"MultiCoilFourier: mask must broadcast to ({height}, {width}), found {tuple(mask.shape)}"
            ) from None
        super().__init__((2 * n_sets, height, width), (n_coils, height, width))
        # F = D F0 D with D the centring shifts. Storing maps and mask already shifted leaves one plain FFT a call.
        shift = {"dim": (-2, -1)}
        self.register_buffer("maps", torch.fft.ifftshift(coil_sensitivity_maps, **shift).contiguous(), persistent=False)
        self._set_mask(torch.fft.ifftshift(mask, **shift).contiguous())

    def _set_mask(self, mask: Tensor) -> None:
        self.register_buffer("mask", mask, persistent=False)
        sampled = mask > 0
        self._axes = (-1,) if bool((sampled == sampled[:1]).all()) else (-2, -1)
        # Lines, perhaps of a part of the readout (an asymmetric echo); otherwise the pattern is two-dimensional.
        self.has_lines = bool((sampled == (sampled.any(1)[:, None] & sampled.any(0))).all())

    def forward(self, image: Tensor) -> Tensor:
        """Real image ``(..., 2 n_sets, H, W)`` to complex k-space ``(..., n_coils, H, W)``."""
        self._check_domain(image)
        x = torch.fft.ifftshift(to_complex(image), dim=(-2, -1))
        kspace = torch.fft.fft2(coil_images(x, self.maps), norm="ortho") * self.mask
        return torch.fft.fftshift(kspace, dim=(-2, -1))

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Complex k-space ``(..., n_coils, H, W)`` to the coil-combined image ``(..., 2 n_sets, H, W)``."""
        self._check_range(measurement)
        kspace = torch.fft.ifftshift(measurement, dim=(-2, -1)) * self.mask
        coils = torch.fft.ifft2(kspace, norm="ortho")
        return to_channels(torch.fft.fftshift(combine_coils(coils, self.maps), dim=(-2, -1)))

    def gram(self, image: Tensor, weights: Tensor | None = None) -> Tensor:
        """``A^H W A x``; whole lines need no transform along them, and the shifts between the two steps cancel."""
        if weights is not None:
            return super().gram(image, weights)
        self._check_domain(image)
        x = torch.fft.ifftshift(to_complex(image), dim=(-2, -1))
        kspace = torch.fft.fftn(coil_images(x, self.maps), dim=self._axes)
        coils = torch.fft.ifftn(kspace.mul_(self.mask), dim=self._axes)
        return to_channels(torch.fft.fftshift(combine_coils(coils, self.maps), dim=(-2, -1)))

    @property
    def n_measured(self) -> int:
        """Complex samples measured, over all coils."""
        return int(self.mask.sum()) * self.range_shape[0]

    def undersampling(self) -> float:
        """A quarter of the acceleration."""
        return self.mask.numel() / max(float(self.mask.sum()), 1.0) / 4

    def with_maps(self, coil_sensitivity_maps: Tensor) -> MultiCoilFourier:
        """Replace the coil maps by others, of any number of sets, at the same sampling; gradients reach them."""
        n_sets, *_ = check_maps("with_maps", coil_sensitivity_maps)
        maps = torch.fft.ifftshift(coil_sensitivity_maps, dim=(-2, -1))
        return self._with(maps=maps, domain_shape=(2 * n_sets, *self.domain_shape[1:]))

    def visible(self, image: Tensor) -> Tensor:
        """Set to 0 what no coil sees, if there are several sets: the further ones only exist where the object wraps."""
        return visible(image, torch.fft.fftshift(self.maps, dim=(-2, -1)))

    def with_samples(self, keep: Tensor) -> MultiCoilFourier:
        """Keep only the measured samples in ``keep`` ``(H, W)``; coil maps are shared."""
        part = self._with()
        part._set_mask(self.mask * torch.fft.ifftshift(keep, dim=(-2, -1)).to(self.mask))
        return part

    def with_mask(self, mask: Tensor) -> MultiCoilFourier:
        """Measure other samples, ``mask`` ``(H, W)``; coil maps are shared."""
        part = self._with()
        part._set_mask(torch.fft.ifftshift(mask, dim=(-2, -1)).to(self.mask))
        return part

    @property
    def sampled(self) -> Tensor:
        """Which samples are measured, real ``(H, W)``, 1 or 0, zero frequency in the middle."""
        return torch.fft.fftshift(self.mask)

    def calibration(self, measurement: Tensor) -> Tensor:
        """The largest fully sampled square in the middle of k-space, tapered; all other samples 0."""
        height, width = self.range_shape[1:]
        size = max(min(acs_size(self.sampled.cpu().numpy())), 1)
        taper = torch.hann_window(size + 2, periodic=False)[1:-1].to(measurement.real)
        window = measurement.real.new_zeros(height, width)
        window[middle(height, size), middle(width, size)] = taper[:, None] * taper
        return measurement * window

    def phase_reference(self, measurement: Tensor) -> Tensor:
        """Phase from the fully sampled middle of k-space; complex ``(H, W)`` or ``(n_sets, H, W)`` of size 1."""
        return phase_of(self.adjoint(self.calibration(measurement)))
