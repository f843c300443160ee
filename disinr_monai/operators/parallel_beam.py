from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from disinr_monai.operators.ray_geometry import ParallelGeometry, check_numbers, checked_angles, checked_shape
from disinr_monai.operators.ray_operator import RayOperator


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
