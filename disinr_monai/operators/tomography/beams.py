from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.tomography.geometry import (
    FanGeometry,
    ParallelGeometry,
    RayGeometry,
    check_numbers,
    checked_angles,
    checked_shape,
)
from disinr_monai.operators.tomography.projector import part_of_matrix, shared_matrix
from disinr_monai.operators.tomography.view_operator import ViewOperator


class RayOperator(ViewOperator):
    r"""Line integrals of a 2-D image, in mm; what parallel and fan beams have in common.

    .. math:: y_{v,k} = \frac{1}{n} \sum_{j=1}^{n} \int_{\text{ray } v,k,j} x \,\mathrm{d}\ell

    with exact intersection lengths of ray and pixel (Siddon, Med. Phys. 12:252, 1985), averaged over ``n_subrays``
    points of the detector cell. Image ``(1, H, W)``, sinogram ``(1, n_views, n_detectors)``. The system matrix is kept
    in memory (shared by all operators of one geometry) and on disk.

    A subclass says where the rays run (its :class:`~disinr_monai.operators.tomography.geometry.RayGeometry`) and how
    filtered back-projection sees a pixel (:meth:`_cell_weights`, :meth:`_project_pixels`, :meth:`_mirror`).

    Args:
        geometry: of the scan.
        spacing: distance of two rays at the axis of rotation, mm.
        positions: of the detector cells for :func:`~disinr_monai.operators.tomography.filters.ray_weights`.
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
        (:func:`~disinr_monai.operators.tomography.filters.ray_weights`)
        are 1 for a full turn of evenly spread views; for
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


class FanBeam(RayOperator):
    r"""Fan-beam CT with a flat or curved detector: line integrals of the image, in mm.

    At angle :math:`θ` the detector axis points along :math:`e = (\cos θ, \sin θ)`, the central ray along
    :math:`n = (-\sin θ, \cos θ)`; the source is at :math:`-d_s n - τ e`, so that the axis of rotation (the image's
    centre) lies :math:`τ` beside the central ray. Cell :math:`k` is
    :math:`u_k = \Delta (k - \tfrac{n-1}{2}) + o` along the detector from where the central ray meets it: on a line at
    :math:`d_s + d_d` from the source (flat; ASTRA's ``fanflat``), or on the circle of this radius around the source
    (curved, equiangular: :math:`γ_k = u_k / (d_s + d_d)`). Columns of the image run along :math:`+x`, rows along
    :math:`-y`.

    Image ``(1, H, W)``, sinogram ``(1, n_views, n_detectors)``; for the rest see :class:`RayOperator`.

    Filtered back-projection follows Kak and Slaney (1988), sections 3.4.1 and 3.4.2, and for a shifted axis Gullberg et
    al. (Phys. Med. Biol. 31:1143, 1986): with :math:`s = u\, d_s / (d_s + d_d)` the cells' factors are
    :math:`\cos γ\,(1 + τ s / d_s^2)` for a flat detector and :math:`\cos γ + \tfrac{τ}{d_s} \sin γ`, with the ramp's
    kernel times :math:`(γ / \sin γ)^2`, for a curved one.

    Args:
        image_shape: ``(H, W)`` pixels.
        pixel_spacing: side of a pixel in mm.
        angles: view angles in radians, ``(n_views,)``; any order, arc and steps.
        n_detectors: number of detector cells.
        detector_spacing: width of a cell in mm (along the arc of a curved detector).
        source_distance: :math:`d_s`, from the source to the axis along the central ray, in mm; the source lies outside
            the image.
        detector_distance: :math:`d_d`, from the axis to the detector, in mm; 0 is a virtual detector in the centre.
        detector_offset: :math:`o`, shift of the detector's centre along its axis, in mm.
        axis_offset: :math:`τ`, shift of the axis of rotation along the detector axis, in mm.
        curved: detector on a circle around the source.
        n_subrays: rays per detector cell.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.

    Raises:
        ValueError: a size or length is not positive, angles are missing or not finite, the source is in the image, a
            curved detector spans half a turn or more.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        pixel_spacing: float,
        angles: Sequence[float] | np.ndarray | Tensor,
        n_detectors: int,
        detector_spacing: float,
        source_distance: float,
        detector_distance: float,
        detector_offset: float = 0.0,
        axis_offset: float = 0.0,
        curved: bool = False,
        n_subrays: int = 2,
        cache_dir: str | Path | None = None,
    ) -> None:
        angles = checked_angles("FanBeam", angles)
        shape = checked_shape("FanBeam", image_shape)
        check_numbers(
            "FanBeam",
            {"n_detectors": n_detectors, "n_subrays": n_subrays},
            {"pixel_spacing": pixel_spacing, "detector_spacing": detector_spacing, "source_distance": source_distance},
            {"detector_distance": detector_distance},
            {"detector_offset": detector_offset, "axis_offset": axis_offset},
        )
        radius = math.hypot(*shape) / 2 * pixel_spacing
        if source_distance <= radius:
            raise ValueError(
                f"FanBeam: source_distance must be larger than the image's half diagonal of {radius:.1f} mm, "
                f"found {source_distance} mm"
            )
        reach = (n_detectors / 2 * detector_spacing + abs(detector_offset)) / (source_distance + detector_distance)
        if curved and reach >= math.pi / 2:
            raise ValueError(
                "FanBeam: a curved detector must lie within 90 degrees of the central ray, found "
                f"{math.degrees(reach):.1f} degrees (cells times detector_spacing over the distance from the source)"
            )
        geometry = FanGeometry(
            image_shape=shape,
            pixel_spacing=float(pixel_spacing),
            angles=tuple(angles.tolist()),
            n_detectors=int(n_detectors),
            detector_spacing=float(detector_spacing),
            n_subrays=int(n_subrays),
            detector_offset=float(detector_offset),
            source_distance=float(source_distance),
            detector_distance=float(detector_distance),
            axis_offset=float(axis_offset),
            curved=bool(curved),
        )
        self.source_distance, self.detector_distance = geometry.source_distance, geometry.detector_distance
        self.axis_offset, self.curved = geometry.axis_offset, geometry.curved
        spacing = geometry.detector_spacing / self.magnification
        s = (np.arange(n_detectors) - (n_detectors - 1) / 2) * spacing + detector_offset / self.magnification
        gamma = s / source_distance if curved else np.arctan(s / source_distance)
        # The fan angle of the ray through the axis of rotation: opposite rays lie on either side of it.
        middle = math.atan2(axis_offset, source_distance)
        step = spacing / source_distance
        super().__init__(
            geometry, spacing, gamma - middle, step, -2 * (gamma - middle), step if curved else 0.0, cache_dir
        )

    @property
    def magnification(self) -> float:
        """Size of the centre of rotation on the detector."""
        return (self.source_distance + self.detector_distance) / self.source_distance

    def _cell_weights(self, like: Tensor) -> Tensor:
        n_detectors = self.range_shape[-1]
        s = (torch.arange(n_detectors).to(like) - (n_detectors - 1) / 2) * self.ray_spacing
        s = s + self.detector_offset / self.magnification
        if self.curved:
            gamma = s / self.source_distance
            return torch.cos(gamma) + self.axis_offset / self.source_distance * torch.sin(gamma)
        cosine = self.source_distance / torch.sqrt(self.source_distance**2 + s**2)
        return cosine * (1 + s * (self.axis_offset / self.source_distance**2))

    def _project_pixels(self, angle: float, like: Tensor, before: int) -> tuple[Tensor, Tensor]:
        x, y = self._pixel_centres(like)
        sine, cosine = math.sin(angle), math.cos(angle)
        along = 1 + (y * cosine - x * sine) / self.source_distance
        across = x * cosine + y * sine + self.axis_offset
        if self.curved:
            across = across / self.source_distance
            position = torch.atan2(across, along) * self.source_distance
            divisor = along**2 + across**2
        else:
            position, divisor = across / along, along**2
        middle = before + (self.range_shape[-1] - 1) / 2 - self.detector_offset / self.detector_spacing
        return (position / self.ray_spacing + middle).flatten(), divisor.flatten()


class ParallelBeam(RayOperator):
    r"""Parallel-beam CT: line integrals of the image, in mm.

    At angle :math:`θ` the rays run along :math:`n = (-\sin θ, \cos θ)`, the detector along
    :math:`e = (\cos θ, \sin θ)`; cell :math:`k` sees the line :math:`r \cdot e = \Delta (k - \tfrac{n-1}{2}) + o`
    (ASTRA's ``parallel``). The centre of the image is the axis of rotation; columns run along :math:`+x`, rows along
    :math:`-y`. Image ``(1, H, W)``, sinogram ``(1, n_views, n_detectors)``; for the rest see :class:`RayOperator`.

    Args:
        image_shape: ``(H, W)`` pixels.
        pixel_spacing: side of a pixel in mm.
        angles: view angles in radians, ``(n_views,)``; half a turn is complete.
        n_detectors: number of detector cells.
        detector_spacing: width of a cell in mm.
        detector_offset: :math:`o`, shift of the detector's centre along its axis (or of the axis of rotation, with the
            opposite sign), in mm.
        n_subrays: rays per detector cell.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.

    Raises:
        ValueError: a size or length is not positive, or angles are missing or not finite.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        pixel_spacing: float,
        angles: Sequence[float] | np.ndarray | Tensor,
        n_detectors: int,
        detector_spacing: float,
        detector_offset: float = 0.0,
        n_subrays: int = 2,
        cache_dir: str | Path | None = None,
    ) -> None:
        angles = checked_angles("ParallelBeam", angles)
        shape = checked_shape("ParallelBeam", image_shape)
        check_numbers(
            "ParallelBeam",
            {"n_detectors": n_detectors, "n_subrays": n_subrays},
            {"pixel_spacing": pixel_spacing, "detector_spacing": detector_spacing},
            {},
            {"detector_offset": detector_offset},
        )
        geometry = ParallelGeometry(
            image_shape=shape,
            pixel_spacing=float(pixel_spacing),
            angles=tuple(angles.tolist()),
            n_detectors=int(n_detectors),
            detector_spacing=float(detector_spacing),
            n_subrays=int(n_subrays),
            detector_offset=float(detector_offset),
        )
        spacing = geometry.detector_spacing
        positions = (np.arange(n_detectors) - (n_detectors - 1) / 2) * spacing + detector_offset
        super().__init__(geometry, spacing, positions, spacing, np.zeros(int(n_detectors)), 0.0, cache_dir)

    def _cell_weights(self, like: Tensor) -> float:
        return 1.0

    def _project_pixels(self, angle: float, like: Tensor, before: int) -> tuple[Tensor, float]:
        x, y = self._pixel_centres(like)
        position = (x * math.cos(angle) + y * math.sin(angle)).flatten()
        middle = before + (self.range_shape[-1] - 1) / 2 - self.detector_offset / self.detector_spacing
        return position / self.detector_spacing + middle, 1.0
