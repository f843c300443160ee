from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.hdf5 import open_hdf5
from disinr_monai.data.prewhiten import prewhiten
from disinr_monai.data.read_trajectory import read_trajectory
from disinr_monai.errors import InputError

_MAP_KEYS = ("sensitivity_maps", "coil_sensitivity_maps", "sens_maps", "coil_maps")


def read_kspace(path: str | Path, slice_index: int | None = None) -> dict[str, Any]:
    """Read one slice of a fastMRI HDF5 file: ``kspace`` ``(slice, coil, H, W)``, or ``(coil, H, W)`` for one slice.

    Optional datasets: ``mask`` (``(W,)``, ``(H, W)``, or with a leading slice axis), ``sensitivity_maps`` (shaped like
    ``kspace``), ``ismrmrd_header`` (for the voxel size), ``noise`` ``(coil, samples)`` (coils
    are then prewhitened, :func:`~disinr_monai.data.prewhiten.prewhiten`). Without ``mask`` a scan is undersampled if
    samples inside the measured block are exactly zero in every coil, or if the block is not in the middle (partial
    Fourier). With ``trajectory`` (:func:`~disinr_monai.data.read_trajectory.read_trajectory`) the last axes of
    ``kspace`` are readouts and samples.

    Args:
        path: the file.
        slice_index: which slice; may be left out if there is only one.

    Returns:
        ``kspace`` complex64 ``(coil, H, W)`` or ``(coil, readouts, samples)``; ``mask`` bool ``(H, W)``, what was (or,
        for a full scan with a mask in the file, is to be taken as) measured, or None and ``trajectory``
        ``(readouts, samples, 2)``; ``shape`` (H, W) of the image; ``is_full``, whether ``kspace`` holds a fully sampled
        Cartesian scan; ``has_mask``, whether the mask came from the file; ``maps`` complex64 ``(coil, H, W)`` or None;
        ``affine`` 4x4 RAS mm; ``info`` JSON-ready.

    Raises:
        InputError: not HDF5, truncated, no ``kspace``, wrong rank, real-valued, no coil, no such slice, NaN or
            infinite, all zero, or a mask or maps that do not match.
    """
    with open_hdf5(path) as file:
        data = _kspace_dataset(file, path)
        n_slices = data.shape[0] if data.ndim == 4 else 1
        index = _checked_index(slice_index, n_slices, path)
        kspace = np.asarray(data[index] if data.ndim == 4 else data[()]).astype(np.complex64)
        _check_values(kspace, path, index)
        placed = read_trajectory(file, data.shape, path) if "trajectory" in file else None
        shape = kspace.shape[1:] if placed is None else placed["shape"]
        mask = _read_mask(file, kspace.shape, n_slices, index, path)
        maps = _read_maps(file, (*data.shape[:-2], *shape), index, path)
        affine, geometry = _read_affine(file, shape, index)
        noise = np.asarray(file["noise"][()]) if "noise" in file else None
    info = {"format": "fastmri_hdf5", "slice": index, "n_slices": n_slices, "geometry": geometry}
    if noise is not None:
        kspace, maps = prewhiten(kspace, maps, noise, path)
        info["prewhitened"] = True
    result = {
        "kspace": kspace,
        "mask": None,
        "trajectory": None if placed is None else placed["trajectory"],
        "shape": shape,
        "is_full": False,
        "has_mask": mask is not None,
        "maps": maps,
        "affine": affine,
        "info": info,
    }
    if placed is not None:
        return result
    measured = (kspace != 0).any(axis=0)
    if mask is not None and not (measured & mask).any():
        raise InputError(f"{path}: `mask` must select measured samples, found that kspace is zero wherever mask is 1")
    return result | {"mask": measured if mask is None else mask & measured, "is_full": is_fully_sampled(measured)}


def kspace_summary(path: str | Path) -> tuple[int, bool]:
    """Number of slices, and whether the scan is fully sampled without a mask of its own (so to be undersampled).

    Reads the header and one coil of the middle slice.

    Raises:
        InputError: not HDF5, truncated, or no usable ``kspace``.
    """
    with open_hdf5(path) as file:
        data = _kspace_dataset(file, path)
        n_slices = data.shape[0] if data.ndim == 4 else 1
        if "mask" in file or "trajectory" in file:
            return n_slices, False
        coil = data[n_slices // 2, 0] if data.ndim == 4 else data[0]
        return n_slices, is_fully_sampled(np.asarray(coil) != 0)


def is_fully_sampled(measured: NDArray[np.bool_]) -> bool:
    """Whether the measured samples ``(H, W)`` fill their bounding block and that lies in the middle.

    Outer zeros on both sides are padding; on one side they were not measured (partial Fourier, asymmetric echo).
    """
    rows, columns = np.flatnonzero(measured.any(1)), np.flatnonzero(measured.any(0))
    if len(rows) == 0:
        return False
    for n, axis in zip(measured.shape, (rows, columns), strict=True):
        before, after = n // 2 - axis[0], axis[-1] + 1 - n // 2
        if abs(before - after) > 1 + 0.1 * max(before, after):
            return False
    block = measured[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A stray exact zero happens in real data; a skipped line is at least 1 / width of the samples.
    return bool(block.mean() > 1 - 0.5 / max(block.shape))


def _kspace_dataset(file: Any, path: str | Path) -> Any:
    if "kspace" not in file:
        raise InputError(
            f"{path}: expected a dataset `kspace` (slice, coil, H, W), found keys {sorted(file) or 'none'}; "
            "rename the dataset or give a fastMRI HDF5 file"
        )
    data = file["kspace"]
    shape = getattr(data, "shape", None)
    if shape is None or len(shape) not in (3, 4):
        raise InputError(f"{path}: `kspace` must have shape (slice, coil, H, W), found {shape or 'a group'}")
    if np.dtype(data.dtype).kind != "c":
        raise InputError(f"{path}: `kspace` must be complex, found {data.dtype}; store real + 1j * imaginary")
    if 0 in shape:
        what = "coils" if shape[-3] == 0 else "samples"
        raise InputError(f"{path}: `kspace` (slice, coil, H, W) holds zero {what}, found shape {tuple(shape)}")
    if min(shape[-2:]) < 2 and "trajectory" not in file:
        raise InputError(f"{path}: `kspace` must have at least 2 x 2 samples a coil, found shape {tuple(shape)}")
    return data


def _checked_index(slice_index: int | None, n_slices: int, path: str | Path) -> int:
    if slice_index is None and n_slices > 1:
        raise InputError(f"{path}: expected a slice number from 0 to {n_slices - 1}, found none")
    index = slice_index or 0
    if not 0 <= index < n_slices:
        raise InputError(f"{path}: expected a slice number from 0 to {n_slices - 1}, found {index}")
    return index


def _check_values(kspace: NDArray, path: str | Path, index: int) -> None:
    n_bad = int((~np.isfinite(kspace)).sum())
    if n_bad:
        raise InputError(f"{path}: `kspace` must be finite, found {n_bad} NaN or infinite samples in slice {index}")
    if not kspace.any():
        raise InputError(f"{path}: `kspace` must hold measured samples, found all zero in slice {index}")


def _read_mask(
    file: Any, shape: tuple[int, ...], n_slices: int, index: int, path: str | Path
) -> NDArray[np.bool_] | None:
    if "mask" not in file:
        return None
    raw = np.asarray(file["mask"][()])
    height, width = shape[1:]
    mask = np.squeeze(raw[index] if raw.ndim >= 3 and raw.shape[0] == n_slices else raw)
    if mask.shape == (width,):
        mask = np.broadcast_to(mask, (height, width))
    if mask.shape != (height, width):
        raise InputError(
            f"{path}: `mask` must have shape ({width},) or ({height}, {width}) to match `kspace` "
            f"{shape}, found {raw.shape}"
        )
    if raw.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
        raise InputError(f"{path}: `mask` must hold 0 and 1 only, found {raw.dtype} with other values")
    if not mask.any():
        raise InputError(f"{path}: `mask` must select measured samples, found all zero")
    return mask != 0


def _read_maps(file: Any, shape: tuple[int, ...], index: int, path: str | Path) -> NDArray[np.complex64] | None:
    key = next((key for key in _MAP_KEYS if key in file), None)
    if key is None:
        return None
    data = file[key]
    if (
        data.shape[-3:] != shape[-3:]
        or (data.ndim == 4 and data.shape[0] not in (1, shape[0]))
        or data.ndim not in (3, 4)
    ):
        raise InputError(f"{path}: `{key}` must have the shape of `kspace` {tuple(shape)}, found {tuple(data.shape)}")
    if np.dtype(data.dtype).kind != "c":
        raise InputError(f"{path}: `{key}` must be complex, found {data.dtype}")
    maps = np.asarray(data[()] if data.ndim == 3 else data[min(index, data.shape[0] - 1)]).astype(np.complex64)
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError(f"{path}: `{key}` must be finite and not all zero, found otherwise in slice {index}")
    return maps


def _read_affine(file: Any, shape: tuple[int, int], index: int) -> tuple[NDArray[np.float64], str]:
    if "ismrmrd_header" in file:
        header = file["ismrmrd_header"][()]
        header = header.decode(errors="replace") if isinstance(header, bytes) else str(header)
        encoded = re.search(r"<encodedSpace>.*?<fieldOfView_mm>(.*?)</fieldOfView_mm>", header, re.DOTALL)
        sizes = re.findall(r"<[xyz]>\s*([-+.\deE]+)\s*</[xyz]>", encoded.group(1)) if encoded else []
        if len(sizes) == 3 and all(float(size) > 0 for size in sizes):
            x, y, z = map(float, sizes)
            affine = np.diag([x / shape[0], y / shape[1], z, 1.0])
            affine[2, 3] = index * z
            return affine, "field of view of the ISMRMRD header; orientation unknown"
    affine = np.eye(4)
    affine[2, 3] = index
    return affine, "unknown: 1 mm voxels assumed"
