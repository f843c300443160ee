from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import check_size
from disinr_monai.data.readers.kspace import cut_size
from disinr_monai.errors import InputError

COUNTERS = ("contrast", "phase", "repetition", "set")
_FIELDS = {"flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample", "idx"}
_FIELDS |= {"encoding_space_ref", "trajectory_dimensions", "position", "read_dir", "phase_dir", "slice_dir"}
_STEPS = ("kspace_encode_step_1", "kspace_encode_step_2", "slice")
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSE = 19, 20, 21, 22
# Navigator, phase correction, feedback (2), dummy, surface coil correction, phase stabilisation (2).
_NO_IMAGE = (23, 24, 26, 27, 28, 29, 30, 31)
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
        settings: the counters that were selected.
    """

    path: str
    data: Any
    heads: NDArray
    encoding: Encoding
    imaging: NDArray[np.int64]
    calibration: NDArray[np.int64]
    noise: NDArray[np.int64]
    settings: dict[str, int]

    def cut(self, axis: int) -> int:
        """Pixels of the reconstructed field of view along readout, phase encoding or partition."""
        encoded, recon = self.encoding.encoded, self.encoding.recon
        return cut_size(encoded.matrix[axis], encoded.fov[axis], recon.matrix[axis], recon.fov[axis])

    def lines(self, chosen: NDArray[np.int64]) -> Iterator[tuple[NDArray, NDArray[np.complex64], NDArray[np.float32]]]:
        """Headers, samples ``(n, coil, sample)`` and trajectories ``(n, sample, dimension)`` of some acquisitions.

        In blocks of consecutive acquisitions of one size and direction; samples are in the order of a forward readout,
        without those that the header discards.
        """
        heads = self.heads[chosen]
        keys = ("number_of_samples", "active_channels", "trajectory_dimensions", "discard_pre", "discard_post")
        changes = (np.diff(chosen) != 1) | (np.diff(heads["center_sample"]) != 0) | (np.diff(_reversed(heads)) != 0)
        for key in keys:
            changes |= np.diff(heads[key].astype(int)) != 0
        for run in np.split(np.arange(len(chosen)), np.flatnonzero(changes) + 1):
            for part in np.split(run, range(_BLOCK, len(run), _BLOCK)):
                yield heads[part], *self._read(int(chosen[part[0]]), len(part))

    def _read(self, start: int, n: int) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
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
        kept = slice(int(head["discard_pre"]), n_samples - int(head["discard_post"]))
        if kept.stop <= kept.start:
            raise InputError(
                f"{self.path}: acquisition {start}: expected samples that are not discarded, found {n_samples} "
                f"with discard_pre {kept.start} and discard_post {head['discard_post']}"
            )
        samples, trajectory = samples[..., kept], trajectory[:, kept]
        if _reversed(head):
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
    usable = ~noise & ~np.any([_flag(heads, bit) for bit in _NO_IMAGE], axis=0)
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
    calibration &= [r < len(encodings) and encodings[r].encoded == encoding.encoded for r in reference]
    imaging, chosen = _select(heads, usable & ~calibration & (reference == numbers[0]), select or {}, path, first)
    lines = np.flatnonzero(calibration)
    return IsmrmrdScan(str(path), data, heads, encoding, imaging, lines, np.flatnonzero(noise), chosen)


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


def _reversed(heads: NDArray) -> NDArray[np.int64]:
    return np.asarray(_flag(heads, _REVERSE)).astype(int)


def _stacked(rows: Any, length: int, path: str, start: int, what: str) -> NDArray[np.float32]:
    for number, row in enumerate(rows, start):
        if np.size(row) != length:
            raise InputError(
                f"{path}: acquisition {number}: expected {length} numbers ({what}) as its header says, found "
                f"{np.size(row)}"
            )
    return np.ascontiguousarray(np.stack([np.asarray(row) for row in rows]), dtype=np.float32)


_LARGEST_MATRIX = 65535  # of a 16-bit encoding counter


@dataclass(frozen=True)
class Space:
    """Matrix size and field of view (mm) along readout, phase encoding and partition."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]


@dataclass(frozen=True)
class Encoding:
    """One ``<encoding>`` of an ISMRMRD header.

    Attributes:
        trajectory: ``cartesian``, ``radial``, ``spiral``, ...
        encoded: what was measured.
        recon: what is to come out.
        centres: counter of the central line and partition; None where the header does not say.
        calibration: ``embedded``, ``separate``, ... or empty.
    """

    trajectory: str
    encoded: Space
    recon: Space
    centres: tuple[int | None, int | None]
    calibration: str


def parse_ismrmrd_header(text: bytes | str, path: str | Path) -> list[Encoding]:
    """The encodings of an ISMRMRD XML header (schema http://www.ismrm.org/ISMRMRD), whatever namespace prefix it has.

    Raises:
        InputError: no XML, a document type of its own, no encoding, or a size or field of view that is missing or
            impossible.
    """
    raw = text.encode() if isinstance(text, str) else bytes(text)
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise InputError(f"{path}: expected a plain ISMRMRD XML header, found one with a document type; remove it")
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: expected an ISMRMRD XML header, found damaged XML ({error})") from error
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    encodings = [_encoding(element, path) for element in root.iter("encoding")]
    if not encodings:
        raise InputError(f"{path}: expected an <encoding> in the ISMRMRD header, found none")
    return encodings


def _encoding(element: ElementTree.Element, path: str | Path) -> Encoding:
    centres = []
    for name in ("kspace_encoding_step_1", "kspace_encoding_step_2"):
        limit = element.find(f"encodingLimits/{name}/center")
        centres.append(None if limit is None else int(_number(limit, f"encodingLimits/{name}/center", path, 0)))
    return Encoding(
        (element.findtext("trajectory") or "").strip().lower(),
        _space(element, "encodedSpace", path),
        _space(element, "reconSpace", path),
        (centres[0], centres[1]),
        (element.findtext("parallelImaging/calibrationMode") or "").strip().lower(),
    )


def _space(element: ElementTree.Element, name: str, path: str | Path) -> Space:
    def three(part: str, lowest: float) -> list[float]:
        return [_number(element.find(f"{name}/{part}/{x}"), f"{name}/{part}/{x}", path, lowest) for x in "xyz"]

    matrix = [int(n) for n in three("matrixSize", 1)]
    fov = three("fieldOfView_mm", 1e-6)
    return Space((matrix[0], matrix[1], matrix[2]), (fov[0], fov[1], fov[2]))


def _number(element: ElementTree.Element | None, name: str, path: str | Path, lowest: float) -> float:
    text = "nothing" if element is None else (element.text or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= _LARGEST_MATRIX:
        raise InputError(
            f"{path}: expected {name} from {lowest:g} to {_LARGEST_MATRIX} in the ISMRMRD header, found {text[:40]!r}"
        )
    return value
