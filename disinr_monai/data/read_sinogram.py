from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.data.hdf5 import check_size, open_hdf5, read_array
from disinr_monai.errors import InputError

_LENGTHS = ("detector_spacing", "source_distance", "detector_distance", "pixel_spacing")
_LARGEST = 16384  # rows or columns
_OTHERS = ("angles", "image_shape", "affine", "water_attenuation")
WATER_ATTENUATION = 0.02


def read_sinogram(path: str | Path) -> dict[str, Any]:
    """Read an HDF5 fan-beam sinogram with its geometry.

    The file holds the dataset ``sinogram`` ``(V, D)`` or ``(1, V, D)``, line integrals ``-log(counts / photons)``
    (no unit), and, as datasets or as attributes of the file or of ``sinogram``: ``angles`` (V, rad),
    ``detector_spacing``, ``source_distance``, ``detector_distance``, ``pixel_spacing`` (mm), ``image_shape`` (H, W).
    Optional: ``affine`` (4x4, RAS mm, of the image), ``water_attenuation`` (per mm, default 0.02). The geometry is the
    one of ``docs/conventions.md``.

    Returns:
        ``sinogram`` float32 ``(1, V, D)`` and every value named above, ``affine`` with a default centred on the
        rotation axis.

    Raises:
        InputError: not HDF5, no ``sinogram``, wrong rank, NaN or infinite, constant, or missing or impossible geometry.
    """
    with open_hdf5(path) as file:
        if "sinogram" not in file:
            raise InputError(
                f"{path}: expected a dataset `sinogram` (view, detector), found keys {sorted(map(str, file)) or 'none'}"
            )
        data = file["sinogram"]
        shape = getattr(data, "shape", ())
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1):
            raise InputError(
                f"{path}: `sinogram` must have shape (view, detector) or (1, view, detector), found "
                f"{tuple(shape)}; write one file a slice"
            )
        sinogram = read_array(file, "sinogram", path)
        values = {**file.attrs, **data.attrs}
        for key in {*_LENGTHS, *_OTHERS} & set(file):
            check_size(file[key], path)
            values[key] = file[key][()]
    if sinogram.dtype.kind not in "iuf":
        raise InputError(f"{path}: `sinogram` must be real, found {sinogram.dtype}")
    sinogram = sinogram.astype(np.float32).reshape(1, *shape[-2:])
    if not np.isfinite(sinogram).all():
        raise InputError(
            f"{path}: `sinogram` must be finite, found {int((~np.isfinite(sinogram)).sum())} NaN or infinite values"
        )
    if sinogram.size == 0 or sinogram.min() == sinogram.max():
        raise InputError(f"{path}: `sinogram` must hold a measurement, found the same value everywhere or no value")
    missing = [key for key in (*_LENGTHS, "angles", "image_shape") if key not in values]
    if missing:
        raise InputError(
            f"{path}: expected the geometry {', '.join(missing)} as attribute or dataset, found only "
            f"{sorted(map(str, values)) or 'none'}"
        )
    for key in {*_LENGTHS, *_OTHERS} & set(values):
        if np.asarray(values[key]).dtype.kind not in "iuf":
            raise InputError(f"{path}: `{key}` must hold numbers, found {values[key]!r:.60}")
    return {"sinogram": sinogram, **_checked_geometry(values, sinogram.shape[1], path)}


def _checked_geometry(values: dict[str, Any], n_views: int, path: str | Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in _LENGTHS:
        value = np.asarray(values[key], dtype=float)
        if value.size != 1 or not np.isfinite(value).all() or value.item() <= 0:
            raise InputError(f"{path}: `{key}` must be one positive length in mm, found {values[key]}")
        result[key] = float(value.item())
    angles = np.asarray(values["angles"], dtype=float).reshape(-1)
    if len(angles) != n_views or not np.isfinite(angles).all():
        raise InputError(f"{path}: `angles` must hold {n_views} finite angles (rad), one a view, found {len(angles)}")
    if np.ptp(angles) > 4 * np.pi + 1e-3:
        raise InputError(f"{path}: `angles` must be in radians, found a range of {np.ptp(angles):g}; convert them")
    image_shape = np.asarray(values["image_shape"]).reshape(-1)
    if image_shape.shape != (2,) or not (image_shape >= 2).all() or not (image_shape <= _LARGEST).all():
        raise InputError(f"{path}: `image_shape` must be two numbers (H, W), found {values['image_shape']}")
    image_shape = [int(n) for n in image_shape]
    spacing = result["pixel_spacing"]
    # Without one in the file: x to the right, y to the front; rows run along -y, columns along x (docs/conventions.md).
    affine = np.diag([0.0, 0.0, 1.0, 1.0])
    affine[1, 0], affine[0, 1] = -spacing, spacing
    affine[:2, 3] = [-(image_shape[1] - 1) / 2 * spacing, (image_shape[0] - 1) / 2 * spacing]
    if "affine" in values:
        affine = np.asarray(values["affine"], dtype=float)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"{path}: `affine` must be a finite 4x4 matrix, found shape {affine.shape}")
    water = np.asarray(values.get("water_attenuation", WATER_ATTENUATION), dtype=float).reshape(-1)
    if water.shape != (1,) or not 0 < water[0] < np.inf:
        raise InputError(f"{path}: `water_attenuation` must be one positive number (per mm), found {water}")
    water = float(water[0])
    return {**result, "angles": angles, "image_shape": tuple(image_shape), "affine": affine, "water_attenuation": water}
