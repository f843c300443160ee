"""Positions of ISMRMRD acquisitions: samples in their readout, lines in their slice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.ismrmrd_header import Encoding, Space
from disinr_monai.errors import InputError

ORDERS = ("forward", "acquired", "turned")
_REVERSE = 22
_MOST_OVERSAMPLING = 4
_MOST_ACCELERATION = 64
_FEW, _FEW_IN_ALL = 2**20, 2**25  # samples that are always allowed: a coil, all coils
_MOST_PLACES = 4096
_FEWEST_LINES = 4  # of a slice that is told apart by its position


def is_reversed(heads: NDArray) -> NDArray[np.int64]:
    """1 for acquisitions that were read out from the other end, else 0."""
    return ((heads["flags"] >> np.uint64(_REVERSE - 1)) & np.uint64(1)).astype(int)


def readout_window(head: NDArray, order: str) -> tuple[slice, int, bool]:
    """Which stored samples of a readout are kept, and where its centre lies.

    Converters write reversed readouts in three ways, which differ in nothing but the data.

    Args:
        head: of one acquisition, or of many.
        order: of reversed ones: ``"forward"``: stored as acquired, ``center_sample`` and the discarded samples counted
            as in a forward readout; ``"acquired"``: stored and counted as acquired; ``"turned"``: turned round by the
            converter already.

    Returns:
        The stored samples that are kept, the place of the central one among them once they are in the order of a
        forward readout, and whether they have to be turned round for that.
    """
    n_samples, before, after = (int(head[key]) for key in ("number_of_samples", "discard_pre", "discard_post"))
    centre = int(head["center_sample"]) or n_samples // 2
    is_turned = bool(is_reversed(head)) and order != "turned"
    if is_turned and order == "forward":
        return slice(after, n_samples - before), centre - before, True
    if is_turned:
        return slice(before, n_samples - after), n_samples - 1 - centre - after, True
    return slice(before, n_samples - after), centre - before, False


def readout_rows(head: NDArray, n: int, order: str, path: str | Path) -> tuple[slice, slice]:
    """Rows of the encoded matrix that one readout fills, and which of its kept samples go there.

    One sample beyond the matrix is the other way to count the middle of an even readout.

    Raises:
        InputError: more samples beyond the matrix.
    """
    kept, centre, _ = readout_window(head, order)
    start = n // 2 - centre
    stop = start + kept.stop - kept.start
    rows = slice(max(start, 0), min(stop, n))
    if rows.start - start + stop - rows.stop > 1 or rows.stop <= rows.start:
        raise InputError(
            f"{path}: expected readouts within the encoded matrix of {n}, found {stop - start} samples with "
            f"center_sample {head['center_sample']}, which would fill {start} to {stop - 1}; mend "
            "encodedSpace, center_sample, or discard_pre and discard_post"
        )
    return rows, slice(rows.start - start, rows.stop - start)


def check_matrix(matrix: tuple[int, int], n_partitions: int, heads: NDArray, path: str | Path) -> None:
    """Refuse a matrix that the samples could never fill, before memory is asked for: a header can announce anything."""
    n_rows, n_lines = matrix
    n_coils = max(int(heads["active_channels"].max(initial=0)), 1)
    announced = int(heads["number_of_samples"].astype(int).sum())
    held = Path(path).stat().st_size // (8 * n_coils)  # samples are stored as they are, never compressed
    few = min(_FEW, _FEW_IN_ALL // n_coils)
    if n_rows * n_lines * n_partitions > max(_MOST_ACCELERATION * min(announced, held), few):
        raise InputError(
            f"{path}: expected an encoded matrix that the {min(announced, held)} samples can fill, found "
            f"{n_rows} x {n_lines} x {n_partitions}"
        )


def distinct_readouts(heads: NDArray) -> NDArray:
    """One header of every size, centre and direction of readout."""
    keys = [heads[key] for key in ("number_of_samples", "discard_pre", "discard_post", "center_sample")]
    return heads[np.unique(np.stack([*keys, is_reversed(heads)], axis=1), axis=0, return_index=True)[1]]


def encoded_readout(encoding: Encoding, heads: NDArray, path: str | Path) -> tuple[Encoding, tuple[str, ...]]:
    """The encoding that Cartesian readouts were measured with, where the header has that of the image, and a note.

    * Readouts a whole number of times as long as the matrix of a header that knows no oversampling, or as long as its
      encoded field of view over the reconstructed pixel: oversampled, with a header of the base resolution.
    * Readouts as long as the reconstructed matrix, where the encoded one is larger by the ratio of the fields of view:
      oversampling has been removed.
    """
    if encoding.trajectory != "cartesian" or len(heads) == 0:
        return encoding, ()
    (n, fov), (n_recon, fov_recon) = ((s.matrix[0], s.fov[0]) for s in (encoding.encoded, encoding.recon))
    windows = [readout_window(head, "forward")[:2] for head in distinct_readouts(heads)]
    reach = max(max(2 * centre, 2 * (kept.stop - kept.start - centre)) for kept, centre in windows)
    longest = max(kept.stop - kept.start for kept, _ in windows)
    pixel = fov_recon / n_recon
    if reach > n + 2:
        full = max(round(reach / n), 1) * n
        if full == n or full > _MOST_OVERSAMPLING * n or abs(reach - full) > 2:
            full = round(fov / pixel)
        knows_none = n == n_recon and abs(fov / fov_recon - 1) < 0.01
        if abs(reach - full) > 2 or not (knows_none or abs(fov / (full * pixel) - 1) < 0.01):
            return encoding, ()  # refused where its samples are placed
        note = f"readouts of {longest} samples for an encoded matrix of {n} are {full / n:g}-fold oversampled ones"
        return _with_readout(encoding, full, full * pixel), (note,)
    removed = longest == n_recon < n and abs(n / n_recon / (fov / fov_recon) - 1) < 0.01
    if removed and n >= 1.5 * n_recon and all(abs(2 * centre - longest) <= 2 for _, centre in windows):
        note = f"oversampling of the readout ({n} to {n_recon} samples) had been removed"
        return _with_readout(encoding, n_recon, fov_recon), (note,)
    return encoding, ()


def _with_readout(encoding: Encoding, n: int, fov: float) -> Encoding:
    matrix, sizes = encoding.encoded.matrix, encoding.encoded.fov
    return replace(encoding, encoded=Space((n, *matrix[1:]), (fov, *sizes[1:])))


def slices_by_position(
    heads: NDArray, imaging: NDArray[np.int64], encoding: Encoding, path: str | Path
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The slice of every acquisition: its counter or, where nothing was counted, its place along the normal.

    Args:
        heads: of all acquisitions.
        imaging: numbers of those that make the image.
        encoding: of these.
        path: for messages.

    Returns:
        Slice numbers ``(n,)``, and a note if they are not the counters. An acquisition of no such place has -1.

    Raises:
        InputError: lines of one slice at several positions that cannot be sorted.
    """
    counters = heads["idx"]["slice"].astype(int)
    thickness = encoding.recon.fov[2]
    where, tolerance = _frames(heads, encoding.trajectory == "cartesian", min(0.1, 0.1 * thickness))
    found = {}
    for number in np.unique(counters[imaging]).tolist():
        found[number] = _groups(where, imaging[counters[imaging] == number], tolerance)
        if len(found[number]) > 1 and len(np.unique(counters[imaging])) > 1:
            raise _mixed(path, f"slice {number}", len(found[number]))
    places = next(iter(found.values()), [])
    if len(places) < 2:
        return counters, ()
    first = where[[lines[0] for lines in places]]
    offsets = first[:, :3] - first[0, :3]
    normal = np.nan_to_num(np.asarray(heads["slice_dir"][places[0][0]], float))
    if np.linalg.norm(normal) < 0.5:  # not given
        normal = offsets[np.linalg.norm(offsets, axis=1).argmax()]
        normal = normal / max(np.linalg.norm(normal), 1e-9)
    heights = offsets @ normal
    steps = heads["idx"]["kspace_encode_step_1"]
    n_lines = [len(np.unique(steps[lines])) for lines in places]
    is_slab = encoding.encoded.matrix[2] > 1 and len(np.unique(heads["idx"]["kspace_encode_step_2"][imaging])) > 1
    turned = np.abs(first[:, 3:] - first[0, 3:]).max() > tolerance[-1]
    few = min(n_lines) < max(_FEWEST_LINES, max(n_lines) / 2)
    if is_slab or turned or few or np.diff(np.sort(heights)).min() <= tolerance[0]:
        raise _mixed(path, f"slice {next(iter(found))}", len(places))
    order = np.argsort(heights)
    labels = np.full(len(heads), -1)
    for number, place in enumerate(order):
        labels[(np.abs(where - first[place]) <= tolerance).all(1)] = number
        labels[places[place]] = number
    note = f"the slice counter is {next(iter(found))} everywhere: {len(places)} slices sorted by their position"
    return labels, (note,)


def _mixed(path: str | Path, name: str, n: int) -> InputError:
    return InputError(
        f"{path}: expected the lines of {name} at one position with one orientation, found them at {n}; count the "
        "slices in idx.slice, or write one file an orientation"
    )


def _frames(heads: NDArray, with_rows: bool, tolerance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position and directions ``(n, 3 + ...)`` of every acquisition, and how far equal ones may lie apart."""
    directions = ("read_dir", "phase_dir", "slice_dir") if with_rows else ("slice_dir",)
    where = np.concatenate([np.asarray(heads[key], float) for key in ("position", *directions)], axis=1)
    return np.nan_to_num(where), np.array([tolerance] * 3 + [3e-3] * (where.shape[1] - 3))


def _groups(where: NDArray, numbers: NDArray[np.int64], tolerance: NDArray) -> list[NDArray[np.int64]]:
    """Acquisitions that lie at one place, of every place."""
    groups = []
    while len(numbers) and len(groups) < _MOST_PLACES:
        near = (np.abs(where[numbers] - where[numbers[0]]) <= tolerance).all(1)
        groups.append(numbers[near])
        numbers = numbers[~near]
    return groups
