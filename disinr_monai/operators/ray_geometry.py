"""Geometries of 2-D tomography: where every ray runs, in mm. Hashable, so that equal ones share a system matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disinr_monai.operators.fan_rays import fan_rays
from disinr_monai.operators.parallel_rays import parallel_rays


@dataclass(frozen=True)
class RayGeometry:
    """What all 2-D scans share.

    Attributes:
        image_shape: ``(H, W)`` pixels, the centre on the axis of rotation.
        pixel_spacing: side of a pixel in mm.
        angles: of the views, radians.
        n_detectors: cells.
        detector_spacing: width of a cell in mm.
        n_subrays: rays per cell.
        detector_offset: shift of the detector's centre in mm along its axis.
    """

    image_shape: tuple[int, int]
    pixel_spacing: float
    angles: tuple[float, ...]
    n_detectors: int
    detector_spacing: float
    n_subrays: int
    detector_offset: float

    def rays(self) -> tuple[NDArray, NDArray]:
        """Points and directions ``(n_views, n_detectors * n_subrays, 2)`` as ``(x, y)`` in mm; points may broadcast."""
        raise NotImplementedError


@dataclass(frozen=True)
class FanGeometry(RayGeometry):
    """Rays from a point; see :class:`disinr_monai.operators.FanBeam`."""

    source_distance: float
    detector_distance: float
    axis_offset: float
    curved: bool

    def rays(self) -> tuple[NDArray, NDArray]:
        return fan_rays(
            np.asarray(self.angles),
            self.n_detectors,
            self.detector_spacing,
            self.source_distance,
            self.detector_distance,
            self.n_subrays,
            detector_offset=self.detector_offset,
            axis_offset=self.axis_offset,
            curved=self.curved,
        )


@dataclass(frozen=True)
class ParallelGeometry(RayGeometry):
    """Parallel rays; see :class:`disinr_monai.operators.ParallelBeam`."""

    def rays(self) -> tuple[NDArray, NDArray]:
        return parallel_rays(
            np.asarray(self.angles), self.n_detectors, self.detector_spacing, self.detector_offset, self.n_subrays
        )


def checked_angles(name: str, angles: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
    """Angles as float64.

    Raises:
        ValueError: not a 1-D list of finite numbers.
    """
    array = np.asarray(torch.as_tensor(angles).detach().cpu(), dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name}: angles must be a 1-D list of finite radians, found shape {array.shape}: {angles}")
    return array


def check_numbers(
    name: str,
    counts: dict[str, int],
    lengths: dict[str, float],
    not_negative: dict[str, float],
    finite: dict[str, float],
) -> None:
    """Refuse numbers that a geometry cannot have.

    Raises:
        ValueError: names the number and what it must be.
    """
    for key, count in counts.items():
        if int(count) != count or count < 1:
            raise ValueError(f"{name}: {key} must be a positive integer, found {count}")
    for key, length in lengths.items():
        if not (math.isfinite(length) and length > 0):
            raise ValueError(f"{name}: {key} must be a positive length in mm, found {length}")
    for key, length in not_negative.items():
        if not (math.isfinite(length) and length >= 0):
            raise ValueError(f"{name}: {key} must be 0 or a length in mm, found {length}")
    for key, length in finite.items():
        if not math.isfinite(length):
            raise ValueError(f"{name}: {key} must be a length in mm (of either sign), found {length}")


def checked_shape(name: str, image_shape: Sequence[int], n_axes: int = 2) -> tuple[int, ...]:
    """Image shape as integers.

    Raises:
        ValueError: another number of axes, or not positive.
    """
    if len(image_shape) != n_axes or any(int(n) != n or n < 1 for n in image_shape):
        axes = {2: "two positive integers (H, W)", 3: "three positive integers (D, H, W)"}[n_axes]
        raise ValueError(f"{name}: image_shape must be {axes}, found {tuple(image_shape)}")
    return tuple(int(n) for n in image_shape)
