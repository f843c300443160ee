from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator, Restriction
from disinr_monai.operators.tomography.filters import RampFilter, covered_angle, redundancy_weights
from disinr_monai.operators.tomography.geometry import Geometry


class ViewOperator(LinearOperator):
    r"""Line integrals view by view: the base of all beams, in 2-D and 3-D.

    Measurements are ``(1, n_views, ..., n_detectors)``. Views can be withheld, and the ramp filter along the detector
    gives residuals the units of the image.

    Args:
        geometry: of the scan.
    """

    is_additive = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__((1, *geometry.image_shape), geometry.range_shape)
        self.geometry = geometry
        self.pixel_spacing, self._ray_area = geometry.pixel_spacing, geometry.ray_area
        angles, positions, spacing = np.asarray(geometry.angles), geometry.positions, geometry.ray_spacing
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.float32), persistent=False)
        n_detectors = self.range_shape[-1]
        self.ramp = RampFilter(n_detectors, spacing)
        # Back-projection of a shifted detector also needs the filtered values beyond its nearer edge.
        excess = math.ceil(abs(positions[0] + positions[-1]) / geometry.cell_step - 1e-6)
        self._beyond = (0, 0) if excess < 2 else (excess, 0) if positions[0] + positions[-1] > 0 else (0, excess)
        is_plain = not sum(self._beyond) and not geometry.filter_angle
        self.inverse_ramp = (
            self.ramp if is_plain else RampFilter(n_detectors + sum(self._beyond), spacing, geometry.filter_angle)
        )
        weights = redundancy_weights(angles, positions, geometry.cell_step, geometry.opposite * positions)
        shares = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("shares", shares, persistent=False)
        # Each view counts pi / views in the image; on less than half a turn less.
        self._arc_share = min(covered_angle(angles) / math.pi, 1.0)
        # Which views of the scan this operator has.
        self._views = tuple(range(len(angles)))

    @abstractmethod
    def _take_views(self, part: ViewOperator) -> None:
        """Replace in ``part``, a shallow copy, what depends on ``part._views``."""

    def precondition(self, residual: Tensor) -> Tensor:
        r"""Ramp filter along the detector, times :math:`π`: the residual in about the units of the image.

        :math:`A^T A` blurs, roughly as :math:`1/|ω|`; the ramp makes all frequencies of the image count alike.
        """
        self._check_range(residual)
        return torch.pi * self.ramp(residual)

    def hold_out(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Withhold whole views (at least one): the ramp filter mixes the rays of a view."""
        n_views = self.range_shape[1]
        n_held = min(max(round(fraction * n_views), 1), n_views - 1)
        held = torch.zeros(n_views, dtype=torch.bool)
        held[torch.randperm(n_views, generator=generator)[:n_held]] = True
        return self._of_views(held)

    def restrict(self, keep: Tensor) -> Restriction:
        """The operator of the views of which anything is kept (whole views only: the rest of one would be lost)."""
        return self._with_views(torch.nonzero(keep.expand(self.range_shape)[0].flatten(1).any(-1)).flatten().tolist())

    def subsets(self, size: int) -> list[Restriction]:
        """Interleaved views, about ``size`` in each, as many in one as in the other."""
        n_views = self.range_shape[1]
        count = next((m for m in range(max(n_views // size, 1), 0, -1) if n_views % m == 0), 1)
        if count == 1:
            return [(self, lambda values: values)]
        return [self._with_views(range(first, n_views, count)) for first in range(count)]

    def _with_views(self, views: Sequence[int]) -> Restriction:
        views = list(views)
        part = copy.copy(self)  # shares everything but what is replaced here
        part._buffers, part._modules = dict(self._buffers), dict(self._modules)
        part.range_shape = (1, len(views), *self.range_shape[2:])
        part._views = tuple(self._views[view] for view in views)
        part.angles = self.angles[views]
        # Views taken out of a scan leave small gaps: the others share its arc evenly.
        part.shares = None if self.shares is None else self.shares[views]
        self._take_views(part)
        step = views[1] - views[0] if len(views) > 1 else 1
        if step > 0 and views == list(range(views[0], views[-1] + 1, step)):
            taken: slice | list[int] = slice(views[0], views[-1] + 1, step)
        else:
            taken = views
        rest = (slice(None),) * (len(self.range_shape) - 2)
        return part, lambda values: values[(..., taken, *rest)]

    withheld_is_typical = True

    def split(self, index: int, generator: torch.Generator) -> Tensor:
        """Every second view, the other ones, every fourth, all but these, and so on."""
        n_views = self.range_shape[1]
        views = torch.arange(n_views)
        first = index // 4
        kept = (views % 2 == first % 2, views % 2 == (first + 1) % 2, views % 4 == first % 4, views % 4 != first % 4)[
            index % 4
        ]
        return self._of_views(kept)

    def _of_views(self, values: Tensor) -> Tensor:
        """One value a view, as a measurement."""
        return values.reshape(1, -1, *(1,) * (len(self.range_shape) - 2)).expand(self.range_shape)

    @property
    def _to_image(self) -> float:
        # Back-projected and ramp-filtered views in image units: pi / views as in filtered back-projection, and the ray
        # length in a pixel, summed over the rays, is its area over the ray spacing (in 3-D volume and area).
        size = self.pixel_spacing ** (len(self.domain_shape) - 1)
        return self._ray_area / (size * self.range_shape[1]) * self._arc_share

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Back-projection of :math:`W^{1/2} R W^{1/2} r` with a smoothed ramp :math:`R`, in image units."""
        self._check_range(residual)
        root = 1.0 if weights is None else weights.sqrt()
        return self.adjoint(root * self.precondition(_smooth(root * residual))) * self._to_image

    def residual_energy(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Mean squared error of the image, estimated from the residual of its projections.

        .. math:: \frac{π\, τ}{V\, N Δ^2} \sum_v \langle W^{1/2} r_v,\; \tilde R\, W^{1/2} r_v\rangle

        with the ramp over the fourth power of the blur of a cell, :math:`\tilde R = R / \mathrm{sinc}^4`. By Parseval
        :math:`A^T \tilde R A` is about the identity up to the highest frequency of the detector, so that details count
        as much as in the image's own mean square, and zero-mean noise in the residual only adds a constant.
        """
        self._check_range(residual)
        if weights is not None:
            residual = residual * weights.sqrt()
        n_pixels = math.prod(self.domain_shape)
        sharp = torch.pi * self.ramp.sharpened(residual)
        return (residual * sharp).sum() * (self._to_image / n_pixels)

    def noise_energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        """Expected :meth:`residual_energy` of independent noise: the filter's centre tap times the variances."""
        if variance is None:
            return 0.0
        size = torch.as_tensor(variance).expand(self.range_shape)
        size = size if weights is None else size * weights
        n_pixels = math.prod(self.domain_shape)
        return float(size.sum()) * torch.pi * self.ramp.sharp_centre * self._to_image / n_pixels

    def noise_variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Variances :math:`c / w`, with :math:`c` from the rays that miss the image: what they show is noise alone."""
        weights = torch.ones_like(measurement) if weights is None else weights
        missing = self(torch.ones(self.domain_shape).to(measurement)) == 0
        if not bool(missing.any()):
            return torch.zeros_like(measurement)
        return (weights * measurement.square())[missing].mean() / weights

    def noise_image(self, variance: Tensor) -> Tensor:
        """Root of the back-projected variances, over the number of views."""
        return 10 * self.adjoint(variance.expand(self.range_shape)).clamp(min=0).sqrt() / self.range_shape[1]

    def undersampling(self) -> float:
        """30 views over the number of views."""
        return 30 / self.range_shape[1]


def _smooth(values: Tensor) -> Tensor:
    """Binomial smoothing along the detector: the highest frequencies of a residual are noise."""
    padded = torch.nn.functional.pad(values, (1, 1))
    return 0.5 * values + 0.25 * (padded[..., :-2] + padded[..., 2:])
