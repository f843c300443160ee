"""PET sinograms from HDF5: counts, corrections and geometry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers import checks
from disinr_monai.data.readers.hdf5 import check_size, open_hdf5, read_small
from disinr_monai.data.readers.plausible import check_attenuation
from disinr_monai.data.readers.sinogram import our_names
from disinr_monai.errors import InputError
from disinr_monai.operators import ParallelGeometry

COUNTS = {"emission": "sinogram", "transmission": "transmission"}
"""Data set of the counts, by kind of scan."""
_EXTRAS = ("attenuation_factors", "attenuation", "efficiencies", "background", "randoms", "scatter", "blank")
_DEFAULT_AXES = {2: "view,bin", 3: "plane,view,bin"}


def pet_planes(
    file: Any, path: str | Path, axes: str | Sequence[str] | None = None, scan: str = "emission"
) -> list[int | None]:
    """Plane numbers of an open file, ``[None]`` for a 2-D sinogram; of the other kind of scan if it has only that.

    Raises:
        InputError: neither an emission nor a transmission sinogram, or another rank.
    """
    found = [key for key in (COUNTS[scan], *COUNTS.values()) if key in file]
    if not found:
        raise InputError(
            f"{path}: expected a dataset `sinogram` (emission) or `transmission` of counts, found keys "
            f"{sorted(map(str, file)) or 'none'}"
        )
    shape = getattr(file[found[0]], "shape", ())
    order = _axes_of(path, file, found[0], shape, axes)
    return [None] if len(shape) == 2 else list(range(shape[order.index("plane")]))


def read_pet_sinogram(
    path: str | Path, *, scan: str = "emission", plane: int | None = None, axes: str | Sequence[str] | None = None
) -> dict[str, Any]:
    """Read one plane of a PET sinogram.

    Args:
        path: HDF5 file with ``sinogram`` (or ``transmission`` and ``blank``): counts ``(view, bin)`` or
            ``(plane, view, bin)``; optional data sets of that shape, or of one plane: ``attenuation_factors`` (0 to 1)
            or ``attenuation`` (line integrals, no unit), ``efficiencies``, and ``background`` or ``randoms`` and
            ``scatter`` (expected counts).
        scan: ``"emission"`` or ``"transmission"``.
        plane: which one of a 3-D sinogram.
        axes: order of the axes, e.g. ``"bin,view"``; by default the attribute ``axes`` of the file, else as above.

    Returns:
        float32 ``(V, B)`` arrays ``counts`` and those that the file has of ``factors`` (attenuation times
        efficiencies), ``background``, ``blank``; and ``values``, all other data sets and attributes by name.

    Raises:
        InputError: not HDF5, no such data set, wrong rank or shape, NaN, no counts, factors that cannot be.
    """
    with open_hdf5(path) as file:
        key = COUNTS[scan]
        if key not in file:
            other = next((s for s, k in COUNTS.items() if s != scan and k in file), None)
            hint = {"emission": "leave configs/transmission.json out", "transmission": "add configs/transmission.json"}
            raise InputError(
                f"{path}: expected a dataset `{key}` of counts, found keys {sorted(map(str, file)) or 'none'}"
                + (f"; for {other} scans {hint[other]}" if other else "")
            )
        shape = getattr(file[key], "shape", ())
        order = _axes_of(path, file, key, shape, axes)
        arrays = {key: _plane_of(path, file[key], key, shape, order, plane)}
        arrays |= {k: _plane_of(path, file[k], k, shape, order, plane) for k in _EXTRAS if k in file}
        others = read_small(file, path, (*arrays, *COUNTS.values()))
        values = {**file.attrs, **file[key].attrs, **others}
    counts, label = arrays.pop(key), str(path) if len(shape) == 2 else f"{path}: plane {plane}"
    if not counts.any():
        raise InputError(f"{label}: `{key}` must hold counts, found zeros only")
    result = {"counts": counts, "values": values, **_corrections(label, arrays)}
    if scan == "transmission" and ("blank" not in result or not (result["blank"] > 0).all()):
        found = "none" if "blank" not in result else f"{int((result['blank'] <= 0).sum())} bins of 0 or less"
        raise InputError(
            f"{label}: expected a dataset `blank` with counts of the blank scan in every bin, found {found}"
        )
    return result


def _axes_of(
    path: str | Path, file: Any, key: str, shape: tuple[int, ...], axes: str | Sequence[str] | None
) -> list[str]:
    if len(shape) not in _DEFAULT_AXES:
        raise InputError(f"{path}: `{key}` must have shape (view, bin) or (plane, view, bin), found {tuple(shape)}")
    if 0 in shape:
        raise InputError(f"{path}: `{key}` must hold counts, found shape {tuple(shape)}")
    if isinstance(axes, (list, tuple)):  # what the command line makes of a,b
        axes = ",".join(map(str, axes))
    text = axes or file[key].attrs.get("axes", file.attrs.get("axes", _DEFAULT_AXES[len(shape)]))
    order = [part.strip() for part in checks.as_text(text).split(",")]
    if sorted(order) != sorted(_DEFAULT_AXES[len(shape)].split(",")):
        raise InputError(
            f"{path}: `sinogram_axes` must name the {len(shape)} axes of `{key}`, e.g. {_DEFAULT_AXES[len(shape)]}, "
            f"found {text}"
        )
    return order


def _plane_of(
    path: str | Path, data: Any, key: str, shape: tuple[int, ...], order: list[str], plane: int | None
) -> NDArray[np.float32]:
    """One plane as ``(view, bin)``; the data may be one plane for all, or one number."""
    flat_order = [axis for axis in order if axis != "plane"]
    flat_shape = tuple(n for n, axis in zip(shape, order, strict=True) if axis != "plane")
    own, label = getattr(data, "shape", ()), str(path)
    if hasattr(data, "nbytes"):
        check_size(data, path)
    if own not in (shape, flat_shape, ()):
        raise InputError(f"{path}: `{key}` must have the shape {tuple(shape)} of the counts, found {tuple(own)}")
    if len(own) == 3:
        if plane is None or not 0 <= plane < own[order.index("plane")]:
            raise InputError(f"{path}: expected a plane from 0 to {own[order.index('plane')] - 1}, found {plane}")
        label = f"{path}: plane {plane}"
        data = data[tuple(plane if axis == "plane" else slice(None) for axis in order)]
    array = np.broadcast_to(checks.finite_array(np.asarray(data[()]), key, label), flat_shape)
    return np.array(array if flat_order == ["view", "bin"] else array.T, order="C")


def _corrections(path: str, arrays: dict[str, NDArray]) -> dict[str, NDArray[np.float32]]:
    for key, array in arrays.items():
        if array.min() < 0:
            raise InputError(f"{path}: `{key}` must not be negative, found {array.min():g}")
    for pair in (("attenuation_factors", "attenuation"), ("background", "randoms"), ("background", "scatter")):
        if all(key in arrays for key in pair):
            raise InputError(f"{path}: expected `{pair[0]}` or `{pair[1]}`, found both; keep one of them")
    factors = arrays.get("attenuation_factors")
    if factors is not None and factors.max() > 1.0001:
        raise InputError(
            f"{path}: `attenuation_factors` must lie between 0 and 1 (the part that gets through), found up to "
            f"{factors.max():g}; if they are correction factors, store their inverse"
        )
    if "attenuation" in arrays:
        check_attenuation(arrays["attenuation"], str(path))
        factors = np.exp(-arrays["attenuation"])
    if "efficiencies" in arrays:
        factors = arrays["efficiencies"] * (1.0 if factors is None else factors)
    if factors is not None and not factors.any():
        raise InputError(f"{path}: attenuation and efficiencies must let something through, found zeros only")
    result = {} if factors is None else {"factors": factors.astype(np.float32)}
    parts = [arrays[key] for key in ("background", "randoms", "scatter") if key in arrays]
    if parts:
        result["background"] = np.sum(parts, axis=0, dtype=np.float32)
    if "blank" in arrays:
        result["blank"] = arrays["blank"]
    return result


@dataclass(frozen=True)
class PETGeometry:
    """Geometry and scales of a PET sinogram, from its file and the options.

    Attributes:
        lines: the lines of response; the bins are its detectors.
        fwhm: resolution in mm, 0 if it is not modelled.
        calibration: output unit per count and mm.
        blank_scale: time of the transmission scan over that of the blank scan.
        affine: of the image, RAS mm.
        assumed: assumptions about the geometry, as text.
        unverified: assumptions about orientation and scale, as text.
    """

    lines: ParallelGeometry
    fwhm: float
    calibration: float
    blank_scale: float
    affine: NDArray[np.float64]
    assumed: list[str]
    unverified: list[str]


def pet_geometry(
    path: str | Path, file: Mapping[str, Any], shape: tuple[int, int], options: Mapping[str, float | None], scan: str
) -> PETGeometry:
    """Geometry of a PET sinogram from its file, completed by options.

    Args:
        path: for messages.
        file: its data sets and attributes: ``bin_spacing`` (mm), ``angles`` (rad, one a view) or ``angles_deg``,
            ``bin_offset``, ``pixel_spacing``, ``fwhm`` (mm), ``image_shape`` (H, W), ``affine`` (4x4, RAS mm),
            ``calibration`` (output unit per count and mm), ``blank_scale``; all but the first are optional.
        shape: views and bins.
        options: the same by name where the user gave them, and ``arc``, the degrees of evenly spread views.
        scan: ``"emission"`` or ``"transmission"``.

    Raises:
        InputError: no ``bin_spacing`` in either, or a value that cannot be.
    """
    (n_views, n_bins), path, assumed, file = shape, str(path), [], our_names(file)
    values = {key: value for key, value in options.items() if value is not None} | dict(file)
    if "bin_spacing" not in values:
        raise InputError(
            f"{path}: expected `bin_spacing` (mm) as attribute or dataset, found none; give it with --bin_spacing"
        )
    bin_spacing = checks.positive_number(values, "bin_spacing", path)
    if "angles" in file:
        angles = checks.view_angles(file["angles"], n_views, path)
    else:
        angles = np.arange(n_views) * (math.radians(options["arc"]) / n_views)
        assumed.append(f"{n_views} views evenly over {options['arc']:g} degrees (arc)")
    spacing = checks.positive_number({"pixel_spacing": bin_spacing, **values}, "pixel_spacing", path)
    side = max(math.ceil(n_bins * bin_spacing / spacing - 1e-6), 2)
    image_shape = checks.image_sizes(file["image_shape"], "H, W", path) if "image_shape" in file else (side, side)
    if "fwhm" not in values:
        assumed.append("no blur (fwhm)")
    unverified = [] if "affine" in file else [checks.NO_AFFINE]
    if scan == "emission" and "calibration" not in file:
        unverified.append("scale (no calibration; the image is in counts per mm)")
    if scan == "transmission" and "blank_scale" not in values:
        unverified.append("scale (no blank_scale; scan and blank scan are taken to last equally long)")
    return PETGeometry(
        lines=ParallelGeometry(
            image_shape=image_shape,
            pixel_spacing=spacing,
            angles=angles,
            n_detectors=n_bins,
            detector_spacing=bin_spacing,
            detector_offset=checks.finite_number(file, "bin_offset", path),
        ),
        fwhm=checks.positive_number({"fwhm": 0.0, **values}, "fwhm", path, zero=True),
        calibration=checks.positive_number({"calibration": 1.0, **file}, "calibration", path, "number"),
        blank_scale=checks.positive_number({"blank_scale": 1.0, **values}, "blank_scale", path, "number"),
        affine=checks.image_affine(file, spacing, image_shape, path),
        assumed=assumed,
        unverified=unverified,
    )
