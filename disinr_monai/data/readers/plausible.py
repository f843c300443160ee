"""Plausibility of projections: checks that name the likely cause where values cannot be right."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError
from disinr_monai.operators.tomography.geometry import Geometry

logger = logging.getLogger(__name__)

_TURN = 2 * np.pi
_LARGEST, _MEASURED = 30.0, 15.0  # line integrals: of 1e13, of 3e6 photons one is left
_FEWEST_VIEWS = 8
# Mean attenuation of the object over that of water: where it is doubtful, and where it cannot be.
_DOUBTFUL, _IMPOSSIBLE = (0.05, 5.0), (0.002, 200.0)
# PET scanners, mm.
_SMALLEST_FIELD, _LARGEST_FIELD, _NARROWEST_BIN = 5.0, 1e4, 0.45


def check_integrals(
    projections: NDArray, geometry: Geometry, path: str, *, water: float, is_given: bool, key: str = "sinogram"
) -> list[str]:
    """Refuse projections that are no line integrals, or whose lengths cannot be in mm.

    Intensities are largest where nothing is in the way and lower through the object, line integrals the other way
    round. Noise, dense inserts and truncated projections pass: means over all views are compared.

    Args:
        projections: ``(view, detector)`` or ``(view, row, column)``.
        geometry: which ray is how far from the axis of rotation, and how wide a cell is there, mm.
        path: for messages.
        water: attenuation of HU 0, per mm.
        is_given: somebody says ``water``; then the object may consist of anything, and no length is impossible.
        key: name of the projections, for messages.

    Returns:
        Doubts, as text.

    Raises:
        InputError: transmission, counts, the wrong sign, no air scan, exchanged axes, or lengths in another unit.
    """
    views = middle_row(projections)
    check_axes(views, path, key)
    found = _profile(views, geometry.positions)
    wanted = f"{path}: `{key}` must hold line integrals -log(I / I0), found"
    values = f"values from {projections.min():.4g} to {projections.max():.4g}"
    if found.negative > 0.8 and found.outer < found.inner:
        raise InputError(
            f"{wanted} {values}, the lowest in air: the scan in air is missing; divide by it before the logarithm, or "
            "add log(I0)"
        )
    if found.negative > 0.8:
        raise InputError(f"{wanted} {values}, negative through the object: the wrong sign; store -log, not log")
    is_lower = projections.min() > -0.05 * found.top and found.inner < 0.97 * found.outer
    if is_lower and found.is_level and 0.5 < found.top < 1.5:
        raise InputError(
            f"{wanted} {values}, about {found.outer:.3g} in air and lower through the object: transmission I / I0; "
            "store its negative logarithm"
        )
    if is_lower and found.is_level:
        raise InputError(
            f"{wanted} {values}, the largest ({found.outer:.4g}) in air and lower through the object: photon counts, "
            "detector values or their logarithm; store -log(counts / counts in air)"
        )
    if not is_given and np.quantile(projections, 0.9) > _LARGEST:
        raise InputError(
            f"{wanted} {values}; above {_LARGEST:g} nothing gets through: counts or scaled integers; convert them, or "
            "give the `water_attenuation` of this scale"
        )
    doubts = []
    if is_lower and found.top < 1.5 and np.quantile(views, 0.05) > 0.1 * found.top:
        doubts.append(f"line integrals ({values}, lower in the middle than at the edge; transmission I / I0?)")
    if found.negative > 0.1:
        doubts.append(f"line integrals ({100 * found.negative:.0f} % negative; the sign, or the scan in air?)")
    name = "`water_attenuation`" if is_given else "water"
    hint = ", or give the `water_attenuation` (per mm) of the object's main material"
    return doubts + _check_lengths(views, geometry, found, path, water, name, hint)


def middle_row(projections: NDArray) -> NDArray[np.float64]:
    """Projections ``(view, detector)``; of a panel the mean of the rows in its middle quarter."""
    if projections.ndim == 2:
        return projections.astype(np.float64)
    first = 3 * projections.shape[1] // 8
    return projections[:, first : max(first + 1, projections.shape[1] - first)].mean(1, dtype=np.float64)


class _Profile(NamedTuple):
    """Means over the views: near the axis, at the far end of the detector; is that level; largest; negative share."""

    inner: float
    outer: float
    is_level: bool
    top: float
    negative: float


def _profile(views: NDArray, positions: NDArray) -> _Profile:
    order = np.argsort(np.abs(positions), kind="stable")
    inner, outer = order[: max(len(order) // 3, 1)], order[-max(len(order) // 16, 1) :]
    mean, top = views.mean(0), float(np.quantile(views, 0.995))
    low, middle, high = np.quantile(views[:, outer], (0.25, 0.5, 0.75))
    is_level = middle > 0.85 * top and high - low < 0.2 * top
    negative = float(np.maximum(-mean, 0).sum() / max(np.abs(mean).sum(), 1e-30))
    return _Profile(float(mean[inner].mean()), float(mean[outer].mean()), bool(is_level), top, negative)


def check_axes(views: NDArray, path: str, key: str) -> None:
    """Refuse exchanged axes: every view sees the object, but the outer cells need not.

    Raises:
        InputError: nothing in the first and last view, but something in all cells.
    """
    totals, cells = np.abs(views.sum(1)), np.abs(views.sum(0))
    is_empty = max(totals[0], totals[-1]) < 0.02 * np.median(totals)
    if min(views.shape) >= _FEWEST_VIEWS and is_empty and min(cells[0], cells[-1]) > 0.5 * np.median(cells):
        raise InputError(
            f"{path}: `{key}` must be (view, detector), found shape {views.shape} with nothing in the first and the "
            "last view: the axes are exchanged; transpose it"
        )


def _check_lengths(
    views: NDArray, geometry: Geometry, found: _Profile, path: str, water: float, name: str, hint: str
) -> list[str]:
    """Compare the mean attenuation of the object, an ellipse as wide as its shadow, with that of water, by ``name``."""
    positions, spacing = geometry.positions, geometry.ray_spacing
    # Where no photon arrived the value is whatever the logarithm was saved with.
    views = np.minimum(views, _MEASURED)
    seen = views > 0.1 * min(found.top, _MEASURED)
    reach = sorted((-positions[0], positions[-1]))
    is_half = reach[0] < 0.7 * reach[1]
    side = positions * (1 if positions[-1] == reach[1] else -1) > 0 if is_half else np.ones(len(positions), bool)
    width = (1 + is_half) * seen[:, side].sum(1).mean() * spacing
    area = (1 + is_half) * np.where(seen, views, 0)[:, side].sum(1).mean() * spacing
    if not width > 0 or not area > 0:
        return []
    attenuation = float(area / (np.pi / 4 * width**2))
    ratio = attenuation / water
    # The rays through a truncated object are longer than the detector shows.
    least = ratio / 4 if found.outer > 0.1 * found.inner else ratio
    said = f"a mean attenuation of {attenuation:.3g} per mm over {width:.3g} mm, {ratio:.3g} times that of {name}"
    advice = f"convert them{hint}"
    unit = "m" if least > _IMPOSSIBLE[1] else "micrometres" if ratio < _IMPOSSIBLE[0] else ""
    if unit and name == "water":
        raise InputError(f"{path}: all lengths must be in mm, found {said}: lengths in {unit}; {advice}")
    if least > _DOUBTFUL[1]:
        return [f"lengths and scale ({said}: lengths in cm instead of mm? If so {advice})"]
    if ratio < _DOUBTFUL[0]:
        return [f"lengths and scale ({said}: lengths too long, or projections scaled? If so {advice})"]
    return []


def check_counts(
    counts: NDArray, blank: NDArray | None, geometry: Geometry, path: str, *, water: float, key: str
) -> list[str]:
    """Refuse PET counts that cannot be of their geometry, or a transmission scan that is none.

    Args:
        counts: ``(view, bin)``.
        blank: expected counts without the patient, of a transmission scan.
        geometry: the lines of response.
        path: for messages.
        water: attenuation of water, per mm.
        key: name of the counts, for messages.

    Returns:
        Doubts, as text.

    Raises:
        InputError: exchanged axes, angles or lengths in another unit, or more counts with the patient than without.
    """
    field = geometry.range_shape[-1] * geometry.ray_spacing
    said = f"`bin_spacing` {geometry.ray_spacing:.3g} mm, a field of view of {field:.3g} mm"
    if field < _SMALLEST_FIELD or field > _LARGEST_FIELD:
        unit = "m" if field < _SMALLEST_FIELD else "micrometres"
        raise InputError(f"{path}: all lengths must be in mm, found {said}: lengths in {unit}; convert them")
    if blank is None:
        check_axes(middle_row(counts), path, key)
        check_angle_unit(counts, geometry, path)
        if geometry.ray_spacing < _NARROWEST_BIN:
            return [f"lengths ({said}; in cm instead of mm?)"]
        return []
    integrals = np.log((blank + 0.5) / (np.maximum(counts, 0) + 0.5))
    views = middle_row(integrals)
    check_axes(views, path, key)
    check_angle_unit(integrals, geometry, path)
    found = _profile(views, geometry.positions)
    if found.negative > 0.8:
        cause = "exchanged, or `blank_scale` too small" if found.inner < found.outer else "`blank_scale` too small"
        raise InputError(
            f"{path}: `{key}` must hold fewer counts than `blank`, found {counts.mean():.4g} against "
            f"{blank.mean():.4g} on average: {cause}"
        )
    if found.is_level and found.inner < 0.97 * found.outer and found.outer > 1:
        raise InputError(
            f"{path}: `{key}` must hold counts, lower through the patient than beside, found the opposite: line "
            "integrals or correction factors? Store counts"
        )
    return _check_lengths(views, geometry, found, path, water, "water", "")


def check_attenuation(attenuation: NDArray, path: str) -> None:
    """Refuse what is no line integral at 511 keV.

    Raises:
        InputError: values above what a body has, or factors, which are 1 beside it.
    """
    wanted = f"{path}: `attenuation` must hold line integrals at 511 keV, found"
    if attenuation.max() > _LARGEST:
        raise InputError(
            f"{wanted} up to {attenuation.max():.4g}: correction factors? Store their inverse as `attenuation_factors`"
        )
    found = _profile(attenuation.astype(np.float64), np.arange(attenuation.shape[1]) - (attenuation.shape[1] - 1) / 2)
    if found.is_level and abs(found.outer - 1) < 0.02 and found.inner < 0.97:
        raise InputError(f"{wanted} 1 beside the body and less through it: store it as `attenuation_factors`")


def check_angle_unit(projections: NDArray, geometry: Geometry, path: str) -> None:
    """Refuse degrees that are taken for radians, and radians for degrees, where the projections tell.

    Any order of views, any arc and any number of turns can be right: neighbouring directions then look alike. Where all
    views are alike, degrees are recognised by their round numbers.

    Raises:
        InputError: the angles fit the projections only in the other unit.
    """
    angles = np.asarray(geometry.angles)
    span = float(np.ptp(angles))
    if span > 1.05 * _TURN:
        other = np.radians(angles)
        verdict = _fits_better(projections, geometry, other)
        if verdict or (verdict is None and span > 2 * _TURN + 1e-3 and _are_round(angles)):
            raise InputError(
                f"{path}: `angles` must be in radians, found a range of {span:g} "
                f"{'that fits the projections as degrees' if verdict else 'in round numbers of degrees'}; name them "
                "`angles_deg`, or convert them to radians"
            )
        if verdict is None and span > 2 * _TURN + 1e-3:
            logger.warning("%s: `angles` range over %.3g turns, taken for radians as they are", path, span / _TURN)
    elif 0 < span < 1.05 * np.radians(_TURN) and _fits_better(projections, geometry, np.degrees(angles)):
        raise InputError(
            f"{path}: `angles_deg` must be in degrees, found a range of {np.degrees(span):g} that fits the projections "
            "as radians; name them `angles`, or convert them to degrees"
        )


def _are_round(angles: NDArray) -> bool:
    """Multiples of 0.05 degrees, or evenly over a multiple of 30 degrees with or without the end point."""
    span = np.ptp(angles)
    ranges = np.array([span, span * len(angles) / max(len(angles) - 1, 1)]) / 30
    steps = (angles - angles[0]) / 0.05
    return bool(np.abs(steps - np.round(steps)).max() < 0.02 or np.abs(ranges - np.round(ranges)).min() < 1e-3)


def _fits_better(projections: NDArray, geometry: Geometry, other: NDArray) -> bool | None:
    """Tell whether other angles explain the projections much better than the geometry's; None if unclear."""
    views, own = middle_row(projections), np.asarray(geometry.angles)
    if len(views) < _FEWEST_VIEWS:
        return None
    n = -(-views.shape[1] // 16)
    blurred = np.add.reduceat(views, np.arange(0, views.shape[1], n), axis=1)
    ours, theirs = _roughness(blurred, own), _roughness(blurred, other)
    if theirs < 0.5 * ours:
        return True
    if ours < 0.7 * theirs:
        return False
    ours, theirs = _turning(views, geometry.positions, own), _turning(views, geometry.positions, other)
    return True if theirs < 0.3 and ours > 0.6 else False if ours < 0.3 and theirs > 0.6 else None


def _roughness(views: NDArray, angles: NDArray) -> float:
    """Mean squared difference of neighbouring directions over that of any two views."""
    order = np.argsort(angles % _TURN, kind="stable")
    change = np.diff(views[order], axis=0)
    return float(np.square(change).mean() / max(2 * views.var(0).mean(), 1e-30))


def _turning(views: NDArray, positions: NDArray, angles: NDArray) -> float:
    r"""Part of the movement of the centre of mass that is no rotation :math:`a + b \cos θ + c \sin θ`.

    All of it, 1, if the centre of mass would have to turn outside the field of view.
    """
    mass = np.maximum(views, 0)
    centre = mass @ positions / np.maximum(mass.sum(1), 1e-30)
    matrix = np.stack((np.ones_like(angles), np.cos(angles), np.sin(angles)), axis=1)
    fit = np.linalg.lstsq(matrix, centre, rcond=None)[0]
    if np.hypot(*fit[1:]) > np.abs(positions).max():
        return 1.0
    return float((centre - matrix @ fit).std() / max(centre.std(), 1e-30))
