from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import open_hdf5
from disinr_monai.data.readers.ismrmrd_acquisitions import IsmrmrdScan, find_ismrmrd, open_ismrmrd
from disinr_monai.data.readers.kspace import (
    RawScan,
    checked_slice,
    is_fully_sampled,
    prewhiten,
    remove_oversampling,
    unplaced_affine,
)
from disinr_monai.errors import InputError
from disinr_monai.grid import centre_block

_MOST_ACCELERATION = 64
_FEW, _FEW_IN_ALL = 2**20, 2**25  # samples that are always allowed: a coil, all coils


def ismrmrd_summary(file: Any, path: str | Path) -> tuple[int, bool]:
    """Number of slices of an open file, and whether the scan is Cartesian and fully sampled, from the headers alone."""
    scan = open_ismrmrd(find_ismrmrd(file), path, first=True)
    numbers, is_volume = _slices(scan)
    n_slices = scan.cut(2) if is_volume else len(numbers)
    if scan.encoding.trajectory != "cartesian":
        return n_slices, False
    shape = scan.encoding.encoded.matrix
    first = scan.imaging if is_volume else _of_slice(scan, scan.imaging, numbers[len(numbers) // 2])
    _check_matrix(scan, first, shape[2] if is_volume else 1)
    mask = np.zeros(shape[:2], bool)
    for head, line in zip(scan.heads[first], _places(scan, first, 0), strict=True):
        rows, _ = _readout(head, shape[0])
        mask[rows, line] = True
    return n_slices, is_fully_sampled(mask)


def read_ismrmrd(path: str | Path, slice_index: int | None = None, select: Mapping[str, int] | None = None) -> RawScan:
    """Read one slice of an ISMRMRD file (Inati et al., Magn. Reson. Med. 77:411, 2017).

    A line lies at ``kspace_encode_step_1 - center + N // 2`` (``center`` of the encoding limits, N the encoded matrix),
    its sample ``center_sample`` in the middle of the readout (0 is taken as not given). Lines at one place are averaged
    (averages, segments). Reversed lines are turned round; their ``center_sample`` counts as in a forward one. Readout
    oversampling is removed where the readout is complete; with an asymmetric echo it stays until the image is cut.
    Noise measurements prewhiten the coils. Embedded calibration lines belong to the image, separate ones only serve the
    coil maps. A 3-D Cartesian scan is transformed along its partitions.

    Trajectories may be in cycles per pixel (up to 0.5), radians per pixel (up to π) or cycles per field of view.

    Raises:
        InputError: damaged headers or samples, several contrasts, phases, repetitions or sets without ``select``, lines
            outside the matrix, a 3-D scan with missing partitions, a trajectory in other units.
    """
    with open_hdf5(path) as file:
        return _read(open_ismrmrd(find_ismrmrd(file), path, select), slice_index)


def _read(scan: IsmrmrdScan, slice_index: int | None) -> RawScan:
    numbers, is_volume = _slices(scan)
    n_slices = scan.cut(2) if is_volume else len(numbers)
    index = checked_slice(slice_index, n_slices, scan.path)
    chosen = scan.imaging if is_volume else _of_slice(scan, scan.imaging, numbers[index])
    mask, trajectory, calibration, is_full = None, None, None, False
    if scan.encoding.trajectory != "cartesian":
        kspace, trajectory, shape = _non_cartesian(scan, chosen, is_volume)
    else:
        if is_volume:
            slab, mask = _slab(scan)
            kspace = slab[..., index]
        else:
            kspace, mask = _assemble(scan, chosen)
            lines = _of_slice(scan, scan.calibration, numbers[index])
            calibration = _assemble(scan, lines)[0] if len(lines) else None
        shape, is_full = kspace.shape[1:], is_fully_sampled(mask)
    if not kspace.any():
        raise InputError(f"{scan.path}: expected measured samples, found all zero in slice {index}")
    affine, geometry = slice_affine(scan, index, numbers, is_volume, shape)
    info = {"format": "ismrmrd_hdf5", "slice": index, "n_slices": n_slices, "geometry": geometry}
    info |= {"trajectory": scan.encoding.trajectory, **scan.settings}
    if "unknown" in geometry:
        info["unverified"] = ["orientation (the acquisitions hold no usable directions and position)"]
    if len(scan.noise):
        noise = [s.transpose(1, 0, 2).reshape(s.shape[1], -1) for _, s, _ in scan.lines(scan.noise)]
        if {len(part) for part in noise} != {len(kspace)}:
            raise InputError(f"{scan.path}: expected noise of {len(kspace)} coils, found others; remove the noise scan")
        noise = np.concatenate(noise, axis=1)
        kspace, info["prewhitened"] = prewhiten(kspace, None, noise, scan.path)[0], True
        if calibration is not None:
            calibration = prewhiten(calibration, None, noise, scan.path)[0]
    crop = (min(scan.cut(0), shape[0]), min(scan.cut(1), shape[1]))
    return RawScan(kspace, shape, affine, info, mask, trajectory, is_full, calibration=calibration, crop=crop)


def _slices(scan: IsmrmrdScan) -> tuple[list[int], bool]:
    """Slice numbers of the scan, and whether its slices are partitions of one slab."""
    idx = scan.heads["idx"][scan.imaging]
    numbers = np.unique(idx["slice"]).tolist()
    is_volume = scan.encoding.encoded.matrix[2] > 1 and len(np.unique(idx["kspace_encode_step_2"])) > 1
    if is_volume and len(numbers) > 1:
        raise InputError(f"{scan.path}: expected one 3-D slab, found {len(numbers)}; write one file a slab")
    return numbers, is_volume


def _of_slice(scan: IsmrmrdScan, chosen: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    return chosen[scan.heads["idx"]["slice"][chosen] == number]


def _places(scan: IsmrmrdScan, chosen: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Positions of lines (``step`` 0) or partitions (1) in the encoded matrix."""
    n, centre = scan.encoding.encoded.matrix[1 + step], scan.encoding.centres[step]
    name = f"kspace_encode_step_{1 + step}"
    counters = scan.heads["idx"][name][chosen].astype(int)
    places = counters + (0 if centre is None else n // 2 - centre)
    if len(places) and not (0 <= places.min() and places.max() < n):
        raise InputError(
            f"{scan.path}: expected {name} within the encoded matrix of {n} (centre {centre}), found "
            f"{counters.min()} to {counters.max()}"
        )
    return places


def _readout(head: NDArray, n: int) -> tuple[slice, slice]:
    """Rows of the matrix that one line fills, and which of its kept samples go there."""
    n_samples, before = int(head["number_of_samples"]), int(head["discard_pre"])
    centre = int(head["center_sample"]) or n_samples // 2
    start = n // 2 - centre + before
    stop = start + n_samples - before - int(head["discard_post"])
    rows = slice(min(max(start, 0), n), max(min(stop, n), 0))
    return rows, slice(rows.start - start, rows.stop - start)


def _assemble(
    scan: IsmrmrdScan, chosen: NDArray[np.int64], volume: bool = False
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """k-space ``(coil, H, W)`` or ``(coil, H, W, partition)``, averaged, and which samples were measured."""
    n_rows, n_lines, n_partitions = scan.encoding.encoded.matrix
    n_partitions = n_partitions if volume else 1
    heads = scan.heads[chosen]
    n_coils = int(heads["active_channels"][0])
    if (heads["active_channels"] != n_coils).any() or n_coils == 0:
        raise InputError(f"{scan.path}: expected one number of coils, found {np.unique(heads['active_channels'])}")
    _check_matrix(scan, chosen, n_partitions)
    complete = all(_readout(head, n_rows)[0] == slice(0, n_rows) for head in _distinct(heads))
    n_kept = scan.cut(0) if complete else n_rows
    lines, partitions = _places(scan, chosen, 0), _places(scan, chosen, 1) if volume else np.zeros(len(chosen), int)
    grid = None
    count = np.zeros((n_kept, n_lines, n_partitions), np.int32)
    at = 0
    for block, samples, _ in scan.lines(chosen):
        if grid is None:  # not before samples of so many coils have been found
            grid = np.zeros((n_coils, n_kept, n_lines, n_partitions), np.complex64)
        rows, taken = _readout(block[0], n_rows)
        placed = np.zeros((*samples.shape[:2], n_rows), np.complex64)
        placed[..., rows] = samples[..., taken]
        rows = slice(0, n_kept) if complete else rows
        if n_kept < n_rows:
            placed = remove_oversampling(placed, n_kept, axis=-1)
        for values in placed:
            grid[:, :, lines[at], partitions[at]] += values
            count[rows, lines[at], partitions[at]] += 1
            at += 1
    grid /= np.maximum(count, 1)
    return (grid, count > 0) if volume else (grid[..., 0], count[..., 0] > 0)


def _check_matrix(scan: IsmrmrdScan, chosen: NDArray[np.int64], n_partitions: int) -> None:
    """Refuse a matrix that the samples could never fill, before memory is asked for: a header can announce anything."""
    n_rows, n_lines, _ = scan.encoding.encoded.matrix
    heads = scan.heads[chosen]
    n_coils = max(int(heads["active_channels"].max(initial=0)), 1)
    announced = int(heads["number_of_samples"].astype(int).sum())
    held = Path(scan.path).stat().st_size // (8 * n_coils)  # samples are stored as they are, never compressed
    few = min(_FEW, _FEW_IN_ALL // n_coils)
    if n_rows * n_lines * n_partitions > max(_MOST_ACCELERATION * min(announced, held), few):
        raise InputError(
            f"{scan.path}: expected an encoded matrix that the {min(announced, held)} samples can fill, found "
            f"{n_rows} x {n_lines} x {n_partitions}"
        )


def _distinct(heads: NDArray) -> NDArray:
    keys = np.stack([heads[k] for k in ("number_of_samples", "discard_pre", "discard_post", "center_sample")], axis=1)
    return heads[np.unique(keys, axis=0, return_index=True)[1]]


# The 3-D scan read last: its slices are asked for one after the other.
_LAST: dict[tuple[Any, ...], tuple[NDArray[np.complex64], NDArray[np.bool_]]] = {}


def _slab(scan: IsmrmrdScan) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """A 3-D scan, transformed along its partitions, and the sampling mask that they share."""
    key = (scan.path, Path(scan.path).stat().st_mtime_ns, *sorted(scan.settings.items()))
    if key not in _LAST:
        _LAST.clear()
        grid, mask = _assemble(scan, scan.imaging, volume=True)
        if (mask != mask[..., :1]).any():
            n_missing = int((mask.any((0, 1)) == 0).sum())
            found = f"{n_missing} of {mask.shape[-1]} missing" if n_missing else "lines that lack some partitions"
            raise InputError(
                f"{scan.path}: expected a 3-D scan with every partition of every measured line, found {found}; "
                "undersampling along partitions is not supported"
            )
        slab = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(grid, axes=-1), axis=-1, norm="ortho"), axes=-1)
        _LAST[key] = slab[..., centre_block(grid.shape[-1], scan.cut(2))].astype(np.complex64), mask[..., 0]
    return _LAST[key]


def _non_cartesian(
    scan: IsmrmrdScan, chosen: NDArray[np.int64], is_volume: bool
) -> tuple[NDArray[np.complex64], NDArray[np.float64], tuple[int, int]]:
    shape = scan.encoding.encoded.matrix[:2]
    _check_matrix(scan, chosen, 1)
    parts = list(scan.lines(chosen))
    sizes = {(s.shape[1:], t.shape[1:]) for _, s, t in parts}
    if len(sizes) != 1 or parts[0][2].shape[-1] < 2:
        raise InputError(
            f"{scan.path}: expected {scan.encoding.trajectory} readouts of one size with a 2-D trajectory, "
            f"found {sorted(sizes)[:4]} (coils, samples), (samples, dimensions)"
        )
    trajectory = np.concatenate([t for _, _, t in parts]).astype(np.float64)
    if is_volume or (trajectory.shape[-1] > 2 and scan.encoding.encoded.matrix[2] > 1):
        raise InputError(f"{scan.path}: expected a 2-D {scan.encoding.trajectory} scan, found a 3-D one")
    trajectory = trajectory[..., :2]
    reach = float(np.abs(trajectory).max()) if np.isfinite(trajectory).all() else np.nan
    half = np.asarray(shape) / 2
    if reach <= 0.52:
        trajectory = trajectory * shape
    elif 2.5 < reach <= np.pi * 1.04:
        trajectory = trajectory * half / np.pi
    elif not 4 < reach <= half.max() * 1.04:
        raise InputError(
            f"{scan.path}: `traj` must be in cycles per pixel (up to 0.5), radians (up to π) or cycles per field of "
            f"view (up to {half.max():g}), found up to {reach:.4g}"
        )
    trajectory = np.clip(trajectory, -half, half)
    kspace = np.concatenate([s for _, s, _ in parts]).transpose(1, 0, 2)
    return np.ascontiguousarray(kspace), trajectory, (int(shape[0]), int(shape[1]))


_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def slice_affine(
    scan: IsmrmrdScan, index: int, numbers: list[int], is_volume: bool, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], str]:
    r"""Affine (RAS mm) of one slice ``(H, W)``: rows along the readout, columns along the phase encoding.

    ``position`` (patient coordinates, LPS mm) is the middle of the slice or slab; the pixel ``n // 2``, where the
    transform has its centre, lies there.

    Args:
        scan: of :func:`~disinr_monai.data.readers.ismrmrd_acquisitions.open_ismrmrd`.
        index: of the slice.
        numbers: the scan's slice counters.
        is_volume: slices are partitions of one slab.
        shape: (H, W) over the encoded pixel size.

    Returns:
        The affine, and where it comes from.
    """
    encoded = scan.encoding.encoded
    pixel = np.array([encoded.fov[0] / encoded.matrix[0], encoded.fov[1] / encoded.matrix[1]])
    thickness = encoded.fov[2] / encoded.matrix[2] if is_volume else scan.encoding.recon.fov[2]
    heads = [scan.heads[_of_slice(scan, scan.imaging, number)[0]] for number in numbers]
    head = heads[0 if is_volume else index]
    directions = np.stack([np.asarray(head[key], float) for key in ("read_dir", "phase_dir", "slice_dir")], axis=1)
    position = np.asarray(head["position"], float)
    affine = np.eye(4)
    known = np.isfinite(directions).all() and np.isfinite(position).all()
    if not known or not np.allclose(directions.T @ directions, np.eye(3), atol=0.02):
        return unplaced_affine(*pixel, thickness, index), "field of view of the ISMRMRD header; orientation unknown"
    if is_volume:
        position = position + directions[:, 2] * thickness * (index - scan.cut(2) // 2)
    elif len(heads) > 1:
        heights = np.sort([np.asarray(h["position"], float) @ directions[:, 2] for h in heads])
        steps = np.diff(heights)
        if np.isfinite(steps).all() and steps.min() > 1e-3:
            thickness = float(np.median(steps))
    directions, position = _LPS_TO_RAS @ directions, _LPS_TO_RAS @ position
    affine[:3, :3] = directions * [*pixel, thickness]
    affine[:3, 3] = position - affine[:3, :2] @ (np.asarray(shape) // 2)
    return affine, "position and directions of the ISMRMRD acquisitions"
