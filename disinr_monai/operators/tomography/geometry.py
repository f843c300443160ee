"""Geometries of tomography: which ray meets which detector cell. Hashable, so that equal ones share a system matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class _Rule(NamedTuple):
    wanted: str
    holds: Callable[[float], bool]
    convert: type = float


_COUNT = _Rule("a positive integer", lambda n: n >= 1 and float(n).is_integer(), int)
_LENGTH = _Rule("a positive length in mm", lambda x: math.isfinite(x) and x > 0)
_DISTANCE = _Rule("0 or a length in mm", lambda x: math.isfinite(x) and x >= 0)
_OFFSET = _Rule("a length in mm (of either sign)", math.isfinite)
_RULES = {"n_detectors": _COUNT, "n_subrays": _COUNT, "detector_distance": _DISTANCE}
_RULES |= dict.fromkeys(("pixel_spacing", "detector_spacing", "detector_spacing_v", "source_distance"), _LENGTH)
_RULES |= dict.fromkeys(("detector_offset", "detector_offset_v", "axis_offset"), _OFFSET)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    r"""Image, views and detector of a scan: the base of all geometries.

    The axis of rotation is the origin and the centre of the image, whose columns run along :math:`+x` and rows along
    :math:`-y`. At angle :math:`θ` the detector runs along :math:`e = (\cos θ, \sin θ)` and the (central) ray along
    :math:`n = (-\sin θ, \cos θ)`; the cells are at :math:`u_k = \Delta (k - \tfrac{n_k - 1}{2}) + o` along :math:`e`.

    Args:
        image_shape: ``(H, W)`` pixels, of a cone beam ``(H, W, D)`` voxels.
        pixel_spacing: side of a pixel in mm.
        angles: :math:`θ` of the views in radians, ``(n_views,)``; any order, arc and steps.
        detector_spacing: :math:`\Delta`, width of a cell in mm.
        detector_offset: :math:`o`, shift of the detector's centre along :math:`e`, mm.

    Raises:
        ValueError: a size or length is not positive, or angles are missing or not finite.
    """

    image_shape: tuple[int, ...]
    pixel_spacing: float
    angles: tuple[float, ...]
    detector_spacing: float
    detector_offset: float = 0.0

    _IMAGE_AXES: ClassVar[str] = "two positive integers (H, W)"
    # Between two cells of a curved detector, radians.
    filter_angle: ClassVar[float] = 0.0
    # Angle of the ray along the same line from the other side, less half a turn, over the cell's position.
    opposite: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        values = self.angles.detach().cpu() if isinstance(self.angles, Tensor) else self.angles
        angles = np.asarray(values, dtype=np.float64)
        if angles.ndim != 1 or len(angles) == 0 or not np.isfinite(angles).all():
            raise self._wrong("angles", f"a 1-D list of finite radians, found shape {angles.shape}:", self.angles)
        self._set("angles", tuple(angles.tolist()))
        self._set("image_shape", self._sizes("image_shape", self._IMAGE_AXES))
        for key in (field.name for field in fields(self) if field.name in _RULES):
            rule, value = _RULES[key], getattr(self, key)
            if not rule.holds(value):
                raise self._wrong(key, f"{rule.wanted}, found", value)
            self._set(key, rule.convert(value))

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def _wrong(self, key: str, wanted_and_found: str, value: Any) -> ValueError:
        return ValueError(f"{type(self).__name__}: {key} must be {wanted_and_found} {value}")

    def _sizes(self, key: str, wanted: str) -> tuple[int, ...]:
        sizes = getattr(self, key)
        if len(sizes) != wanted.count(",") + 1 or not all(map(_COUNT.holds, sizes)):
            raise self._wrong(key, f"{wanted}, found", tuple(sizes))
        return tuple(int(n) for n in sizes)

    def in_units_of(self, unit: float) -> Self:
        """Count the lengths of the scan in ``unit`` mm instead of 1 mm."""
        lengths = [field.name for field in fields(self) if _RULES.get(field.name, _COUNT) is not _COUNT]
        return replace(self, **{key: getattr(self, key) / unit for key in lengths})

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of a measurement: ``(1, n_views, n_detectors)``, of a cone beam ``(1, n_views, rows, columns)``."""
        return (1, len(self.angles), self.n_detectors)

    @property
    def magnification(self) -> float:
        """Size of the centre of rotation on the detector."""
        return 1.0

    @property
    def ray_spacing(self) -> float:
        """Distance of two rays of a row at the axis of rotation, mm."""
        return self.detector_spacing / self.magnification

    @property
    def ray_area(self) -> float:
        """:attr:`ray_spacing`; of a detector with rows times the distance of two rows at the axis."""
        return self.ray_spacing

    @property
    def positions(self) -> NDArray[np.float64]:
        """Position of each cell, 0 on the axis of rotation: mm, or the fan angle in radians."""
        n = self.range_shape[-1]
        return (np.arange(n) - (n - 1) / 2) * self.ray_spacing + self.detector_offset / self.magnification

    @property
    def cell_step(self) -> float:
        """Distance of two :attr:`positions`."""
        return self.ray_spacing


@dataclass(frozen=True, kw_only=True)
class ParallelGeometry(Geometry):
    r"""Parallel rays :math:`r \cdot e = u_k` (ASTRA's ``parallel``); half a turn of views is complete.

    Args:
        n_detectors: cells.
        n_subrays: rays of a cell, which split it evenly.
    """

    n_detectors: int
    n_subrays: int = 2

    def rays(self) -> tuple[NDArray, NDArray]:
        """Points and unit directions ``(n_views, n_detectors * n_subrays, 2)`` as ``(x, y)`` in mm, cell by cell."""
        e, n, u = _axes_and_cells(self)
        points = u * e
        return points, np.broadcast_to(n, points.shape)


@dataclass(frozen=True, kw_only=True)
class PointSourceGeometry(Geometry):
    r"""Rays from a source at :math:`S = -d_s n - τ e`.

    The axis of rotation lies :math:`τ` beside the central ray, which meets the detector, :math:`d_s + d_d` from the
    source, at a right angle.

    Args:
        source_distance: :math:`d_s`, from the source to the axis along the central ray, mm; the source lies outside
            the image.
        detector_distance: :math:`d_d`, from the axis to the detector, mm; 0 is a virtual detector in the centre.
        axis_offset: :math:`τ`, shift of the axis along the detector, mm.

    Raises:
        ValueError: the source is in the image.
    """

    source_distance: float
    detector_distance: float
    axis_offset: float = 0.0

    curved: ClassVar[bool] = False
    opposite: ClassVar[float] = -2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        radius = math.hypot(*self.image_shape[:2]) / 2 * self.pixel_spacing
        if self.source_distance <= radius:
            wanted = f"larger than the image's half diagonal of {radius:.1f} mm, found"
            raise self._wrong("source_distance", wanted, f"{self.source_distance} mm")

    @property
    def magnification(self) -> float:
        return (self.source_distance + self.detector_distance) / self.source_distance

    @property
    def positions(self) -> NDArray[np.float64]:
        gamma = super().positions / self.source_distance
        # Opposite rays lie on either side of the ray through the axis of rotation.
        return (gamma if self.curved else np.arctan(gamma)) - math.atan2(self.axis_offset, self.source_distance)

    @property
    def cell_step(self) -> float:
        return self.ray_spacing / self.source_distance

    @property
    def filter_angle(self) -> float:
        return self.cell_step if self.curved else 0.0


@dataclass(frozen=True, kw_only=True)
class FanGeometry(PointSourceGeometry):
    r"""Fan beam with a flat or curved detector.

    The points of the cells are :math:`S + (d_s + d_d)\, n + u_k e` (flat; ASTRA's ``fanflat``), or
    :math:`S + (d_s + d_d)(\cos γ_k\, n + \sin γ_k\, e)` with :math:`γ_k = u_k / (d_s + d_d)` (curved, equiangular).

    Args:
        n_detectors: cells; ``detector_spacing`` is along the arc of a curved detector.
        n_subrays: rays of a cell, which split it evenly.
        curved: detector on a circle around the source instead of a line.

    Raises:
        ValueError: a curved detector spans half a turn or more.
    """

    n_detectors: int
    n_subrays: int = 2
    curved: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        reach = self.n_detectors / 2 * self.detector_spacing + abs(self.detector_offset)
        reach /= self.source_distance + self.detector_distance
        if self.curved and reach >= math.pi / 2:
            raise ValueError(
                "FanGeometry: a curved detector must lie within 90 degrees of the central ray, found "
                f"{math.degrees(reach):.1f} degrees (cells times detector_spacing over the distance from the source)"
            )

    def rays(self) -> tuple[NDArray, NDArray]:
        """Sources ``(n_views, 1, 2)`` and directions ``(n_views, n_detectors * n_subrays, 2)``, mm, cell by cell.

        As ``(x, y)``; a direction reaches from the source to the detector.
        """
        e, n, u = _axes_and_cells(self)
        source = self.source_distance * -n - self.axis_offset * e
        if self.curved:
            radius = self.source_distance + self.detector_distance
            return source, radius * (np.cos(u / radius) * n + np.sin(u / radius) * e)
        return source, self.detector_distance * n - self.axis_offset * e + u * e - source


@dataclass(frozen=True, kw_only=True)
class ConeGeometry(PointSourceGeometry):
    r"""Cone beam on a circular orbit with a flat panel: the flat fan in the plane :math:`z = 0`, and rows along z.

    Slices of the volume run along :math:`+z`; rows are at :math:`\Delta_v (r - \tfrac{n_r - 1}{2}) + o_v`.

    Args:
        detector_shape: ``(rows, columns)`` of the panel; ``detector_spacing`` is the width of a column.
        detector_spacing_v: :math:`\Delta_v`, height of a row in mm; that of a column if not given.
        detector_offset_v: :math:`o_v`, shift of the panel's centre along z, mm.
    """

    detector_shape: tuple[int, int]
    detector_spacing_v: float | None = None
    detector_offset_v: float = 0.0

    _IMAGE_AXES: ClassVar[str] = "three positive integers (H, W, D)"

    def __post_init__(self) -> None:
        self._set("detector_shape", self._sizes("detector_shape", "two positive integers (rows, columns)"))
        if self.detector_spacing_v is None:
            self._set("detector_spacing_v", self.detector_spacing)
        super().__post_init__()

    @property
    def range_shape(self) -> tuple[int, ...]:
        return (1, len(self.angles), *self.detector_shape)

    @property
    def ray_area(self) -> float:
        return self.ray_spacing * self.detector_spacing_v / self.magnification


RayGeometry = ParallelGeometry | FanGeometry


def _axes_and_cells(geometry: RayGeometry) -> tuple[NDArray, NDArray, NDArray]:
    """Directions ``e`` and ``n`` ``(n_views, 1, 2)``, and the place of every sub-ray along ``e`` ``(1, n, 1)``."""
    sine, cosine = np.sin(geometry.angles), np.cos(geometry.angles)
    n = geometry.n_detectors * geometry.n_subrays
    u = (np.arange(n) - (n - 1) / 2) * (geometry.detector_spacing / geometry.n_subrays) + geometry.detector_offset
    return np.stack((cosine, sine), -1)[:, None], np.stack((-sine, cosine), -1)[:, None], u[None, :, None]
