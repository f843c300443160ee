"""Checks of a sinogram file, of CT or PET; each raises an InputError that names the file and the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.resample import LARGEST_IMAGE
from disinr_monai.errors import InputError

NO_AFFINE = "orientation (no affine; row 0 is taken for the front, column 0 for the left)"


def as_text(value: Any) -> str:
    """Text of a file, also where it is stored as bytes or as an array of one text."""
    value = np.asarray(value).reshape(-1)[0] if np.size(value) == 1 else value
    return value.decode() if isinstance(value, bytes) else str(value)


def as_floats(value: Any) -> NDArray[np.float64]:
    """Convert a value of a file to numbers; NaN, which every check refuses, where it is not numeric."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return np.array(np.nan)


def finite_array(array: NDArray, key: str, path: str) -> NDArray[np.float32]:
    """Real, finite values as float32."""
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path}: `{key}` must be real, found {array.dtype}")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        n_bad = int((~np.isfinite(array)).sum())
        raise InputError(f"{path}: `{key}` must be finite, found {n_bad} NaN or infinite values")
    return array


def finite_number(values: Mapping[str, Any], key: str, path: str) -> float:
    """One number of either sign, 0 where ``values`` has none."""
    array = as_floats(values.get(key, 0.0))
    if array.size != 1 or not np.isfinite(array).all():
        raise InputError(f"{path}: `{key}` must be one finite number, found {values[key]!r}")
    return float(array.item())


def positive_number(
    values: Mapping[str, Any], key: str, path: str, kind: str = "length in mm", zero: bool = False
) -> float:
    """One positive number; with ``zero`` also 0. ``kind`` names it in the message."""
    number = finite_number(values, key, path)
    if number < 0 or (number == 0 and not zero):
        raise InputError(f"{path}: `{key}` must be one positive {kind}, found {number:g}")
    return number


def view_angles(value: Any, n_views: int, path: str) -> NDArray[np.float64]:
    """Angles of the views in radians, one a view, in any order and of any arc."""
    angles = as_floats(value).reshape(-1)
    if len(angles) != n_views or not np.isfinite(angles).all():
        raise InputError(f"{path}: `angles` must hold {n_views} finite angles (rad), one a view, found {len(angles)}")
    return angles


def image_sizes(value: Any, axes: str, path: str) -> tuple[int, ...]:
    """Image shape along axes such as ``"H, W"``."""
    sizes, n_axes = as_floats(value).reshape(-1), axes.count(",") + 1
    if len(sizes) != n_axes or not ((sizes >= 2) & (sizes <= LARGEST_IMAGE) & (sizes == np.round(sizes))).all():
        count = {2: "two", 3: "three"}[n_axes]
        raise InputError(
            f"{path}: `image_shape` must be {count} whole numbers ({axes}) from 2 to {LARGEST_IMAGE}, found {value}"
        )
    return tuple(int(n) for n in sizes)


def image_affine(values: Mapping[str, Any], spacing: float, shape: Sequence[int], path: str) -> NDArray[np.float64]:
    """Affine of the image, RAS mm; where the file has none, its centre is the origin."""
    if "affine" in values:
        affine = as_floats(values["affine"])
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"{path}: `affine` must be a finite 4x4 matrix, found shape {affine.shape}")
        return affine
    # x to the right, y to the front; rows run along -y, columns along x (docs/conventions.md).
    affine = np.diag([0.0, 0.0, 1.0, 1.0])
    affine[1, 0], affine[0, 1] = -spacing, spacing
    affine[:2, 3] = [-(shape[1] - 1) / 2 * spacing, (shape[0] - 1) / 2 * spacing]
    if len(shape) == 3:
        affine[2, 2], affine[2, 3] = spacing, -(shape[2] - 1) / 2 * spacing
    return affine
