"""The band-limited ramp filter of filtered back-projection."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
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
        return self._filter(values, self.response)

    def _filter(self, values: Tensor, response: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(values, n=self.n_padded) * response
        return torch.fft.irfft(spectrum, n=self.n_padded)[..., : self.n_samples]

    @functools.cached_property
    def _sharpening(self) -> Tensor:
        # Detector cell, ray of finite width and pixel each blur by about one sinc; forward and back.
        return 1 / torch.special.sinc(torch.fft.rfftfreq(self.n_padded, dtype=torch.float64)).pow(4).float()

    @property
    def _sharp_response(self) -> Tensor:
        return self.response * self._sharpening.to(self.response)

    def sharpened(self, values: Tensor) -> Tensor:
        """The ramp over the fourth power of the sinc of one cell: it also undoes the blur of projection and back."""
        return self._filter(values, self._sharp_response)

    @property
    def sharp_centre(self) -> float:
        """Centre tap of :meth:`sharpened`."""
        return float(torch.fft.irfft(self._sharp_response.double())[0])


# Inside the measured region weights are never 0: where the opposite ray is missing, the ray counts in full.
_SMALLEST = 1e-6


def redundancy_weights(
    angles: NDArray, positions: NDArray, spacing: float, mirror: NDArray
) -> NDArray[np.float64] | None:
    r"""Weights :math:`w_{v,k}` for a sum of views times :math:`π / V`, as for a full turn; None if all are 1.

    .. math::
        w_{v,k} = \frac{V}{π}\, Δθ_v\, \frac{m(θ_v, p_k)}{m(θ_v, p_k) + m(θ'_{v,k}, -p_k)}

    where the same line is measured from the other side at :math:`(θ', -p)` and :math:`m` is 0 where nothing is measured
    and falls smoothly to 0 at the ends of a short scan (Parker, Med. Phys. 9:254, 1982) and at the nearer edge of a
    shifted detector (Wang, Med. Phys. 29:1634, 2002; normalised as by Noo et al., Phys. Med. Biol. 47:2525, 2002).
    :math:`Δθ_v` is the angle for which a view stands. Views with a gap of more than 30 degrees (and 2.5 usual steps)
    between them belong to separate arcs. Less than half a turn is not completed: what is missing counts as 0.

    Args:
        angles: of the views, radians.
        positions: of the detector cells, ascending, 0 where the line meets the axis of rotation.
        spacing: distance of two cells in the unit of ``positions``.
        mirror: how much the angle of the opposite ray differs from half a turn, for each cell (fan: -2 gamma).

    Returns:
        ``(n_views, n_detectors)`` or None.
    """
    steps, cover = _cover(angles)
    aperture = _aperture(positions, spacing)
    opposite = angles[:, None] + math.pi + mirror
    here = cover(angles)[:, None] * aperture(positions)
    there = cover(opposite) * aperture(-positions)
    weights = here / (here + there) * steps[:, None] * (len(angles) / math.pi)
    return None if np.abs(weights - 1).max() < 1e-6 else weights


def covered_angle(angles: NDArray) -> float:
    """Angle in radians that the views cover, at most a full turn."""
    return min(float(_cover(np.asarray(angles))[0].sum()), 2 * math.pi)


def _cover(angles: NDArray) -> tuple[NDArray, Callable[[NDArray], NDArray]]:
    """Angle for which each view stands, and how far an angle is covered (0 to 1)."""
    turn = 2 * math.pi
    ordered, view_of, repeats = _directions(angles)
    gaps = np.diff(ordered, append=ordered[0] + turn)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    hole = gaps > max(2.5 * usual, math.radians(30))
    half = np.where(hole, usual, gaps) / 2
    # Views of one direction share its angle.
    steps = ((half + np.roll(half, 1)) / repeats)[view_of]
    if len(ordered) == 1 or not hole.any():
        return steps, lambda values: np.ones(np.shape(values))
    ends = np.flatnonzero(hole)
    starts = np.roll((ends + 1) % len(ordered), 1)
    low = ordered[starts] - usual / 2
    lengths = (ordered[ends] - ordered[starts]) % turn + usual
    # Beyond half a turn lines are measured twice: share them smoothly.
    taper = lengths[0] - math.pi if len(ends) == 1 else 0.0

    def cover(values: NDArray) -> NDArray:
        result = np.zeros(np.shape(values))
        for first, length in zip(low, lengths, strict=True):
            along = (values - first) % turn
            edge = np.minimum(along, length - along)
            result = np.maximum(result, np.where(edge > 0, _rise(edge, taper), 0))
        return result

    return steps, cover


def _directions(angles: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Different directions, ascending from 0 to a turn; which of them each view has, and how many views they have."""
    turn = 2 * math.pi
    order = np.argsort(angles % turn, kind="stable")
    ordered = (angles % turn)[order]
    gaps = np.diff(ordered, append=ordered[0] + turn)
    # As far apart as rounding and an encoder's jitter put repeated views.
    tolerance = min(1e-3, 0.01 * (turn - gaps.max()) / len(angles))
    first = np.roll(gaps, 1) > tolerance
    if not first.any():
        first[0] = True
    view_of = np.empty(len(angles), dtype=int)
    # The views before the first direction repeat the last one, beyond the full turn.
    view_of[order] = (np.cumsum(first) - 1) % first.sum()
    return ordered[first], view_of, np.bincount(view_of)


def _aperture(positions: NDArray, spacing: float) -> Callable[[NDArray], NDArray]:
    left, right = spacing / 2 - positions[0], positions[-1] + spacing / 2
    shorter, excess = min(left, right), abs(right - left)
    if shorter <= 0 or excess < 0.01 * spacing:
        # Seen from one side only, or from both alike.
        return lambda values: ((values > -left) & (values < right)).astype(float)
    sign = 1.0 if left < right else -1.0
    taper = min(2 * shorter, 4 * excess)

    def aperture(values: NDArray) -> NDArray:
        edge = sign * values + shorter
        inside = (edge > 0) & (edge < left + right)
        return np.where(inside, _rise(edge, taper), 0.0)

    return aperture


def _rise(distance: NDArray, width: float) -> NDArray:
    """Smooth rise from 0 at an edge to 1 at ``width`` from it."""
    if width < _SMALLEST:
        return np.ones(np.shape(distance))
    return np.maximum(np.sin(math.pi / 2 * np.clip(distance / width, 0, 1)) ** 2, _SMALLEST)
