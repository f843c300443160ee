from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.data.ct_scan import checked_scan, our_names
from disinr_monai.data.hdf5 import check_size, open_hdf5, read_small
from disinr_monai.errors import InputError


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
        The dictionary of :func:`disinr_monai.data.ct_scan.checked_scan`.

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
