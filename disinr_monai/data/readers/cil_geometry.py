"""Conversion of the geometry of CIL (the Core Imaging Library).

In CIL's frame source and detector stand still at angle 0 and turn by *minus* the angle about z; its images count rows
along +y. Its reference frame has the origin on the axis of rotation and the ray through the detector's centre along +y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CILGeometry:
    """Content of a CIL ``AcquisitionGeometry`` or of its NeXus file; vectors have 2 or 3 components.

    Attributes:
        kind: ``cone`` or ``parallel``.
        source: position of the source (cone) or direction of the rays (parallel).
        detector: position of its centre.
        direction_x, direction_y: along its columns and rows.
        axis, axis_direction: of rotation.
        n_pixels, pixel_size: of the panel, (horizontal, vertical).
        origin: of the panel, such as ``bottom-left``.
        angles: of the views, with the initial angle, radians.
    """

    kind: str
    source: Sequence[float]
    detector: Sequence[float]
    direction_x: Sequence[float]
    direction_y: Sequence[float] | None
    axis: Sequence[float]
    axis_direction: Sequence[float] | None
    n_pixels: tuple[int, int]
    pixel_size: tuple[float, float]
    origin: str
    angles: NDArray[np.float64]

    @classmethod
    def of(cls, config: Any) -> CILGeometry:
        """Read the ``config`` of a CIL ``AcquisitionGeometry``."""
        system, panel, angles = config.system, config.panel, config.angles
        is_cone = str(system.geometry) == "cone"
        is_3d = len(np.reshape(system.detector.position, -1)) == 3
        turned = np.asarray(angles.angle_data, dtype=float).reshape(-1) + float(angles.initial_angle)
        return cls(
            kind="cone" if is_cone else "parallel",
            source=system.source.position if is_cone else system.ray.direction,
            detector=system.detector.position,
            direction_x=system.detector.direction_x,
            direction_y=system.detector.direction_y if is_3d else None,
            axis=system.rotation_axis.position,
            axis_direction=system.rotation_axis.direction if is_3d else None,
            n_pixels=(int(panel.num_pixels[0]), int(panel.num_pixels[1])),
            pixel_size=(float(panel.pixel_size[0]), float(panel.pixel_size[1])),
            origin=str(panel.origin),
            angles=np.radians(turned) if str(angles.angle_unit).lower().endswith("degree") else turned,
        )


def convert(cil: CILGeometry, path: str) -> tuple[dict[str, Any], bool, bool]:
    """Our description of a scan, and whether its columns and its rows must be flipped.

    Raises:
        InputError: a tilted axis or detector.
    """
    up, x, y, source, centre = _aligned(cil, path)
    flip_rows = (y[2] < 0) != ("top" in cil.origin)
    x = -x if "right" in cil.origin else x
    values: dict[str, Any] = {"detector_spacing_v": cil.pixel_size[1], "detector_offset_v": centre[2] - up}
    if cil.kind == "parallel":
        # Rays along +y after alignment: only what lies across them counts.
        flip = x[0] < 0
        values |= {
            "geometry": "parallel",
            "detector_spacing": cil.pixel_size[0] * abs(x[0]),
            "detector_offset": centre[0],
            "angles": -cil.angles,
        }
        return values, flip, flip_rows
    normal = np.array([-x[1], x[0]])
    flip = float(normal @ (centre - source)[:2]) < 0
    x, normal = (-x, -normal) if flip else (x, normal)
    values |= {
        "geometry": "cone",
        "detector_spacing": cil.pixel_size[0],
        "source_distance": -float(source[:2] @ normal),
        "detector_distance": float(centre[:2] @ normal),
        "axis_offset": -float(source[:2] @ x[:2]),
        "detector_offset": float((centre - source)[:2] @ x[:2]),
        # The detector's direction at angle 0; the gantry turns by minus CIL's angle.
        "angles": float(np.arctan2(x[1], x[0])) - cil.angles,
    }
    return values, flip, flip_rows


def _aligned(cil: CILGeometry, path: str) -> tuple[float, NDArray, NDArray, NDArray, NDArray]:
    """Height of the source, directions of the detector, source (or ray) and detector in CIL's reference frame."""
    source, centre, axis, x = (_three(v) for v in (cil.source, cil.detector, cil.axis, cil.direction_x))
    y = np.array([0.0, 0.0, 1.0]) if cil.direction_y is None else _three(cil.direction_y)
    turn = np.array([0.0, 0.0, 1.0]) if cil.axis_direction is None else _three(cil.axis_direction)
    x, y, turn = (v / np.linalg.norm(v) for v in (x, y, turn))
    if turn[2] < 1 - _TOLERANCE:
        raise InputError(f"{path}: expected an axis of rotation along +z, found its direction {_said(turn)}")
    if abs(x[2]) > _TOLERANCE or abs(abs(y[2]) - 1) > _TOLERANCE:
        raise InputError(
            f"{path}: expected a detector with rows across and columns along the axis of rotation, found direction_x "
            f"{_said(x)} and direction_y {_said(y)}; tilted detectors are not supported"
        )
    ray = source if cil.kind == "parallel" else centre - source
    if cil.kind == "parallel" and abs(ray[2]) > _TOLERANCE * np.linalg.norm(ray):
        raise InputError(f"{path}: expected rays across the axis of rotation, found their direction {_said(ray)}")
    a, b = ray[:2] / np.linalg.norm(ray[:2])
    rotation = np.array([[b, -a, 0], [a, b, 0], [0, 0, 1]])  # the ray's part in the plane to +y
    centre = rotation @ (centre - axis)
    if cil.kind == "parallel":
        return 0.0, rotation @ x, y, rotation @ ray, centre
    source = rotation @ (source - axis)
    if abs(source[2]) > _TOLERANCE * np.linalg.norm(source):
        raise InputError(
            f"{path}: expected the source at the height of the axis' position, found it {source[2]:g} above; move "
            "rotation_axis position along the axis"
        )
    return float(source[2]), rotation @ x, y, source, centre


def _three(vector: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(vector, dtype=float).reshape(-1)
    return np.append(array, 0.0) if len(array) == 2 else array


def _said(vector: NDArray) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in vector) + ")"
