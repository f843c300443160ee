from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError


def pet_geometry(
    path: str | Path, file: Mapping[str, Any], shape: tuple[int, int], options: Mapping[str, float | None]
) -> tuple[dict[str, Any], NDArray[np.float64], list[str]]:
    """Geometry of a PET sinogram from what its file says and, for what it does not, from options.

    Args:
        path: for messages.
        file: its data sets and attributes: ``bin_spacing`` (mm), ``angles`` (rad, one a view), ``bin_offset``,
            ``pixel_spacing``, ``fwhm`` (mm), ``image_shape`` (H, W), ``affine`` (4x4, RAS mm), ``calibration`` (output
            unit per count and mm), ``blank_scale``; all but the first are optional.
        shape: views and bins.
        options: the same by name where the user gave them, and ``arc``, the degrees of evenly spread views.

    Returns:
        The keywords of :class:`~disinr_monai.operators.PETProjection` with ``values`` (``calibration`` and
        ``blank_scale``) beside them; the image's affine; what had to be assumed, as text.

    Raises:
        InputError: no ``bin_spacing`` in either, or a value that cannot be.
    """
    n_views, n_bins = shape
    assumed: list[str] = []
    bin_spacing = _length(path, file, options, "bin_spacing")
    if bin_spacing is None:
        raise InputError(
            f"{path}: expected `bin_spacing` (mm) as attribute or dataset, found none; give it with --bin_spacing"
        )
    if "angles" in file:
        angles = np.asarray(file["angles"], dtype=float).reshape(-1)
        if len(angles) != n_views or not np.isfinite(angles).all():
            raise InputError(f"{path}: `angles` must hold {n_views} finite angles (rad), found {len(angles)}")
        if np.ptp(angles) > 4 * np.pi + 1e-3:
            raise InputError(f"{path}: `angles` must be in radians, found a range of {np.ptp(angles):g}; convert them")
    else:
        angles = np.arange(n_views) * (math.radians(options["arc"]) / n_views)
        assumed.append(f"{n_views} views evenly over {options['arc']:g} degrees (arc)")
    spacing = _length(path, file, options, "pixel_spacing") or bin_spacing
    side = max(math.ceil(n_bins * bin_spacing / spacing - 1e-6), 2)
    image_shape = [int(n) for n in np.asarray(file.get("image_shape", (side, side))).reshape(-1)]
    if len(image_shape) != 2 or min(image_shape) < 2:
        raise InputError(f"{path}: `image_shape` must be two numbers (H, W), found {file['image_shape']}")
    fwhm = _length(path, file, options, "fwhm", lowest=0.0)
    if fwhm is None:
        fwhm = 0.0
        assumed.append("no blur (fwhm)")
    geometry = {
        "image_shape": tuple(image_shape),
        "pixel_spacing": spacing,
        "angles": angles,
        "n_bins": n_bins,
        "bin_spacing": bin_spacing,
        "bin_offset": _length(path, file, {}, "bin_offset", lowest=-math.inf) or 0.0,
        "fwhm": fwhm,
        "values": {
            "calibration": _length(path, file, {}, "calibration") or 1.0,
            "blank_scale": _length(path, file, options, "blank_scale") or 1.0,
        },
    }
    return geometry, _affine(path, file, spacing, geometry["image_shape"]), assumed


def _length(
    path: str | Path, file: Mapping[str, Any], options: Mapping[str, Any], key: str, lowest: float | None = None
) -> float | None:
    """One number of the file or the options; positive, or at least ``lowest``."""
    if key not in file:
        return options.get(key)
    value = np.asarray(file[key])
    number = float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in "iuf" else math.nan
    if not math.isfinite(number) or (number <= 0 if lowest is None else number < lowest):
        kind = "positive number" if lowest is None else "number"
        raise InputError(f"{path}: `{key}` must be one {kind}, found {file[key]}")
    return number


def _affine(
    path: str | Path, file: Mapping[str, Any], spacing: float, image_shape: tuple[int, int]
) -> NDArray[np.float64]:
    if "affine" in file:
        affine = np.asarray(file["affine"], dtype=float)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"{path}: `affine` must be a finite 4x4 matrix, found shape {affine.shape}")
        return affine
    # x to the right, y to the front; rows run along -y, columns along x (docs/conventions.md).
    affine = np.diag([0.0, 0.0, 1.0, 1.0])
    affine[1, 0], affine[0, 1] = -spacing, spacing
    affine[:2, 3] = [-(image_shape[1] - 1) / 2 * spacing, (image_shape[0] - 1) / 2 * spacing]
    return affine
