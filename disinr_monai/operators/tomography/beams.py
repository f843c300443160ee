from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from disinr_monai.operators.tomography.geometry import FanGeometry, ParallelGeometry, RayGeometry
from disinr_monai.operators.tomography.projector import part_of_matrix, shared_matrix
from disinr_monai.operators.tomography.view_operator import ViewOperator


class RayOperator(ViewOperator):
    r"""Line integrals of a 2-D image, in mm: the base of parallel and fan beams.

    .. math:: y_{v,k} = \frac{1}{n} \sum_{j=1}^{n} \int_{\text{ray } v,k,j} x \,\mathrm{d}\ell

    with exact intersection lengths of ray and pixel (Siddon, Med. Phys. 12:252, 1985), averaged over the geometry's
    ``n_subrays`` points of the detector cell. Image ``(1, H, W)``, sinogram ``(1, n_views, n_detectors)``. The system
    matrix is kept in memory (shared by all operators of one geometry) and on disk.

    A subclass says how filtered back-projection sees a pixel (:meth:`_cell_weights`, :meth:`_project_pixels`).

    Args:
        geometry: of the scan.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.
    """

    geometry: RayGeometry

    def __init__(self, geometry: RayGeometry, *, cache_dir: str | Path | None = None) -> None:
        super().__init__(geometry)
        self._cache_dir = None if cache_dir is None else str(cache_dir)
        self.matrix = shared_matrix(geometry, self._cache_dir).shared()

    @abstractmethod
    def _cell_weights(self, like: Tensor) -> Tensor | float:
        """Factor of every cell ``(n_detectors,)`` before the ramp filter."""

    @abstractmethod
    def _project_pixels(self, angle: float, like: Tensor, before: int) -> tuple[Tensor, Tensor | float]:
        """Position of every pixel (in cells, ``before`` the first one), and divisor of its back-projection."""

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

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        r"""Filtered back-projection.

        .. math::
            x(r) = \frac{π}{V} \sum_v \frac{1}{U_v(r)^2}\, q_v(s_v(r)), \qquad q_v = \text{ramp} * (c\, w_v\, y_v)

        with the detector position :math:`s` scaled to the axis of rotation, and the cells' factor :math:`c` and the
        distance :math:`U` of the beam. The weights :math:`w`
        (:func:`~disinr_monai.operators.tomography.filters.redundancy_weights`) are 1 for a full turn of evenly spread
        views; for another arc, uneven views or a shifted detector they count every line once. An arc of less than half
        a turn (plus the fan) leaves the missing directions empty: the image is streaked and too low.
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

    def _middle(self, before: int) -> float:
        """Position of the ray through the origin of the detector, in cells, ``before`` the first one's."""
        geometry = self.geometry
        return before + (self.range_shape[-1] - 1) / 2 - geometry.detector_offset / geometry.detector_spacing

    def _take_views(self, part: RayOperator) -> None:
        matrix = part_of_matrix(self.geometry, self._cache_dir, part._views).shared()
        part.matrix = matrix.to(self.angles.device, self.matrix.dtype)


class FanBeam(RayOperator):
    r"""Fan-beam CT with a flat or curved detector; see :class:`RayOperator`.

    Filtered back-projection follows Kak and Slaney (1988), sections 3.4.1 and 3.4.2, and for a shifted axis Gullberg et
    al. (Phys. Med. Biol. 31:1143, 1986): with :math:`s = u\, d_s / (d_s + d_d)` the cells' factors are
    :math:`\cos γ\,(1 + τ s / d_s^2)` for a flat detector and :math:`\cos γ + \tfrac{τ}{d_s} \sin γ`, with the ramp's
    kernel times :math:`(γ / \sin γ)^2`, for a curved one.
    """

    geometry: FanGeometry

    def _cell_weights(self, like: Tensor) -> Tensor:
        fan, n_detectors = self.geometry, self.range_shape[-1]
        s = (torch.arange(n_detectors).to(like) - (n_detectors - 1) / 2) * fan.ray_spacing
        s = s + fan.detector_offset / fan.magnification
        if fan.curved:
            gamma = s / fan.source_distance
            return torch.cos(gamma) + fan.axis_offset / fan.source_distance * torch.sin(gamma)
        cosine = fan.source_distance / torch.sqrt(fan.source_distance**2 + s**2)
        return cosine * (1 + s * (fan.axis_offset / fan.source_distance**2))

    def _project_pixels(self, angle: float, like: Tensor, before: int) -> tuple[Tensor, Tensor]:
        fan, (x, y) = self.geometry, self._pixel_centres(like)
        sine, cosine = math.sin(angle), math.cos(angle)
        along = 1 + (y * cosine - x * sine) / fan.source_distance
        across = x * cosine + y * sine + fan.axis_offset
        if fan.curved:
            across = across / fan.source_distance
            position = torch.atan2(across, along) * fan.source_distance
            divisor = along**2 + across**2
        else:
            position, divisor = across / along, along**2
        return (position / fan.ray_spacing + self._middle(before)).flatten(), divisor.flatten()


class ParallelBeam(RayOperator):
    """Parallel-beam CT; see :class:`RayOperator`."""

    geometry: ParallelGeometry

    def _cell_weights(self, like: Tensor) -> float:
        return 1.0

    def _project_pixels(self, angle: float, like: Tensor, before: int) -> tuple[Tensor, float]:
        x, y = self._pixel_centres(like)
        position = (x * math.cos(angle) + y * math.sin(angle)).flatten()
        return position / self.geometry.detector_spacing + self._middle(before), 1.0
