from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.ray_geometry import FanGeometry, check_numbers, checked_angles, checked_shape
from disinr_monai.operators.ray_operator import RayOperator


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
