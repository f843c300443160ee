from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import open_hdf5
from disinr_monai.data.readers.ismrmrd_acquisitions import IsmrmrdScan, find_ismrmrd, open_ismrmrd
from disinr_monai.data.readers.ismrmrd_affine import slice_affine
from disinr_monai.data.readers.ismrmrd_places import (
    check_matrix,
    distinct_readouts,
    is_reversed,
    readout_rows,
    readout_window,
)
from disinr_monai.data.readers.ismrmrd_reversed import Reversal, corrections_of, find_reversal
from disinr_monai.data.readers.kspace import (
    RawScan,
    check_centre,
    checked_slice,
    is_fully_sampled,
    normalised,
    prewhiten,
    remove_oversampling,
)
from disinr_monai.errors import InputError
from disinr_monai.grid import centre_block

logger = logging.getLogger(__name__)
_NEXT_TO_NONE = 0.05  # samples of delay
_EDGE = 0.5  # cells of k-space beyond which a sample does not lie at the edge


def ismrmrd_summary(file: Any, path: str | Path) -> tuple[int, bool]:
    """Number of slices of an open file, and whether the scan is Cartesian and fully sampled, from the headers alone."""
    scan = open_ismrmrd(find_ismrmrd(file), path, first=True)
    numbers, is_volume = _slices(scan)
    if said := [*scan.notes, *_left_out(scan.left_out)]:
        logger.info("%s: %s", path, ", ".join(said))
    n_slices = scan.cut(2) if is_volume else len(numbers)
    if scan.encoding.trajectory != "cartesian":
        return n_slices, False
    shape = scan.encoding.encoded.matrix
    first = scan.imaging if is_volume else scan.of_slice(scan.imaging, numbers[len(numbers) // 2])
    check_matrix(shape[:2], shape[2] if is_volume else 1, scan.heads[first], path)
    mask = np.zeros(shape[:2], bool)
    for head, line in zip(scan.heads[first], _places(scan, first, 0), strict=True):
        rows, _ = readout_rows(head, shape[0], "forward", path)
        mask[rows, line] = True
    return n_slices, is_fully_sampled(mask)


def read_ismrmrd(path: str | Path, slice_index: int | None = None, select: Mapping[str, int] | None = None) -> RawScan:
    """Read one slice of an ISMRMRD file (Inati et al., Magn. Reson. Med. 77:411, 2017).

    A line lies at ``kspace_encode_step_1 - center + N // 2`` (``center`` of the encoding limits, N the encoded matrix),
    its sample ``center_sample`` in the middle of the readout (0 is taken as not given). Lines at one place are averaged
    (averages, segments) if position and directions agree; slices that were not counted are told apart by position.
    Reversed lines become forward ones (:func:`~disinr_monai.data.readers.ismrmrd_reversed.find_reversal`). Readout
    oversampling is removed where the readout is complete; with an asymmetric echo it stays until the image is cut.
    Noise measurements prewhiten the coils. Embedded calibration lines belong to the image, separate ones only serve the
    coil maps. A 3-D Cartesian scan is transformed along its partitions.

    Trajectories may be in cycles per pixel (up to 0.5), radians per pixel (up to π) or cycles per field of view.

    Raises:
        InputError: damaged headers or samples, several contrasts, phases, repetitions or sets without ``select``, lines
            or samples outside the matrix, lines of several positions, reversed lines that disagree with forward ones, a
            3-D scan with missing partitions, zero frequency in the corner, a trajectory in other units.
    """
    with open_hdf5(path) as file:
        return _read(open_ismrmrd(find_ismrmrd(file), path, select), slice_index)


def _read(scan: IsmrmrdScan, slice_index: int | None) -> RawScan:
    numbers, is_volume = _slices(scan)
    n_slices = scan.cut(2) if is_volume else len(numbers)
    index = checked_slice(slice_index, n_slices, scan.path)
    chosen = scan.imaging if is_volume else scan.of_slice(scan.imaging, numbers[index])
    mask, trajectory, calibration, is_full = None, None, None, False
    left_out, notes, unverified = dict(scan.left_out), list(scan.notes), []
    if scan.encoding.trajectory != "cartesian":
        kspace, trajectory, shape, moved = _non_cartesian(scan, chosen, is_volume)
        notes += moved
    else:
        if is_volume:
            slab, mask, reversal, n_cut = _slab(scan)
            kspace = slab[..., index]
        else:
            reversal = _reversal(scan, chosen, numbers[index])
            kspace, mask, n_cut = _assemble(scan, chosen, reversal)
            lines = scan.of_slice(scan.calibration, numbers[index])
            if len(lines):
                calibration = _assemble(scan, lines, _reversal(scan, lines, numbers[index]))[0]
        shape, is_full = kspace.shape[1:], is_fully_sampled(mask)
        notes += [reversal.note] if reversal.note else []
        if reversal.n_corrections:
            left_out.pop("phase-correction", None)
        elif len(np.unique(is_reversed(scan.heads[chosen]))) == 2:
            unverified.append("phase of the reversed lines (no phase-correction lines)")
        if n_cut:
            left_out["last sample of a readout, beyond the matrix"] = n_cut
        if (scan.heads["center_sample"][chosen] == 0).all():
            notes.append("center_sample is 0 everywhere: the middle of the readout is taken for its centre")
    if len(scan.calibration) and (is_volume or trajectory is not None):
        left_out["calibration"] = len(scan.calibration)
    if not kspace.any():
        raise InputError(f"{scan.path}: expected measured samples, found all zero in slice {index}")
    if mask is not None:
        check_centre(kspace, mask, scan.path)
    affine, geometry = slice_affine(scan, index, numbers, is_volume, shape)
    info = {"format": "ismrmrd_hdf5", "slice": index, "n_slices": n_slices, "geometry": geometry}
    info |= {"trajectory": scan.encoding.trajectory, **scan.settings}
    if left_out:
        info["left_out"] = left_out
        notes += _left_out(left_out)
    if notes:
        info["read_as"] = ", ".join(notes)
    if "unknown" in geometry:
        unverified.append("orientation (the acquisitions hold no usable directions and position)")
    if unverified:
        info["unverified"] = unverified
    if len(scan.noise):
        noise = [s.transpose(1, 0, 2).reshape(s.shape[1], -1) for _, s, _ in scan.lines(scan.noise)]
        if {len(part) for part in noise} != {len(kspace)}:
            raise InputError(f"{scan.path}: expected noise of {len(kspace)} coils, found others; remove the noise scan")
        noise = np.concatenate(noise, axis=1)
        kspace, info["prewhitened"] = prewhiten(kspace, None, noise, scan.path)[0], True
        if calibration is not None:
            calibration = prewhiten(calibration, None, noise, scan.path)[0]
    kspace, unit = normalised(kspace)
    if calibration is not None:
        calibration = (calibration / unit).astype(np.complex64)
    crop = (min(scan.cut(0), shape[0]), min(scan.cut(1), shape[1]))
    return RawScan(
        kspace, shape, affine, info, mask, trajectory, is_full, calibration=calibration, crop=crop, unit=unit
    )


def _left_out(counts: Mapping[str, int]) -> list[str]:
    return [f"left out: {', '.join(f'{count} x {kind}' for kind, count in counts.items())}"] if counts else []


def _slices(scan: IsmrmrdScan) -> tuple[list[int], bool]:
    """Slice numbers of the scan, and whether its slices are partitions of one slab."""
    numbers = np.unique(scan.slices[scan.imaging]).tolist()
    n_partitions = len(np.unique(scan.heads["idx"]["kspace_encode_step_2"][scan.imaging]))
    is_volume = scan.encoding.encoded.matrix[2] > 1 and n_partitions > 1
    if n_partitions > 1 and not is_volume and scan.encoding.trajectory == "cartesian":
        raise InputError(
            f"{scan.path}: expected one kspace_encode_step_2 of an encoded matrix with z = 1, found {n_partitions}; "
            "mend encodedSpace of a 3-D scan, or count slices in idx.slice"
        )
    if is_volume and len(numbers) > 1:
        raise InputError(f"{scan.path}: expected one 3-D slab, found {len(numbers)}; write one file a slab")
    return numbers, is_volume


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


def _reversal(scan: IsmrmrdScan, chosen: NDArray[np.int64], number: int) -> Reversal:
    return find_reversal(scan, chosen, _places(scan, chosen, 0), corrections_of(scan, chosen, number))


def _assemble(
    scan: IsmrmrdScan, chosen: NDArray[np.int64], reversal: Reversal, volume: bool = False
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], int]:
    """k-space ``(coil, H, W)`` or ``(coil, H, W, partition)``, averaged, the mask, and samples beyond the matrix."""
    n_rows, n_lines, n_partitions = scan.encoding.encoded.matrix
    n_partitions = n_partitions if volume else 1
    heads = scan.heads[chosen]
    n_coils = int(heads["active_channels"][0])
    if (heads["active_channels"] != n_coils).any() or n_coils == 0:
        raise InputError(f"{scan.path}: expected one number of coils, found {np.unique(heads['active_channels'])}")
    check_matrix(scan.encoding.encoded.matrix[:2], n_partitions, heads, scan.path)
    windows = [readout_window(head, reversal.order)[0] for head in distinct_readouts(heads)]
    complete = all(kept.stop - kept.start >= n_rows for kept in windows)
    n_kept = scan.cut(0) if complete else n_rows
    lines, partitions = _places(scan, chosen, 0), _places(scan, chosen, 1) if volume else np.zeros(len(chosen), int)
    turned, late = is_reversed(heads).astype(bool), reversal.delay(n_rows)
    grid = None
    count = np.zeros((n_kept, n_lines, n_partitions), np.int32)
    at = n_beyond = 0
    removed = energy = 0.0
    for rows, placed, lost in scan.placed_lines(chosen, reversal.order):
        if grid is None:  # not before samples of so many coils have been found
            grid = np.zeros((n_coils, n_kept, n_lines, n_partitions), np.complex64)
        if turned[at]:
            placed = reversal.apply(placed)
            if not complete:  # what the delay would fetch from beyond the readout was not measured
                before, after = (max(0, int(np.ceil(sign * late - _NEXT_TO_NONE))) for sign in (-1, 1))
                rows = slice(rows.start + before, rows.stop - after)
                placed[..., : rows.start] = placed[..., rows.stop :] = 0
        if n_kept < n_rows:
            whole = float(np.linalg.norm(placed))
            placed = remove_oversampling(placed, n_kept, axis=-1)
            removed, energy = removed + whole**2 - float(np.linalg.norm(placed)) ** 2, energy + whole**2
        rows = slice(0, n_kept) if complete else rows
        n_beyond += lost
        for values in placed:
            grid[:, :, lines[at], partitions[at]] += values
            count[rows, lines[at], partitions[at]] += 1
            at += 1
    if scan.is_oversampled and removed > 0.3 * energy * (1 - n_kept / n_rows):
        raise InputError(
            f"{scan.path}: expected readouts within the encoded matrix, or oversampled ones whose image is empty "
            f"outside the reconstructed field of view, found {100 * removed / energy:.0f} % of the signal there; mend "
            "encodedSpace"
        )
    grid /= np.maximum(count, 1)
    return (grid, count > 0, n_beyond) if volume else (grid[..., 0], count[..., 0] > 0, n_beyond)


# The 3-D scan read last: its slices are asked for one after the other.
_LAST: dict[tuple[Any, ...], tuple[NDArray[np.complex64], NDArray[np.bool_], Reversal, int]] = {}


def _slab(scan: IsmrmrdScan) -> tuple[NDArray[np.complex64], NDArray[np.bool_], Reversal, int]:
    """A 3-D scan, transformed along its partitions, the mask that they share, and as :func:`_assemble`."""
    key = (scan.path, Path(scan.path).stat().st_mtime_ns, *sorted(scan.settings.items()))
    if key not in _LAST:
        _LAST.clear()
        partitions = _places(scan, scan.imaging, 1)
        middle = np.abs(partitions - scan.encoding.encoded.matrix[2] // 2)
        reversal = _reversal(scan, scan.imaging[middle == middle.min()], -1)
        grid, mask, n_beyond = _assemble(scan, scan.imaging, reversal, volume=True)
        if (mask != mask[..., :1]).any():
            n_missing = int((mask.any((0, 1)) == 0).sum())
            found = f"{n_missing} of {mask.shape[-1]} missing" if n_missing else "lines that lack some partitions"
            raise InputError(
                f"{scan.path}: expected a 3-D scan with every partition of every measured line, found {found}; "
                "undersampling along partitions is not supported"
            )
        slab = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(grid, axes=-1), axis=-1, norm="ortho"), axes=-1)
        kept = slab[..., centre_block(grid.shape[-1], scan.cut(2))].astype(np.complex64)
        _LAST[key] = kept, mask[..., 0], reversal, n_beyond
    return _LAST[key]


def _non_cartesian(
    scan: IsmrmrdScan, chosen: NDArray[np.int64], is_volume: bool
) -> tuple[NDArray[np.complex64], NDArray[np.float64], tuple[int, int], list[str]]:
    shape = scan.encoding.encoded.matrix[:2]
    check_matrix(shape, 1, scan.heads[chosen], scan.path)
    parts = list(scan.lines(chosen, "acquired"))
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
    off = (np.abs(trajectory) - half).max(-1)
    if off.max() > _EDGE:
        raise InputError(
            f"{scan.path}: `traj` must stay within the encoded matrix of {shape[0]} x {shape[1]}, found "
            f"{100 * (off > _EDGE).mean():.2g} % of the samples beyond it; enlarge encodedSpace or leave them out"
        )
    n_moved = int((off > 0.01).sum())
    notes = [f"{n_moved} samples up to {off.max():.2f} cells beyond the matrix taken to its edge"] if n_moved else []
    trajectory = np.clip(trajectory, -half, half)
    kspace = np.concatenate([s for _, s, _ in parts]).transpose(1, 0, 2)
    return np.ascontiguousarray(kspace), trajectory, (int(shape[0]), int(shape[1])), notes
