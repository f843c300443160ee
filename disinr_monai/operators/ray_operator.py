from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator, Restriction
from disinr_monai.operators.ramp_filter import RampFilter
from disinr_monai.operators.ray_geometry import RayGeometry
from disinr_monai.operators.redundancy import covered_angle, ray_weights
from disinr_monai.operators.system_matrix import part_of_matrix, shared_matrix


class RayOperator(LinearOperator):
    r"""Line integrals of a 2-D image, in mm; what parallel and fan beams have in common.

    .. math:: y_{v,k} = \frac{1}{n} \sum_{j=1}^{n} \int_{\text{ray } v,k,j} x \,\mathrm{d}\ell

    with exact intersection lengths of ray and pixel (Siddon, Med. Phys. 12:252, 1985), averaged over ``n_subrays``
    points of the detector cell. Image ``(1, H, W)``, sinogram ``(1, n_views, n_detectors)``. The system matrix is kept
    in memory (shared by all operators of one geometry) and on disk.

    A subclass says where the rays run (its :class:`~disinr_monai.operators.ray_geometry.RayGeometry`) and how filtered
    back-projection sees a pixel (:meth:`_cell_weights`, :meth:`_project_pixels`, :meth:`_mirror`).

    Args:
        geometry: of the scan.
        spacing: distance of two rays at the axis of rotation, mm.
        positions: of the detector cells for :func:`~disinr_monai.operators.redundancy.ray_weights`.
        cell_step: distance of two positions.
        mirror: for the same function.
        filter_angle: angle between two cells of a curved detector, else 0.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.
    """

    is_additive = True

    def __init__(
        self,
        geometry: RayGeometry,
        spacing: float,
        positions: np.ndarray,
        cell_step: float,
        mirror: np.ndarray,
        filter_angle: float,
        cache_dir: str | Path | None,
    ) -> None:
        angles = np.asarray(geometry.angles)
        super().__init__((1, *geometry.image_shape), (1, len(angles), geometry.n_detectors))
        self.geometry = geometry
        self.pixel_spacing, self.detector_spacing = geometry.pixel_spacing, geometry.detector_spacing
        self.n_subrays, self.detector_offset = geometry.n_subrays, geometry.detector_offset
        self.ray_spacing = spacing
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.float32), persistent=False)
        self.ramp = RampFilter(geometry.n_detectors, spacing)
        # Back-projection of a shifted detector also needs the filtered values beyond its nearer edge.
        excess = math.ceil(abs(positions[0] + positions[-1]) / cell_step - 1e-6)
        self._beyond = (0, 0) if excess < 2 else (excess, 0) if positions[0] + positions[-1] > 0 else (0, excess)
        n_filtered = geometry.n_detectors + sum(self._beyond)
        is_plain = n_filtered == geometry.n_detectors and not filter_angle
        self.inverse_ramp = self.ramp if is_plain else RampFilter(n_filtered, spacing, filter_angle)
        weights = ray_weights(angles, positions, cell_step, mirror)
        shares = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("shares", shares, persistent=False)
        # Each view counts pi / views in the image; on less than half a turn less.
        self._arc_share = min(covered_angle(angles) / math.pi, 1.0)
        # Which views of the geometry this operator has.
        self._views = tuple(range(len(angles)))
        self._cache_dir = None if cache_dir is None else str(cache_dir)
        self.matrix = shared_matrix(geometry, self._cache_dir).shared()

    @abstractmethod
    def _cell_weights(self, like: Tensor) -> Tensor | float:
        """Factor of every cell ``(n_detectors,)`` before the ramp filter."""

    @abstractmethod
    def _project_pixels(self, angle: float, like: Tensor, before: int) -> tuple[Tensor, Tensor | float]:
        """Position (in cells, ``before`` the first one's) of every pixel, and what divides its back-projection."""

    def forward(self, image: Tensor) -> Tensor:
        """Image ``(..., 1, H, W)`` to line integrals in mm ``(..., 1, n_views, n_detectors)``."""
        self._check_domain(image)
        batch = image.shape[:-3]
        columns = image.reshape(math.prod(batch), -1).T.contiguous()
        return self.matrix(columns).T.reshape(*batch, *self.range_shape)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Sinogram ``(..., 1, n_views, n_detectors)`` to its plain back-projection ``(..., 1, H, W)``."""
        self._check_range(measurement)
        batch = measurement.shape[:-3]
        columns = measurement.reshape(math.prod(batch), -1).T.contiguous()
        return self.matrix.transposed(columns).T.reshape(*batch, *self.domain_shape)

    def precondition(self, residual: Tensor) -> Tensor:
        r"""Ramp filter along the detector, times :math:`π`: the residual in about the units of the image.

        :math:`A^T A` blurs, roughly as :math:`1/|ω|`; the ramp makes all frequencies of the image count alike.
        """
        self._check_range(residual)
        return torch.pi * self.ramp(residual)

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        r"""Filtered back-projection.

        .. math::
            x(r) = \frac{π}{V} \sum_v \frac{1}{U_v(r)^2}\, q_v(s_v(r)), \qquad q_v = \text{ramp} * (c\, w_v\, y_v)

        with the detector position :math:`s` scaled to the axis of rotation, and the cells' factor :math:`c` and the
        distance :math:`U` of the beam. The weights :math:`w`
        (:func:`~disinr_monai.operators.redundancy.ray_weights`) are 1 for a full turn of evenly spread views; for
        another arc, uneven views or a shifted detector they count every line once. An arc of less than half a turn
        (plus the fan) leaves the missing directions empty: the image is streaked and too low.
        """
        self._check_range(measurement)
        _, n_views, n_detectors = self.range_shape
        batch = measurement.shape[:-3]
        before = 1 + self._beyond[0]
        weighted = measurement.reshape(-1, n_views, n_detectors) * self._cell_weights(measurement)
        if self.shares is not None:
            weighted = weighted * self.shares.to(measurement.dtype)
        filtered = self.inverse_ramp(torch.nn.functional.pad(weighted, self._beyond))
        # A zero at both ends: further out nothing is measured.
        last = filtered.shape[-1]
        filtered = torch.nn.functional.pad(filtered, (1, 1))
        image = filtered.new_zeros(len(filtered), math.prod(self.domain_shape))
        for view, angle in enumerate(self.angles.tolist()):
            position, divisor = self._project_pixels(angle, measurement, before)
            left = position.floor().clamp(0, last)
            share = (position - left).clamp(0, 1)
            left = left.long()
            row = filtered[:, view]
            image = image + torch.lerp(row[:, left], row[:, left + 1], share) / divisor
        return (image * (torch.pi / n_views)).reshape(*batch, *self.domain_shape)

    def _pixel_centres(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """x ``(W,)`` and y ``(H, 1)`` of the pixel centres in mm."""
        _, height, width = self.domain_shape
        x = (torch.arange(width).to(like) - (width - 1) / 2) * self.pixel_spacing
        y = ((height - 1) / 2 - torch.arange(height).to(like))[:, None] * self.pixel_spacing
        return x, y

    def hold_out(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Withhold whole views (at least one): the ramp filter mixes the rays of a view."""
        n_views = self.range_shape[1]
        n_held = min(max(round(fraction * n_views), 1), n_views - 1)
        held = torch.zeros(n_views, dtype=torch.bool)
        held[torch.randperm(n_views, generator=generator)[:n_held]] = True
        return held[None, :, None].expand(self.range_shape)

    def restrict(self, keep: Tensor) -> Restriction:
        """The operator of the views of which anything is kept (whole views only: the rest of one would be lost)."""
        return self._with_views(torch.nonzero(keep.expand(self.range_shape)[0].any(-1)).flatten().tolist())

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
        part.range_shape = (1, len(views), self.range_shape[2])
        part._views = tuple(self._views[view] for view in views)
        part.angles = self.angles[views]
        # Views taken out of a scan leave small gaps: the others share its arc evenly.
        part.shares = None if self.shares is None else self.shares[views]
        matrix = part_of_matrix(self.geometry, self._cache_dir, part._views).shared()
        part.matrix = matrix.to(self.angles.device, self.matrix.dtype)
        step = views[1] - views[0] if len(views) > 1 else 1
        if step > 0 and views == list(range(views[0], views[-1] + 1, step)):
            return part, lambda values: values[..., views[0] : views[-1] + 1 : step, :]
        return part, lambda values: values[..., views, :]

    withheld_is_typical = True

    def split(self, index: int, generator: torch.Generator) -> Tensor:
        """Every second view, the other ones, every fourth, all but these, and so on."""
        n_views = self.range_shape[1]
        views = torch.arange(n_views)
        first = index // 4
        kept = (views % 2 == first % 2, views % 2 == (first + 1) % 2, views % 4 == first % 4, views % 4 != first % 4)[
            index % 4
        ]
        return kept[None, :, None].expand(self.range_shape)

    @property
    def _to_image(self) -> float:
        # Back-projected and ramp-filtered views in image units: pi / views as in filtered back-projection, and the ray
        # length in a pixel, summed over the rays, is its area over the ray spacing.
        return self.ray_spacing / (self.pixel_spacing**2 * self.range_shape[1]) * self._arc_share

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
