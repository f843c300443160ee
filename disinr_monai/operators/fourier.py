from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from disinr_monai.operators.calibration import acs_size
from disinr_monai.operators.linear_operator import LinearOperator, Restriction


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

    Args:
        coil_sensitivity_maps: complex, ``(n_coils, H, W)``.
        mask: real or boolean, ``(H, W)`` or anything that broadcasts to it, e.g. ``(1, W)`` for whole lines.

    Raises:
        ValueError: wrong rank, a real-valued map, or a mask that does not fit.
    """

    def __init__(self, coil_sensitivity_maps: Tensor, mask: Tensor) -> None:
        if coil_sensitivity_maps.ndim != 3 or not coil_sensitivity_maps.is_complex():
            raise ValueError(
                "MultiCoilFourier: coil_sensitivity_maps must be complex with shape (n_coils, H, W), "
                f"found {coil_sensitivity_maps.dtype} {tuple(coil_sensitivity_maps.shape)}"
            )
        n_coils, height, width = coil_sensitivity_maps.shape
        try:
            mask = torch.broadcast_to(mask.to(coil_sensitivity_maps.real.dtype), (height, width))
        except RuntimeError:
            raise ValueError(
                f"MultiCoilFourier: mask must broadcast to ({height}, {width}), found {tuple(mask.shape)}"
            ) from None
        super().__init__((2, height, width), (n_coils, height, width))
        # F = D F0 D with D the centring shifts. Storing maps and mask already shifted leaves one plain FFT a call.
        shift = {"dim": (-2, -1)}
        self.register_buffer("maps", torch.fft.ifftshift(coil_sensitivity_maps, **shift).contiguous(), persistent=False)
        self._set_mask(torch.fft.ifftshift(mask, **shift).contiguous())

    def _set_mask(self, mask: Tensor) -> None:
        self.register_buffer("mask", mask, persistent=False)
        sampled = mask > 0
        self._axes = (-1,) if bool((sampled == sampled[:1]).all()) else (-2, -1)
        # Lines, perhaps of a part of the readout (an asymmetric echo); otherwise the pattern is two-dimensional.
        self._has_lines = bool((sampled == (sampled.any(1)[:, None] & sampled.any(0))).all())

    def forward(self, image: Tensor) -> Tensor:
        """Real image ``(..., 2, H, W)`` to complex k-space ``(..., n_coils, H, W)``."""
        self._check_domain(image)
        x = torch.fft.ifftshift(torch.complex(image[..., 0, :, :], image[..., 1, :, :]), dim=(-2, -1))
        kspace = torch.fft.fft2(self.maps * x.unsqueeze(-3), norm="ortho") * self.mask
        return torch.fft.fftshift(kspace, dim=(-2, -1))

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Complex k-space ``(..., n_coils, H, W)`` to the coil-combined image ``(..., 2, H, W)``."""
        self._check_range(measurement)
        kspace = torch.fft.ifftshift(measurement, dim=(-2, -1)) * self.mask
        coils = torch.fft.ifft2(kspace, norm="ortho")
        image = torch.fft.fftshift((self.maps.conj() * coils).sum(-3), dim=(-2, -1))
        return torch.stack((image.real, image.imag), dim=-3)

    def gram(self, image: Tensor, weights: Tensor | None = None) -> Tensor:
        """``A^H W A x``; whole lines need no transform along them, and the shifts between the two steps cancel."""
        if weights is not None:
            return super().gram(image, weights)
        self._check_domain(image)
        x = torch.fft.ifftshift(torch.complex(image[..., 0, :, :], image[..., 1, :, :]), dim=(-2, -1))
        kspace = torch.fft.fftn(self.maps * x.unsqueeze(-3), dim=self._axes)
        coils = torch.fft.ifftn(kspace.mul_(self.mask), dim=self._axes)
        x = torch.fft.fftshift(coils.mul_(self.maps.conj()).sum(-3), dim=(-2, -1))
        return torch.stack((x.real, x.imag), dim=-3)

    @property
    def n_measured(self) -> int:
        """Complex samples measured, over all coils."""
        return int(self.mask.sum()) * self.range_shape[0]

    @property
    def gaps(self) -> str:
        """``"lines"``, or ``"samples"`` where the pattern is two-dimensional."""
        return "lines" if self._has_lines else "samples"

    def hold_out(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Withhold k-space positions, the same in all coils, outside the middle twentieth of each axis.

        The middle holds nearly all of the energy: without it nothing can be fitted, and its samples are no test.
        """
        height, width = self.range_shape[1:]
        mask = self.sampled.cpu() > 0
        held = (torch.rand(height, width, generator=generator) < fraction) & mask
        rows, columns = max(height // 40, 1), max(width // 40, 1)
        held[height // 2 - rows : height // 2 + rows, width // 2 - columns : width // 2 + columns] = False
        return held.expand(self.range_shape)

    def restrict(self, keep: Tensor) -> Restriction:
        """The same coils with the samples that are kept in the first coil."""
        part = copy.copy(self)  # shares the maps
        part._buffers = dict(self._buffers)
        mask = torch.fft.ifftshift(keep.expand(self.range_shape)[0], dim=(-2, -1)).to(self.mask)
        part._set_mask(self.mask * mask)
        kept = torch.fft.fftshift(part.mask, dim=(-2, -1))
        return part, lambda values: values * kept

    def split(self, index: int, generator: torch.Generator) -> Tensor:
        """Hold out a random 15 to 45 % of what was measured beside the fully sampled centre, or every second line.

        Phase-encoding lines where the pattern consists of lines, else single samples.
        """
        keep = self.sampled.cpu() > 0
        if not self._has_lines:
            share = 0.15 + 0.3 * float(torch.rand((), generator=generator))
            return (keep & ~self._scattered(share, generator)).expand(self.range_shape)
        outer = self._outer_lines(keep)
        if len(outer) < 2:  # a full scan
            return keep & ~self.hold_out(0.3, generator)
        if torch.rand((), generator=generator) < 0.4:
            held = outer[int(torch.randint(2, (), generator=generator)) :: 2]
        else:
            share = 0.15 + 0.3 * float(torch.rand((), generator=generator))
            order = torch.randperm(len(outer), generator=generator)
            held = outer[order[: max(round(share * len(outer)), 1)]]
        keep[:, held] = False
        return keep.expand(self.range_shape)

    def withhold(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Withhold whole lines beside the fully sampled centre, or samples where the pattern is two-dimensional."""
        if not self._has_lines:
            return self._scattered(fraction, generator).expand(self.range_shape)
        mask = self.sampled.cpu() > 0
        outer = self._outer_lines(mask)
        if len(outer) < 2:  # a full scan
            return self.hold_out(fraction, generator)
        order = torch.randperm(len(outer), generator=generator)
        held = torch.zeros_like(mask)
        held[:, outer[order[: max(round(fraction * len(outer)), 1)]]] = True
        return (held & mask).expand(self.range_shape)

    def _scattered(self, fraction: float, generator: torch.Generator) -> Tensor:
        """A share of the samples outside the calibration block, ``(H, W)``: gaps of the kind that such a scan has."""
        outside = self.sampled.cpu() > 0
        block = acs_size(outside.numpy())
        outside[tuple(_middle(n, size) for n, size in zip(outside.shape, block, strict=True))] = False
        return (torch.rand(outside.shape, generator=generator) < fraction) & outside

    def _outer_lines(self, mask: Tensor) -> Tensor:
        """Measured lines that do not belong to the fully sampled centre."""
        lines = mask.any(0)
        middle = len(lines) // 2
        first = last = middle
        while first > 0 and lines[first - 1]:
            first -= 1
        while last < len(lines) and lines[last]:
            last += 1
        # Of a partial Fourier scan one side is sampled to its end: the centre reaches as far to the other side only.
        reach = min(middle - first, last - middle) + 2
        lines[max(first, middle - reach) : min(last, middle + reach)] = False
        return torch.nonzero(lines).flatten()

    def noise_variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """From the outermost twelfth of the readout, where there is hardly any signal (median of the power)."""
        edge = max(self.range_shape[1] // 12, 1)
        kept = self.sampled > 0
        kept[edge:-edge] = False
        power = measurement[:, kept].abs().square()
        return power.median() / math.log(2) if power.numel() else torch.zeros((), device=measurement.device)

    def undersampling(self) -> float:
        """A quarter of the acceleration."""
        return self.mask.numel() / max(float(self.mask.sum()), 1.0) / 4

    def with_maps(self, coil_sensitivity_maps: Tensor) -> MultiCoilFourier:
        """The same sampling with other coil maps ``(n_coils, H, W)``; gradients reach them."""
        other = copy.copy(self)  # shares the mask
        other._buffers = {**self._buffers, "maps": torch.fft.ifftshift(coil_sensitivity_maps, dim=(-2, -1))}
        return other

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
        window[_middle(height, size), _middle(width, size)] = taper[:, None] * taper
        return measurement * window

    def phase_reference(self, measurement: Tensor) -> Tensor:
        """From the fully sampled middle of k-space; complex ``(H, W)`` of size 1."""
        real, imaginary = self.adjoint(self.calibration(measurement))
        return torch.polar(torch.ones_like(real), torch.complex(real, imaginary).angle())


def _middle(n: int, size: int) -> slice:
    return slice(n // 2 - size // 2, n // 2 - size // 2 + size)
