"""Measured CT scans: checks of their geometry, and the HDF5 file that holds one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers import checks
from disinr_monai.data.readers.hdf5 import check_size, open_hdf5, read_small
from disinr_monai.data.readers.plausible import check_angle_unit, check_integrals
from disinr_monai.errors import InputError
from disinr_monai.operators import ConeGeometry, FanGeometry, ParallelGeometry

KINDS = ("parallel", "fan_flat", "fan_curved", "cone")
WATER_ATTENUATION = 0.02

_FAN_LENGTHS = ("source_distance", "detector_distance")
_OFFSETS = ("detector_offset", "axis_offset", "detector_offset_v")
# Names of the same values in other files, and what brings them to ours.
_OTHER_NAMES = {
    "angles_deg": ("angles", math.pi / 180),
    "detector_pixel_mm": ("detector_spacing", 1.0),
    "distance_source_origin_mm": ("source_distance", 1.0),
}
SETTINGS = (
    "geometry",
    "angles",
    "detector_spacing",
    "detector_spacing_v",
    *_FAN_LENGTHS,
    *_OFFSETS,
    "pixel_spacing",
    "image_shape",
    "affine",
    "water_attenuation",
)
"""What describes a scan beside its projections."""


def our_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under our names and in our units, also those of the Helsinki Tomography Challenge 2022's parameters."""
    result = dict(values)
    for other, (ours, factor) in _OTHER_NAMES.items():
        if other in result and ours not in result:
            result[ours] = checks.as_floats(result[other]) * factor
    if "distance_source_detector_mm" in result and "source_distance" in result:
        total = checks.as_floats(result["distance_source_detector_mm"])
        result.setdefault("detector_distance", total - checks.as_floats(result["source_distance"]))
    return result


def known_settings(given: Any) -> dict[str, Any]:
    """Check the user's settings of a scan and rename them to ours.

    Raises:
        InputError: no dictionary, or a key that is none of :data:`SETTINGS`.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"ct_geometry: expected a dictionary of {', '.join(SETTINGS)}, found {given!r}")
    given = our_names(given or {})
    unknown = sorted(map(str, set(given) - {*SETTINGS, *_OTHER_NAMES}))
    if unknown:
        raise InputError(f"ct_geometry: expected {', '.join(SETTINGS)}, found {', '.join(unknown)}")
    return given


def checked_scan(
    projections: NDArray,
    values: Mapping[str, Any],
    path: str,
    image_size: int = 256,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A complete description of one scan.

    Args:
        projections: ``(view, detector)``, of a cone beam ``(view, row, column)``: line integrals, no unit.
        values: what the file says, by the names of :data:`SETTINGS`.
        path: for messages.
        image_size: rows and columns where neither ``values`` nor ``given`` has ``image_shape``; the pixel is then the
            detector's field of view at the axis over this number.
        given: what the user says; stronger than the file.

    Returns:
        ``projections`` float32; ``geometry``, which the operator takes; ``affine``; ``settings``, the other values of
        :data:`SETTINGS` that apply, and ``beam``, one of :data:`KINDS`; ``unverified``, assumptions about orientation
        and scale.

    Raises:
        InputError: NaN, constant, missing or impossible values.
    """
    values = {**values, **known_settings(given)}
    beam = checks.as_text(values.get("geometry", "fan_flat"))
    if beam not in KINDS:
        raise InputError(f"{path}: `geometry` must be one of {', '.join(KINDS)}, found {beam!r}")
    n_axes = 3 if beam == "cone" else 2
    if projections.ndim != n_axes:
        raise InputError(
            f"{path}: the projections of geometry {beam} must have {n_axes} axes, found shape {projections.shape}"
        )
    required = ["detector_spacing", "angles", *(() if beam == "parallel" else _FAN_LENGTHS)]
    missing = [key for key in required if key not in values]
    if missing:
        raise InputError(
            f"{path}: expected the geometry {', '.join(missing)} as attribute or dataset, found only "
            f"{sorted(map(str, values)) or 'none'}; add it, or give --ct_geometry \"{{'{missing[0]}': ...}}\""
        )
    projections = checks.finite_array(projections, "sinogram", path)
    if projections.size == 0 or projections.min() == projections.max():
        raise InputError(f"{path}: `sinogram` must hold a measurement, found the same value everywhere or no value")
    lengths = {
        key: checks.positive_number(values, key, path, zero=key == "detector_distance")
        for key in required
        if key != "angles"
    }
    if beam == "cone":
        key = "detector_spacing_v" if "detector_spacing_v" in values else "detector_spacing"
        lengths["detector_spacing_v"] = checks.positive_number(values, key, path)
    for key in _OFFSETS if beam == "cone" else _OFFSETS[:2]:
        lengths[key] = checks.finite_number(values, key, path)
    angles = checks.view_angles(values["angles"], projections.shape[0], path)
    image_shape, lengths["pixel_spacing"] = _grid(values, lengths, projections.shape, image_size, path)
    affine = checks.image_affine(values, lengths["pixel_spacing"], image_shape, path)
    defaults = {"water_attenuation": WATER_ATTENUATION}
    water = checks.positive_number(defaults | values, "water_attenuation", path, "number (per mm)")
    settings = {**lengths, "image_shape": image_shape, "water_attenuation": water, "beam": beam}
    assumed = {
        "affine": checks.NO_AFFINE,
        "water_attenuation": f"scale in HU (no water_attenuation; {WATER_ATTENUATION} per mm assumed)",
    }
    geometry = _geometry_of(beam, {"angles": angles, "image_shape": image_shape, **lengths}, projections, path)
    check_angle_unit(projections, geometry, path)
    doubts = check_integrals(projections, geometry, path, water=water, is_given="water_attenuation" in values)
    return {
        "projections": projections,
        "geometry": geometry,
        "affine": affine,
        "settings": settings,
        "unverified": [*(text for key, text in assumed.items() if key not in values), *doubts],
    }


def _geometry_of(
    beam: str, values: dict[str, Any], projections: NDArray, path: str
) -> ParallelGeometry | FanGeometry | ConeGeometry:
    try:
        if beam == "cone":
            return ConeGeometry(detector_shape=projections.shape[1:], **values)
        values["n_detectors"] = projections.shape[1]
        if beam == "parallel":
            values["detector_offset"] -= values.pop("axis_offset")
            return ParallelGeometry(**values)
        return FanGeometry(curved=beam == "fan_curved", **values)
    except ValueError as error:
        raise InputError(f"{path}: this CT geometry cannot be measured: {error}") from error


def _grid(
    values: Mapping[str, Any], lengths: Mapping[str, float], shape: tuple[int, ...], image_size: int, path: str
) -> tuple[tuple[int, ...], float]:
    """Image shape and pixel; a missing one from the field of view of the detector at the axis."""
    near = 1.0
    if "source_distance" in lengths:
        near = lengths["source_distance"] / (lengths["source_distance"] + lengths["detector_distance"])
    view = shape[-1] * lengths["detector_spacing"] * near
    spacing = checks.positive_number(values, "pixel_spacing", path) if "pixel_spacing" in values else None
    if "image_shape" in values:
        image_shape = checks.image_sizes(values["image_shape"], "H, W, D" if len(shape) == 3 else "H, W", path)
        return image_shape, spacing or view / max(image_shape[:2])
    side = image_size if spacing is None else max(round(view / spacing), 2)
    spacing = spacing or view / side
    if len(shape) == 2:
        return (side, side), spacing
    return (side, side, max(round(shape[1] * lengths["detector_spacing_v"] * near / spacing), 2)), spacing


def read_sinogram(
    path: str | Path, index: int | None = None, image_size: int = 256, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read one CT scan from an HDF5 file with its geometry.

    The file holds the dataset ``sinogram``: line integrals ``-log(counts / photons)`` (no unit), ``(V, D)``, or
    ``(n, V, D)`` for a stack of scans, or ``(V, rows, columns)`` for a cone beam. As datasets or as attributes of the
    file or of ``sinogram``:

    * ``geometry``: ``parallel``, ``fan_flat`` (default), ``fan_curved`` or ``cone``;
    * ``angles`` (rad) or ``angles_deg``, ``(V,)`` or ``(n, V)``; ``detector_spacing`` (mm);
    * not for parallel beams: ``source_distance``, ``detector_distance`` (mm);
    * optional: ``detector_offset``, ``axis_offset`` (mm), for cone beams ``detector_spacing_v``, ``detector_offset_v``;
      ``pixel_spacing`` (mm), ``image_shape`` (H, W); ``affine`` (4x4, RAS mm, of the image); ``water_attenuation``
      (per mm, default 0.02).

    Conventions: ``docs/ct-geometries.md``.

    Args:
        path: HDF5 file.
        index: which scan of a stack.
        image_size: rows and columns where nothing says ``image_shape``.
        given: values that the user says; stronger than the file's.

    Returns:
        The dictionary of :func:`disinr_monai.data.readers.sinogram.checked_scan`.

    Raises:
        InputError: not HDF5, no ``sinogram``, wrong rank, NaN or infinite, constant, or missing or impossible geometry.
    """
    with open_hdf5(path) as file:
        data = _dataset(file, path)
        values = our_names({**file.attrs, **data.attrs, **read_small(file, path, ("sinogram",))})
        check_size(data, path)
        given = known_settings(given)
        values |= given
        n_scans = _n_scans(data.shape, values, path)
        if not 0 <= (index or 0) < n_scans or (index is None and n_scans > 1):
            raise InputError(f"{path}: `sinogram` holds {n_scans} scans, found the request for scan {index}")
        sinogram = np.asarray(data[()] if _is_cone(values) else data[index or 0] if data.ndim == 3 else data[()])
        if np.ndim(values.get("angles")) == 2 and len(values["angles"]) == n_scans:
            values["angles"] = values["angles"][index or 0]
    return checked_scan(sinogram, values, str(path), image_size, given)


def count_scans(file: Any, path: str | Path, given: Mapping[str, Any] | None = None) -> int:
    """Number of scans in an open file; ``given`` is stronger than what it says, as in :func:`read_sinogram`.

    Raises:
        InputError: no ``sinogram`` of two or three axes, or one of three that only a cone beam can have.
    """
    data = _dataset(file, path)
    values = our_names({**file.attrs, **data.attrs, **read_small(file, path, ("sinogram",))})
    return _n_scans(data.shape, values | (given or {}), path)


def _dataset(file: Any, path: str | Path) -> Any:
    if "sinogram" not in file:
        raise InputError(
            f"{path}: expected a dataset `sinogram` (view, detector), found keys {sorted(map(str, file)) or 'none'}"
        )
    data = file["sinogram"]
    shape = tuple(getattr(data, "shape", None) or ())
    if len(shape) not in (2, 3):
        raise InputError(
            f"{path}: `sinogram` must have shape (view, detector), (scan, view, detector) or, for a cone beam, (view, "
            f"row, column), found {shape}"
        )
    return data


def _is_cone(values: Mapping[str, Any]) -> bool:
    return checks.as_text(values.get("geometry", "")) == "cone"


def _n_scans(shape: tuple[int, ...], values: Mapping[str, Any], path: str | Path) -> int:
    if len(shape) == 2 or _is_cone(values):
        return 1
    angles = np.shape(values.get("angles", ()))
    if "geometry" not in values and angles == shape[:1] != shape[1:2]:
        raise InputError(
            f"{path}: expected `sinogram` (scan, view, detector) with {shape[1]} `angles`, found shape {shape} and "
            f"{shape[0]} of them; for a cone beam (view, row, column) add `geometry` 'cone', or give --ct_geometry "
            "\"{'geometry': 'cone', ...}\""
        )
    return shape[0]
