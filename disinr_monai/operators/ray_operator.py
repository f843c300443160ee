from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.ray_geometry import RayGeometry
from disinr_monai.operators.system_matrix import part_of_matrix, shared_matrix
from disinr_monai.operators.view_operator import ViewOperator


class RayOperator(ViewOperator):
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
        super().__init__(
            (1, *geometry.image_shape),
            (1, len(angles), geometry.n_detectors),
            angles=angles,
            pixel_spacing=geometry.pixel_spacing,
            spacing=spacing,
            ray_area=spacing,
            positions=positions,
            cell_step=cell_step,
            mirror=mirror,
            filter_angle=filter_angle,
        )
        self.geometry = geometry
        self.detector_spacing, self.detector_offset = geometry.detector_spacing, geometry.detector_offset
        self.n_subrays = geometry.n_subrays
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

    def _take_views(self, part: RayOperator) -> None:
        matrix = part_of_matrix(self.geometry, self._cache_dir, part._views).shared()
        part.matrix = matrix.to(self.angles.device, self.matrix.dtype)
