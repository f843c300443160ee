"""A measured CT scan as a dictionary: which values describe it, what they must be, and the operator they give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import check_size, open_hdf5, read_small
from disinr_monai.data.resample import LARGEST_IMAGE
from disinr_monai.errors import InputError
from disinr_monai.operators import ConeBeam, FanBeam, LinearOperator, ParallelBeam

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
            result[ours] = _floats(result[other]) * factor
    if "distance_source_detector_mm" in result and "source_distance" in result:
        total = _floats(result["distance_source_detector_mm"])
        result.setdefault("detector_distance", total - _floats(result["source_distance"]))
    return result


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
        ``projections`` float32, every value of :data:`SETTINGS` that applies to its geometry, and ``unverified``, what
        had to be assumed about orientation and scale.

    Raises:
        InputError: NaN, constant, missing or impossible values.
    """
    given = given or {}
    unknown = sorted(map(str, set(given) - set(SETTINGS)))
    if unknown:
        raise InputError(f"ct_geometry: expected {', '.join(SETTINGS)}, found {', '.join(unknown)}")
    values = {**values, **given}
    kind = _text(values.get("geometry", "fan_flat"))
    if kind not in KINDS:
        raise InputError(f"{path}: `geometry` must be one of {', '.join(KINDS)}, found {kind!r}")
    n_axes = 3 if kind == "cone" else 2
    if projections.ndim != n_axes:
        raise InputError(
            f"{path}: the projections of geometry {kind} must have {n_axes} axes, found shape {projections.shape}"
        )
    required = ["detector_spacing", "angles", *(() if kind == "parallel" else _FAN_LENGTHS)]
    missing = [key for key in required if key not in values]
    if missing:
        raise InputError(
            f"{path}: expected the geometry {', '.join(missing)} as attribute or dataset, found only "
            f"{sorted(map(str, values)) or 'none'}; add it, or give --ct_geometry \"{{'{missing[0]}': ...}}\""
        )
    scan: dict[str, Any] = {"geometry": kind, "projections": _finite(projections, path)}
    scan["detector_spacing"] = _length(values, "detector_spacing", path)
    if kind == "cone":
        scan["detector_spacing_v"] = (
            _length(values, "detector_spacing_v", path) if "detector_spacing_v" in values else scan["detector_spacing"]
        )
    if kind != "parallel":
        scan["source_distance"] = _length(values, "source_distance", path)
        scan["detector_distance"] = _length(values, "detector_distance", path, zero=True)
    for key in _OFFSETS if kind == "cone" else _OFFSETS[:2]:
        scan[key] = _number(values.get(key, 0.0), key, path)
    scan["angles"] = _angles(values["angles"], projections.shape[0], path)
    scan["image_shape"], scan["pixel_spacing"] = _grid(values, scan, image_size, path)
    scan["affine"] = _affine(values, scan, path)
    scan["water_attenuation"] = _number(values.get("water_attenuation", WATER_ATTENUATION), "water_attenuation", path)
    if not scan["water_attenuation"] > 0:
        raise InputError(f"{path}: `water_attenuation` must be positive (per mm), found {scan['water_attenuation']}")
    assumed = {
        "affine": "orientation (no affine; row 0 is taken for the front, column 0 for the left)",
        "water_attenuation": f"scale in HU (no water_attenuation; {WATER_ATTENUATION} per mm assumed)",
    }
    scan["unverified"] = [text for key, text in assumed.items() if key not in values]
    return scan


def scan_operator(scan: Mapping[str, Any], unit: float = 1.0) -> LinearOperator:
    """The operator of a scan, with lengths in ``unit`` mm (the pixel, say, instead of 1 mm).

    Raises:
        ValueError: a geometry that cannot be.
    """
    lengths = {
        key: scan[key] / unit
        for key in ("pixel_spacing", "detector_spacing", "detector_spacing_v", *_FAN_LENGTHS, *_OFFSETS)
        if key in scan
    }
    common = {"image_shape": scan["image_shape"], "angles": scan["angles"]}
    shape = scan["projections"].shape
    if scan["geometry"] == "cone":
        return ConeBeam(detector_shape=shape[1:], **common, **lengths)
    common["n_detectors"] = shape[1]
    if scan["geometry"] == "parallel":
        lengths["detector_offset"] -= lengths.pop("axis_offset")
        return ParallelBeam(**common, **lengths)
    return FanBeam(curved=scan["geometry"] == "fan_curved", **common, **lengths)


def _text(value: Any) -> str:
    value = np.asarray(value).reshape(-1)[0] if np.size(value) == 1 else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _finite(projections: NDArray, path: str) -> NDArray[np.float32]:
    if projections.dtype.kind not in "iuf":
        raise InputError(f"{path}: `sinogram` must be real, found {projections.dtype}")
    projections = projections.astype(np.float32)
    if not np.isfinite(projections).all():
        n_bad = int((~np.isfinite(projections)).sum())
        raise InputError(f"{path}: `sinogram` must be finite, found {n_bad} NaN or infinite values")
    if projections.size == 0 or projections.min() == projections.max():
        raise InputError(f"{path}: `sinogram` must hold a measurement, found the same value everywhere or no value")
    return projections


def _floats(value: Any) -> NDArray[np.float64]:
    """Numbers of a file; NaN, which no check lets through, for what is none."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return np.array(np.nan)


def _number(value: Any, key: str, path: str) -> float:
    array = _floats(value)
    if array.size != 1 or not np.isfinite(array).all():
        raise InputError(f"{path}: `{key}` must be one finite number, found {value!r}")
    return float(array.item())


def _length(values: Mapping[str, Any], key: str, path: str, zero: bool = False) -> float:
    number = _number(values[key], key, path)
    if number < 0 or (number == 0 and not zero):
        raise InputError(f"{path}: `{key}` must be one positive length in mm, found {number:g}")
    return number


def _angles(values: Any, n_views: int, path: str) -> NDArray[np.float64]:
    angles = _floats(values).reshape(-1)
    if len(angles) != n_views or not np.isfinite(angles).all():
        raise InputError(f"{path}: `angles` must hold {n_views} finite angles (rad), one a view, found {len(angles)}")
    if np.ptp(angles) > 4 * np.pi + 1e-3:
        raise InputError(
            f"{path}: `angles` must be in radians, found a range of {np.ptp(angles):g}; convert them, or name them "
            "`angles_deg`"
        )
    return angles


def _grid(
    values: Mapping[str, Any], scan: Mapping[str, Any], image_size: int, path: str
) -> tuple[tuple[int, ...], float]:
    """Image shape and pixel; a missing one from the field of view of the detector at the axis."""
    shape = scan["projections"].shape
    near = 1.0
    if scan["geometry"] != "parallel":
        near = scan["source_distance"] / (scan["source_distance"] + scan["detector_distance"])
    view = shape[-1] * scan["detector_spacing"] * near
    spacing = _length(values, "pixel_spacing", path) if "pixel_spacing" in values else None
    if "image_shape" in values:
        sizes = _floats(values["image_shape"]).reshape(-1)
        n_axes = 3 if scan["geometry"] == "cone" else 2
        if len(sizes) != n_axes or not ((sizes >= 2) & (sizes <= LARGEST_IMAGE) & (sizes == np.round(sizes))).all():
            wanted = "three whole numbers (H, W, D)" if n_axes == 3 else "two whole numbers (H, W)"
            wanted += f" from 2 to {LARGEST_IMAGE}"
            raise InputError(f"{path}: `image_shape` must be {wanted}, found {values['image_shape']}")
        image_shape = tuple(int(n) for n in sizes)
        return image_shape, spacing or view / max(image_shape[:2])
    side = image_size if spacing is None else max(round(view / spacing), 2)
    spacing = spacing or view / side
    if scan["geometry"] != "cone":
        return (side, side), spacing
    return (side, side, max(round(shape[1] * scan["detector_spacing_v"] * near / spacing), 2)), spacing


def _affine(values: Mapping[str, Any], scan: Mapping[str, Any], path: str) -> NDArray[np.float64]:
    if "affine" in values:
        affine = _floats(values["affine"])
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"{path}: `affine` must be a finite 4x4 matrix, found shape {affine.shape}")
        return affine
    spacing, shape = scan["pixel_spacing"], scan["image_shape"]
    # Without one in the file: x to the right, y to the front; rows run along -y, columns along x (docs/conventions.md).
    affine = np.diag([0.0, 0.0, 1.0, 1.0])
    affine[1, 0], affine[0, 1] = -spacing, spacing
    affine[:2, 3] = [-(shape[1] - 1) / 2 * spacing, (shape[0] - 1) / 2 * spacing]
    if len(shape) == 3:
        affine[2, 2], affine[2, 3] = spacing, -(shape[2] - 1) / 2 * spacing
    return affine


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
        values |= given or {}
        n_scans = _n_scans(data.shape, values)
        if not 0 <= (index or 0) < n_scans or (index is None and n_scans > 1):
            raise InputError(f"{path}: `sinogram` holds {n_scans} scans, found the request for scan {index}")
        sinogram = np.asarray(data[()] if _is_cone(values) else data[index or 0] if data.ndim == 3 else data[()])
        if np.ndim(values.get("angles")) == 2 and len(values["angles"]) == n_scans:
            values["angles"] = values["angles"][index or 0]
    return checked_scan(sinogram, values, str(path), image_size, given or {})


def count_scans(path: str | Path) -> int:
    """How many scans a file holds.

    Raises:
        InputError: not HDF5, or no ``sinogram`` of two or three axes.
    """
    with open_hdf5(path) as file:
        data = _dataset(file, path)
        return _n_scans(
            data.shape, {**file.attrs, **data.attrs, **{k: file[k][()] for k in ("geometry",) if k in file}}
        )


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
    return str(np.asarray(values.get("geometry", "")).astype(str)) == "cone"


def _n_scans(shape: tuple[int, ...], values: Mapping[str, Any]) -> int:
    return shape[0] if len(shape) == 3 and not _is_cone(values) else 1
