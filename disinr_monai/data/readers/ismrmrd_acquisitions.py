from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import check_size
from disinr_monai.data.readers.ismrmrd_header import Encoding, parse_ismrmrd_header
from disinr_monai.data.readers.ismrmrd_places import (
    encoded_readout,
    is_reversed,
    readout_rows,
    readout_window,
    slices_by_position,
)
from disinr_monai.data.readers.kspace import cut_size
from disinr_monai.errors import InputError

COUNTERS = ("contrast", "phase", "repetition", "set")
_FIELDS = {"flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample", "idx"}
_FIELDS |= {"encoding_space_ref", "trajectory_dimensions", "position", "read_dir", "phase_dir", "slice_dir"}
_STEPS = ("kspace_encode_step_1", "kspace_encode_step_2", "slice")
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _PHASE_CORRECTION = 19, 20, 21, 24
_NO_IMAGE = {
    23: "navigation",
    _PHASE_CORRECTION: "phase-correction",
    26: "HP feedback",
    27: "dummy",
    28: "RT feedback",
    29: "surface-coil correction",
    30: "phase-stabilisation reference",
    31: "phase-stabilisation",
}
_BLOCK = 256


@dataclass(frozen=True)
class IsmrmrdScan:
    """Headers of one ISMRMRD group, read before any sample.

    Attributes:
        path: the file, for messages.
        data: the open dataset of acquisitions.
        heads: structured array of all acquisition headers.
        encoding: of the imaging acquisitions.
        imaging, calibration, noise: numbers of the acquisitions of each kind; lines that calibrate *and* belong to the
            image (all, with ``embedded`` calibration) are imaging ones.
        corrections: numbers of the phase-correction acquisitions.
        slices: slice of every acquisition.
        settings: the counters that were selected.
        left_out: number of acquisitions that nothing is made of, by kind.
        notes: what was decided from the data, as text.
        is_oversampled: the readouts were found to be longer than the header says.
    """

    path: str
    data: Any
    heads: NDArray
    encoding: Encoding
    imaging: NDArray[np.int64]
    calibration: NDArray[np.int64]
    noise: NDArray[np.int64]
    corrections: NDArray[np.int64]
    slices: NDArray[np.int64]
    settings: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_oversampled: bool = False

    def of_slice(self, chosen: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Select the acquisitions that belong to one slice."""
        return chosen[self.slices[chosen] == number]

    def cut(self, axis: int) -> int:
        """Pixels of the reconstructed field of view along readout, phase encoding or partition."""
        encoded, recon = self.encoding.encoded, self.encoding.recon
        return cut_size(encoded.matrix[axis], encoded.fov[axis], recon.matrix[axis], recon.fov[axis])

    def lines(
        self, chosen: NDArray[np.int64], order: str = "forward"
    ) -> Iterator[tuple[NDArray, NDArray[np.complex64], NDArray[np.float32]]]:
        """Headers, samples ``(n, coil, sample)`` and trajectories ``(n, sample, dimension)`` of some acquisitions.

        In blocks of consecutive acquisitions of one size and direction; samples are in the order of a forward readout,
        without those that the header discards.

        Args:
            chosen: their numbers.
            order: of reversed ones, see :func:`~disinr_monai.data.readers.ismrmrd_places.readout_window`.
        """
        heads = self.heads[chosen]
        keys = ("number_of_samples", "active_channels", "trajectory_dimensions", "discard_pre", "discard_post")
        changes = (np.diff(chosen) != 1) | (np.diff(heads["center_sample"]) != 0) | (np.diff(is_reversed(heads)) != 0)
        for key in keys:
            changes |= np.diff(heads[key].astype(int)) != 0
        for run in np.split(np.arange(len(chosen)), np.flatnonzero(changes) + 1):
            for part in np.split(run, range(_BLOCK, len(run), _BLOCK)):
                yield heads[part], *self._read(int(chosen[part[0]]), len(part), order)

    def placed_lines(self, chosen: NDArray[np.int64], order: str) -> Iterator[tuple[slice, NDArray[np.complex64], int]]:
        """Rows of the encoded matrix, samples ``(n, coil, matrix)``, and the number beyond it, as :meth:`lines`."""
        n = self.encoding.encoded.matrix[0]
        for heads, samples, _ in self.lines(chosen, order):
            rows, taken = readout_rows(heads[0], n, order, self.path)
            placed = np.zeros((*samples.shape[:2], n), np.complex64)
            placed[..., rows] = samples[..., taken]
            yield rows, placed, len(placed) * (samples.shape[-1] - (rows.stop - rows.start))

    def _read(self, start: int, n: int, order: str) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        head = self.heads[start]
        n_samples, n_coils, n_dims = (
            int(head[key]) for key in ("number_of_samples", "active_channels", "trajectory_dimensions")
        )
        block = self.data.fields(["data", "traj"] if n_dims else ["data"])[start : start + n]
        samples = _stacked(block["data"], 2 * n_samples * n_coils, self.path, start, "complex samples")
        samples = samples.view(np.complex64).reshape(n, n_coils, n_samples)
        if not np.isfinite(samples).all():
            raise InputError(f"{self.path}: acquisition {start}: samples must be finite, found NaN or infinite ones")
        trajectory = np.zeros((n, n_samples, 0), np.float32)
        if n_dims:
            trajectory = _stacked(block["traj"], n_samples * n_dims, self.path, start, "trajectory values")
            trajectory = trajectory.reshape(n, n_samples, n_dims)
        kept, _, is_turned = readout_window(head, order)
        if kept.stop <= kept.start:
            raise InputError(
                f"{self.path}: acquisition {start}: expected samples that are not discarded, found {n_samples} "
                f"with discard_pre {head['discard_pre']} and discard_post {head['discard_post']}"
            )
        samples, trajectory = samples[..., kept], trajectory[:, kept]
        if is_turned:
            samples, trajectory = samples[..., ::-1], trajectory[:, ::-1]
        return samples, trajectory


def has_ismrmrd(file: Any) -> bool:
    """Tell whether an open HDF5 file has a group with ``xml`` and acquisitions ``data`` with a ``head``."""
    return len(_ismrmrd_groups(file)) > 0


def find_ismrmrd(file: Any) -> Any:
    """The ISMRMRD group of an open HDF5 file that has one (:func:`has_ismrmrd`).

    Raises:
        InputError: several such groups and none is named ``dataset``.
    """
    found = _ismrmrd_groups(file)
    if len(found) > 1 and "dataset" not in found:
        raise InputError(f"{file.filename}: expected one ISMRMRD group, found {found}; keep one, named `dataset`")
    if not found:
        raise InputError(f"{file.filename}: expected an ISMRMRD group `dataset`, found keys {sorted(map(str, file))}")
    return file["dataset" if "dataset" in found else found[0]]


def _ismrmrd_groups(file: Any) -> list[str]:
    groups = {name: file.get(name) for name in file}
    groups = {name: group for name, group in groups.items() if hasattr(group, "keys") and {"xml", "data"} <= {*group}}
    types = {name: getattr(group["data"], "dtype", None) for name, group in groups.items()}
    return [name for name, dtype in types.items() if "head" in (getattr(dtype, "names", None) or ())]


def open_ismrmrd(
    group: Any, path: str | Path, select: Mapping[str, int] | None = None, first: bool = False
) -> IsmrmrdScan:
    """Read header and acquisition headers of an ISMRMRD group.

    Args:
        group: of :func:`find_ismrmrd`.
        path: for messages.
        select: which ``contrast``, ``phase``, ``repetition`` or ``set``, where there are several.
        first: take the first of those that are not selected.

    Raises:
        InputError: damaged or impossible headers, no imaging acquisitions, or several contrasts, phases, repetitions or
            sets of which none is selected.
    """
    check_size(group["xml"], path)
    xml = np.asarray(group["xml"][()]).reshape(-1)
    if len(xml) != 1 or not isinstance(xml[0], (bytes, str)):
        raise InputError(f"{path}: expected one ISMRMRD XML header `xml`, found {len(xml)} of type {xml.dtype}")
    encodings = parse_ismrmrd_header(xml[0], path)
    data = group["data"]
    check_size(data, path)
    lacking = _FIELDS - set(data.dtype["head"].names or ())
    if "idx" not in lacking:
        lacking |= {*_STEPS, *COUNTERS} - set(data.dtype["head"]["idx"].names or ())
    if data.ndim != 1 or lacking or data.dtype.names != ("head", "traj", "data"):
        without = f" without {', '.join(sorted(lacking))}" if lacking else ""
        raise InputError(f"{path}: expected ISMRMRD acquisitions (head, traj, data), found others{without}")
    heads = np.asarray(data.fields("head")[()])
    noise = _flag(heads, _NOISE)
    no_image = np.any([_flag(heads, bit) for bit in _NO_IMAGE], axis=0)
    usable = ~noise & ~no_image
    calibration = usable & _flag(heads, _CALIBRATION) & ~_flag(heads, _CALIBRATION_AND_IMAGING)
    reference = heads["encoding_space_ref"]
    numbers = sorted(set(reference[usable & ~calibration].tolist()))
    if len(numbers) != 1 or numbers[0] >= len(encodings):
        raise InputError(
            f"{path}: expected ISMRMRD imaging acquisitions of one encoding of the header (it has {len(encodings)}), "
            f"found those of {numbers or 'none'}"
        )
    encoding = encodings[numbers[0]]
    if encoding.calibration not in ("separate", "external", "other"):
        # Embedded lines have the contrast of the image and belong to it.
        calibration &= reference != numbers[0]
    fitting = calibration & [r < len(encodings) and encodings[r].encoded == encoding.encoded for r in reference]
    imaging, chosen = _select(heads, usable & ~calibration & (reference == numbers[0]), select or {}, path, first)
    encoding, readout = encoded_readout(encoding, heads[imaging], path)
    slices, sorting = slices_by_position(heads, imaging, encoding, path)
    corrections = np.flatnonzero(~noise & _flag(heads, _PHASE_CORRECTION))
    return IsmrmrdScan(
        str(path), data, heads, encoding, imaging, np.flatnonzero(fitting), np.flatnonzero(noise), corrections, slices,
        chosen, _left_out(heads, noise, calibration & ~fitting), (*readout, *sorting), bool(readout),
    )  # fmt: skip


def _left_out(heads: NDArray, noise: NDArray[np.bool_], calibration: NDArray[np.bool_]) -> dict[str, int]:
    """Number of acquisitions of every kind that makes no image; one of several kinds counts as the first."""
    counts, rest = {}, ~noise
    for bit, name in _NO_IMAGE.items():
        counts[name] = int((rest & _flag(heads, bit)).sum())
        rest &= ~_flag(heads, bit)
    counts["calibration of another matrix"] = int(calibration.sum())
    return {name: count for name, count in counts.items() if count}


def _select(
    heads: NDArray, imaging: NDArray[np.bool_], select: Mapping[str, int], path: str | Path, first: bool
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Imaging acquisitions of one contrast, phase, repetition and set."""
    if not isinstance(select, Mapping) or set(select) - set(COUNTERS):
        raise InputError(f"select: expected numbers for some of {', '.join(COUNTERS)}, found {select!r}")
    chosen = {}
    for name in COUNTERS:
        found = np.unique(heads["idx"][name][imaging])
        if name in select:
            if select[name] not in found:
                raise InputError(f"{path}: select: expected a {name} of {found.tolist()}, found {select[name]!r}")
            imaging = imaging & (heads["idx"][name] == select[name])
            chosen[name] = int(select[name])
        elif len(found) > 1 and first:
            imaging = imaging & (heads["idx"][name] == found[0])
        elif len(found) > 1:
            shown = ", ".join(map(str, found[:8])) + (" ..." if len(found) > 8 else "")
            raise InputError(
                f"{path}: expected one {name}, found {len(found)} ({shown}); choose with "
                f"--select \"{{'{name}':{found[0]}}}\""
            )
    return np.flatnonzero(imaging), chosen


def _flag(heads: NDArray, bit: int) -> NDArray[np.bool_]:
    return (heads["flags"] >> np.uint64(bit - 1)) & np.uint64(1) > 0


def _stacked(rows: Any, length: int, path: str, start: int, what: str) -> NDArray[np.float32]:
    for number, row in enumerate(rows, start):
        if np.size(row) != length:
            raise InputError(
                f"{path}: acquisition {number}: expected {length} numbers ({what}) as its header says, found "
                f"{np.size(row)}"
            )
    return np.ascontiguousarray(np.stack([np.asarray(row) for row in rows]), dtype=np.float32)
