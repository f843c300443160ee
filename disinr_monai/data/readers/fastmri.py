from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.fastmri_layout import (
    MAPS,
    RECONSTRUCTIONS,
    check_coil_axis,
    header_encoding,
    header_text,
    kspace_dataset,
    layout,
)
from disinr_monai.data.readers.hdf5 import check_size, open_hdf5, read_array
from disinr_monai.data.readers.kspace import (
    RawScan,
    check_centre,
    checked_slice,
    cut_affine,
    cut_size,
    is_fully_sampled,
    normalised,
    prewhiten,
    read_trajectory,
    remove_oversampling,
    unplaced_affine,
)
from disinr_monai.errors import InputError
from disinr_monai.grid import centre_block


def read_fastmri(path: str | Path, slice_index: int | None = None, select: Mapping[str, int] | None = None) -> RawScan:
    """Read one slice of a raw MRI file as fastMRI's.

    Datasets: ``kspace`` ``(slice, coil, H, W)``; ``(coil, H, W)`` for one slice; or ``(slice, H, W)`` of one coil as
    in fastMRI's single-coil files (:func:`~disinr_monai.data.readers.fastmri_layout.layout`). Optional datasets:
    ``mask`` (``(W,)``, ``(H, W)``, or with a leading slice axis), ``sensitivity_maps`` (shaped like ``kspace``),
    ``ismrmrd_header`` (:func:`~disinr_monai.data.readers.fastmri.fastmri_geometry`), ``noise`` ``(coil, samples)``
    (coils are then prewhitened, :func:`~disinr_monai.data.readers.kspace.prewhiten`). Without ``mask`` a scan is
    undersampled if samples inside the measured block are exactly zero in every coil, or if the block is not in the
    middle (partial Fourier). With ``trajectory`` (:func:`~disinr_monai.data.readers.kspace.read_trajectory`) the last
    axes of ``kspace`` are readouts and samples. Oversampling along a complete readout is removed.

    Args:
        path: the file.
        slice_index: which slice; may be left out if there is only one.
        select: for formats with several contrasts; without effect.

    Raises:
        InputError: not HDF5, truncated, no ``kspace``, wrong rank, real-valued, no coil, no such slice, NaN or
            infinite, all zero, coils along the last axis, zero frequency in the corner, facts about coils and slices
            that contradict each other, or a mask or maps that do not match.
    """
    with open_hdf5(path) as file:
        data = kspace_dataset(file, path)
        n_slices, read, said = layout(file, data, path)
        index = checked_slice(slice_index, n_slices, path)
        raw = np.asarray(read(index))
        _check_values(raw, path, index)
        kspace, unit = normalised(raw)
        trajectory, shape = None, kspace.shape[1:]
        if "trajectory" in file:
            trajectory, shape = read_trajectory(file, kspace.shape, path)
        mask = _read_mask(file, kspace.shape, n_slices, index, path)
        maps = _read_maps(file, (n_slices, len(kspace), *shape), index, path)
        affine, geometry, kept = fastmri_geometry(file, shape, index)
        noise = read_array(file, "noise", path) if "noise" in file else None
    info = {"format": "fastmri_hdf5", "slice": index, "n_slices": n_slices, "geometry": geometry}
    info["unverified"] = ["orientation (fastMRI files hold none)"]
    if geometry.startswith("unknown"):
        info["unverified"].append("voxel size (no field of view in the file; 1 mm assumed)")
    if said:
        info["read_as"] = said
    if noise is not None:
        kspace, maps = prewhiten(kspace, maps, noise / unit, path)
        unit = 1.0
        info["prewhitened"] = True
    scan = RawScan(kspace, shape, affine, info, trajectory=trajectory, has_mask=mask is not None, maps=maps, unit=unit)
    if trajectory is not None:
        return scan
    measured = (kspace != 0).any(axis=0)
    if mask is not None and not (measured & mask).any():
        raise InputError(f"{path}: `mask` must select measured samples, found that kspace is zero wherever mask is 1")
    mask = measured if mask is None else mask & measured
    check_coil_axis(kspace, path)
    check_centre(kspace, measured, path)
    return _without_oversampling(replace(scan, mask=mask, is_full=is_fully_sampled(measured), crop=kept))


def _without_oversampling(scan: RawScan) -> RawScan:
    """Keep ``crop`` rows where whole lines were measured: exact, and less to compute."""
    (height, width), (kept, _) = scan.shape, scan.crop
    columns = scan.mask.any(0)
    # A stray exact zero happens in real data.
    if kept == height or scan.mask[:, columns].mean() < 1 - 0.5 / height:
        return scan
    rows = centre_block(height, kept)
    return replace(
        scan,
        kspace=remove_oversampling(scan.kspace, kept),
        mask=np.broadcast_to(columns, (kept, width)).copy(),
        shape=(kept, width),
        maps=None if scan.maps is None else np.ascontiguousarray(scan.maps[:, rows]),
        affine=cut_affine(scan.affine, rows, slice(0, width)),
    )


def fastmri_summary(file: Any, path: str | Path) -> tuple[int, bool]:
    """Number of slices of an open file, and whether it is fully sampled without a mask (so to be undersampled).

    Reads the header and one coil of the middle slice.

    Raises:
        InputError: no usable ``kspace``.
    """
    data = kspace_dataset(file, path)
    n_slices = layout(file, data, path)[0]
    if "mask" in file or "trajectory" in file:
        return n_slices, False
    coil = data[n_slices // 2, 0] if data.ndim == 4 else data[n_slices // 2 if n_slices > 1 else 0]
    return n_slices, is_fully_sampled(np.asarray(coil) != 0)


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
    raw = read_array(file, "mask", path)
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
    key = next((key for key in MAPS if key in file), None)
    if key is None:
        return None
    data = file[key]
    if getattr(data, "shape", None) is None:
        raise InputError(f"{path}: `{key}` must be a dataset, found a group")
    check_size(data, path)
    if data.shape not in (shape[-3:], (1, *shape[-3:]), tuple(shape)):
        raise InputError(f"{path}: `{key}` must have the shape of `kspace` {tuple(shape)}, found {tuple(data.shape)}")
    if np.dtype(data.dtype).kind != "c":
        raise InputError(f"{path}: `{key}` must be complex, found {data.dtype}")
    maps = np.asarray(data[()] if data.ndim == 3 else data[min(index, data.shape[0] - 1)]).astype(np.complex64)
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError(f"{path}: `{key}` must be finite and not all zero, found otherwise in slice {index}")
    return maps


_KNOWN = "field of view of the ISMRMRD header; orientation unknown"


def fastmri_geometry(file: Any, shape: tuple[int, int], index: int) -> tuple[NDArray[np.float64], str, tuple[int, int]]:
    """Voxel size and the part of the field of view that is to come out of a fastMRI file.

    From the ISMRMRD header, where there is one: its encoded space has the oversampled field of view of ``kspace``, its
    reconstructed space what is kept (the pixels stay those of the encoded space). Without a header the size of
    ``reconstruction_rss`` or ``reconstruction_esc``, if any, is what is kept. The files do not hold an orientation.

    Args:
        file: open file.
        shape: (H, W) of ``kspace``.
        index: of the slice.

    Returns:
        4x4 affine in mm of the whole field of view, where it comes from, and the rows and columns to keep.
    """
    header, encoding = header_text(file), header_encoding(file)
    if encoding is not None:
        pixel, kept = [], []
        for axis, n in enumerate(shape):
            encoded, recon = ((s.matrix[axis], s.fov[axis]) for s in (encoding.encoded, encoding.recon))
            if n == recon[0] != encoded[0]:  # oversampling is removed already
                encoded = recon
            pixel.append(encoded[1] / n)
            kept.append(cut_size(n, encoded[1], *recon))
        return unplaced_affine(*pixel, encoding.recon.fov[2], index), _KNOWN, (kept[0], kept[1])
    images = [getattr(file.get(key), "shape", None) or () for key in RECONSTRUCTIONS]
    kept = next((image[-2:] for image in images if len(image) >= 2), shape)
    kept = (min(int(kept[0]), shape[0]), min(int(kept[1]), shape[1]))
    kept = kept if min(kept) > 0 else shape
    space = re.search(r"<encodedSpace>.*?<fieldOfView_mm>(.*?)</fieldOfView_mm>", header, re.DOTALL)
    sizes = re.findall(r"<[xyz]>\s*(\d+(?:\.\d*)?)\s*</[xyz]>", space.group(1)) if space else []
    if len(sizes) == 3 and all(float(size) > 0 for size in sizes):
        x, y, z = map(float, sizes)
        return unplaced_affine(x / shape[0], y / shape[1], z, index), _KNOWN, kept
    return unplaced_affine(1.0, 1.0, 1.0, index), "unknown: 1 mm voxels assumed", kept
