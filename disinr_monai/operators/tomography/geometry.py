"""Geometries of 2-D tomography: where every ray runs, in mm. Hashable, so that equal ones share a system matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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


def fan_rays(
    angles: NDArray,
    n_detectors: int,
    detector_spacing: float,
    source_distance: float,
    detector_distance: float,
    n_subrays: int,
    detector_offset: float = 0.0,
    axis_offset: float = 0.0,
    curved: bool = False,
) -> tuple[NDArray, NDArray]:
    r"""A point and a direction for each ray, in mm, as :math:`(x, y)` around the axis of rotation.

    .. math::
        e = (\cos θ, \sin θ), \quad n = (-\sin θ, \cos θ), \quad S = -d_s n - τ e, \quad
        u_k = \Delta \left(k - \tfrac{n - 1}{2}\right) + o

    with each detector cell split evenly into ``n_subrays`` points. They are :math:`S + R\, n + u_k e` on a flat
    detector and :math:`S + R\,(\cos γ_k\, n + \sin γ_k\, e)`, :math:`γ_k = u_k / R`, on a curved one, with
    :math:`R = d_s + d_d`.

    Args:
        angles: :math:`θ`, radians.
        n_detectors: cells.
        detector_spacing: :math:`\Delta`, mm; along the arc of a curved detector.
        source_distance: :math:`d_s` from the source to the axis along :math:`n`, mm.
        detector_distance: :math:`d_d` from the axis to the detector along :math:`n`, mm.
        n_subrays: rays per cell.
        detector_offset: :math:`o`, from the central ray to the detector's centre, mm.
        axis_offset: :math:`τ`, from the central ray to the axis along :math:`e`, mm.
        curved: a circle around the source instead of a line.

    Returns:
        sources ``(n_views, 1, 2)`` and directions ``(n_views, n_detectors * n_subrays, 2)`` from the source to the
        detector point; sub-rays of one cell are neighbours.
    """
    sine, cosine = np.sin(angles), np.cos(angles)
    n_points = n_detectors * n_subrays
    u = (np.arange(n_points) - (n_points - 1) / 2) * (detector_spacing / n_subrays) + detector_offset
    normal = np.stack((-sine, cosine), axis=-1)[:, None]
    axis = np.stack((cosine, sine), axis=-1)[:, None]
    source = source_distance * np.stack((sine, -cosine), axis=-1)[:, None] - axis_offset * axis
    if curved:
        radius = source_distance + detector_distance
        gamma = (u / radius)[None, :, None]
        return source, radius * (np.cos(gamma) * normal + np.sin(gamma) * axis)
    centre = detector_distance * normal - axis_offset * axis
    return source, centre + u[None, :, None] * axis - source


def parallel_rays(
    angles: np.ndarray, n_bins: int, bin_spacing: float, offset: float = 0.0, n_subrays: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    r"""A point and a direction for each ray, in mm, as :math:`(x, y)`.

    .. math::
        P_k = u_k (\cos θ, \sin θ), \qquad d = (-\sin θ, \cos θ), \qquad
        u_k = \Delta \left(k - \tfrac{n - 1}{2}\right) + o

    with each bin split evenly into ``n_subrays`` points. This is ASTRA's ``parallel``: at :math:`θ = 0` the rays run
    along the columns of the image and bins count along its rows, from left to right.

    Args:
        angles: radians, ``(n_views,)``.
        n_bins: bins of a view.
        bin_spacing: :math:`Δ`, mm.
        offset: :math:`o`, position of the middle of the bins along their axis, mm; 0 is the centre of rotation.
        n_subrays: rays of a bin.

    Returns:
        points ``(n_views, n_bins * n_subrays, 2)`` and directions of unit length, of the same shape, not to be written
        to; sub-rays of one bin are neighbours.
    """
    angles = np.asarray(angles, dtype=np.float64)
    sine, cosine = np.sin(angles), np.cos(angles)
    n_points = n_bins * n_subrays
    u = (np.arange(n_points) - (n_points - 1) / 2) * (bin_spacing / n_subrays) + offset
    points = u[None, :, None] * np.stack((cosine, sine), axis=-1)[:, None]
    directions = np.stack((-sine, cosine), axis=-1)[:, None]
    return points, np.broadcast_to(directions, points.shape)
