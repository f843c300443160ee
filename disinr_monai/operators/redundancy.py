"""How much each measured ray counts in filtered back-projection: arcs, short scans, shifted detectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Inside the measured region weights are never 0: where the opposite ray is missing, the ray counts in full.
_SMALLEST = 1e-6


def ray_weights(angles: NDArray, positions: NDArray, spacing: float, mirror: NDArray) -> NDArray[np.float64] | None:
    r"""Weights :math:`w_{v,k}` for a sum of views times :math:`π / V`, as for a full turn; None if all are 1.

    .. math::
        w_{v,k} = \frac{V}{π}\, Δθ_v\, \frac{m(θ_v, p_k)}{m(θ_v, p_k) + m(θ'_{v,k}, -p_k)}

    where the same line is measured from the other side at :math:`(θ', -p)` and :math:`m` is 0 where nothing is measured
    and falls smoothly to 0 at the ends of the arc and at the nearer edge of a shifted detector (Parker, Med. Phys.
    9:254, 1982; Wang, Med. Phys. 29:1634, 2002; normalised as by Noo et al., Phys. Med. Biol. 47:2525, 2002).
    :math:`Δθ_v` is the angle for which a view stands. Views with a gap of more than 30 degrees (and 2.5 usual steps)
    between them belong to separate arcs. Less than half a turn is not completed: what is missing counts as 0.

    Args:
        angles: of the views, radians.
        positions: of the detector cells, ascending, 0 where the line meets the axis of rotation.
        spacing: distance of two cells in the unit of ``positions``.
        mirror: how much the angle of the opposite ray differs from half a turn, for each cell (fan: -2 gamma).

    Returns:
        ``(n_views, n_detectors)`` or None.
    """
    steps, cover = _cover(angles)
    aperture = _aperture(positions, spacing)
    opposite = angles[:, None] + math.pi + mirror
    here = cover(angles)[:, None] * aperture(positions)
    there = cover(opposite) * aperture(-positions)
    weights = here / (here + there) * steps[:, None] * (len(angles) / math.pi)
    return None if np.abs(weights - 1).max() < 1e-6 else weights


def covered_angle(angles: NDArray) -> float:
    """Angle in radians for which the views stand, at most a full turn."""
    return min(float(_cover(np.asarray(angles))[0].sum()), 2 * math.pi)


def _cover(angles: NDArray) -> tuple[NDArray, Callable[[NDArray], NDArray]]:
    """Angle for which each view stands, and how far an angle is covered (0 to 1)."""
    turn = 2 * math.pi
    order = np.argsort(angles % turn, kind="stable")
    ordered = (angles % turn)[order]
    gaps = np.diff(ordered, append=ordered[0] + turn)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    hole = gaps > max(2.5 * usual, math.radians(30))
    half = np.where(hole, usual, gaps) / 2
    steps = np.empty(len(angles))
    steps[order] = half + np.roll(half, 1)
    if len(angles) == 1 or not hole.any():
        return steps, lambda values: np.ones(np.shape(values))
    ends = np.flatnonzero(hole)
    starts = np.roll((ends + 1) % len(ordered), 1)
    low = ordered[starts] - usual / 2
    lengths = (ordered[ends] - ordered[starts]) % turn + usual
    # Beyond half a turn lines are measured twice: share them smoothly.
    taper = lengths[0] - math.pi if len(ends) == 1 else 0.0

    def cover(values: NDArray) -> NDArray:
        result = np.zeros(np.shape(values))
        for first, length in zip(low, lengths, strict=True):
            along = (values - first) % turn
            edge = np.minimum(along, length - along)
            result = np.maximum(result, np.where(edge > 0, _rise(edge, taper), 0))
        return result

    return steps, cover


def _aperture(positions: NDArray, spacing: float) -> Callable[[NDArray], NDArray]:
    left, right = spacing / 2 - positions[0], positions[-1] + spacing / 2
    shorter, excess = min(left, right), abs(right - left)
    if shorter <= 0 or excess < 0.01 * spacing:
        # Seen from one side only, or from both alike.
        return lambda values: ((values > -left) & (values < right)).astype(float)
    sign = 1.0 if left < right else -1.0
    taper = min(2 * shorter, 4 * excess)

    def aperture(values: NDArray) -> NDArray:
        edge = sign * values + shorter
        inside = (edge > 0) & (edge < left + right)
        return np.where(inside, _rise(edge, taper), 0.0)

    return aperture


def _rise(distance: NDArray, width: float) -> NDArray:
    """From 0 at an edge to 1 at ``width`` from it."""
    if width < _SMALLEST:
        return np.ones(np.shape(distance))
    return np.maximum(np.sin(math.pi / 2 * np.clip(distance / width, 0, 1)) ** 2, _SMALLEST)
