"""The band-limited ramp filter of filtered back-projection."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


class RampFilter(nn.Module):
    r"""Convolution of the last axis with the band-limited ramp (Ram-Lak) kernel, zero-padded, without wrap-around.

    .. math::
        q_n = τ \sum_m h_{n - m}\, p_m, \qquad
        h_0 = \frac{1}{4 τ^2}, \quad h_{n\,\text{odd}} = -\frac{1}{π^2 n^2 τ^2}, \quad h_{n\,\text{even}} = 0

    (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, eq. 3.61). Line integrals of a unit object
    in mm give values of about :math:`1/π`, in 1/mm · mm.

    Args:
        n_samples: length of the filtered axis.
        spacing: sample spacing :math:`τ` in mm.
        angle: fan angle between two samples on a curved detector: the kernel times
            :math:`(n α / \sin n α)^2` (the same, eq. 3.79); 0 on a flat one.
        window: ``"hann"`` lets the filter fall to 0 at the highest frequency, for noisy data.
    """

    def __init__(self, n_samples: int, spacing: float, angle: float = 0.0, window: str | None = None) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.n_padded = 1 << (2 * n_samples - 1).bit_length()
        n = torch.arange(self.n_padded, dtype=torch.float64)
        n = torch.minimum(n, self.n_padded - n)
        kernel = torch.where(n % 2 == 1, -1 / (torch.pi * n.clamp(min=1)) ** 2, 0.0)
        kernel[0] = 0.25
        if angle:
            # Samples further apart than the detector is long never meet.
            gamma = n.clamp(max=n_samples) * angle
            kernel = kernel / torch.sinc(gamma / torch.pi) ** 2
        # The kernel is even, so its spectrum is real.
        response = torch.fft.rfft(kernel).real / spacing
        if window == "hann":
            response = response * torch.cos(torch.linspace(0, torch.pi / 2, len(response), dtype=torch.float64)) ** 2
        self.register_buffer("response", response.float(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Filter ``(..., n_samples)``."""
        spectrum = torch.fft.rfft(values, n=self.n_padded) * self.response
        return torch.fft.irfft(spectrum, n=self.n_padded)[..., : self.n_samples]

    @functools.cached_property
    def _sharpening(self) -> Tensor:
        # Detector cell, ray of finite width and pixel each blur by about one sinc; forward and back.
        return 1 / torch.special.sinc(torch.fft.rfftfreq(self.n_padded, dtype=torch.float64)).pow(4).float()

    def sharpened(self, values: Tensor) -> Tensor:
        """The ramp over the fourth power of the sinc of one cell: it also undoes the blur of projection and back."""
        response = self.response * self._sharpening.to(self.response)
        spectrum = torch.fft.rfft(values, n=self.n_padded) * response
        return torch.fft.irfft(spectrum, n=self.n_padded)[..., : self.n_samples]

    @property
    def sharp_centre(self) -> float:
        """Centre tap of :meth:`sharpened`."""
        return float(torch.fft.irfft((self.response * self._sharpening.to(self.response)).double())[0])
