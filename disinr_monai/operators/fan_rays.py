"""Rays of a fan-beam scan: flat or curved detector, shifted detector, shifted axis of rotation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
