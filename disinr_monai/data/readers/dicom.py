from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.dicom_frames import Frame, decoding, frames_of, read_dicom_header, read_pixels
from disinr_monai.data.readers.dicom_kinds import advice, why_no_slice
from disinr_monai.data.readers.dicom_values import physical_values
from disinr_monai.data.readers.voxels import Image, n_slices
from disinr_monai.errors import InputError
from disinr_monai.modality import MODALITIES

logger = logging.getLogger(__name__)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_TOLERANCE = 0.05


@dataclass
class Series:
    """DICOM files that belong together, before any pixel is read.

    Attributes:
        label: what its cases are called.
        subject: a hash of the patient's number, which itself must not end up in a table; else the label.
        paths: the files, in the order of the slices once the series has been opened.
        frames: the images in them.
        error: why they make no volume, where a header is damaged.
    """

    label: str
    subject: str
    paths: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    error: InputError | None = None


def may_be_dicom(file: Path) -> bool:
    """Tell whether a file's preamble says DICOM, whatever its ending (.dcm, .IMA, none), or its ending does."""
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM" or file.suffix.lower() == ".dcm"
    except OSError:
        return file.suffix.lower() == ".dcm"


def group_series(files: Sequence[Path], modality: str) -> tuple[list[Series], Counter[str]]:
    """Sort DICOM files into series by their headers.

    Args:
        files: in a fixed order.
        modality: a key of :data:`disinr_monai.modality.MODALITIES`.

    Returns:
        The series of that modality (a file whose header is damaged is one of its own), and the numbers of other DICOM
        files by kind.
    """
    broken: list[Series] = []
    found: dict[str, Series] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        try:
            header = read_dicom_header(file)
            kind, reason, uid, number, patient = _identify(file, header)
        except InputError as error:
            broken.append(Series(file.stem, file.stem, [str(file)], error=error))
            continue
        if reason or not MODALITIES[modality].takes_dicom(kind):
            left_out[kind + (f" ({reason})" if reason else "")] += 1
            continue
        frames, reasons, error = [], Counter(), None
        try:
            frames, reasons = frames_of(file, header)
        except InputError as failure:
            error = failure
        left_out.update({f"{kind} ({reason})": count for reason, count in reasons.items()})
        if frames or error:
            series = found.setdefault(uid, Series(number, patient))
            series.paths.append(str(file))
            series.frames += frames
            series.error = series.error or error
    folders = [{Path(path).parent for path in series.paths} for series in found.values()]
    for series, own in zip(found.values(), folders, strict=True):
        first = Path(series.paths[0])
        shared = sum(first.parent in other for other in folders) > 1 or len(own) > 1
        label = first.stem if shared and len(series.paths) == 1 else first.parent.resolve().name
        if shared and len(series.paths) > 1:
            label += f"_series{series.label}"
        patient, series.label = series.subject, label
        series.subject = "patient-" + hashlib.sha256(patient.encode()).hexdigest()[:10] if patient else label
    return broken + list(found.values()), left_out


def _identify(path: Path, header: Any) -> tuple[str, str, str, str, str]:
    """DICOM modality, why a file is no image to reconstruct from (else empty), its series, series number, patient."""
    with decoding(path):
        reason = why_no_slice([header])
        uid = str(header.get("SeriesInstanceUID", "") or path.parent)
        number, patient = (str(header.get(key, "") or "") for key in ("SeriesNumber", "PatientID"))
        return str(header.get("Modality", "") or "unknown"), reason, uid, number, patient


@contextmanager
def open_series(series: Series) -> Iterator[tuple[int, int, int]]:
    """Sort the files of a series by position, towards +RAS along the slice normal, and give the number of its slices.

    Raises:
        InputError: a damaged header, mixed sizes or orientations, several images at one position, missing slices.
    """
    if series.error is not None:
        raise series.error
    frames, affine = _ordered(series.frames)
    series.paths[:] = dict.fromkeys(frame.path for frame in frames)
    logger.info("DICOM series of %d files, %d images", len(series.paths), len(frames))
    yield n_slices((*frames[0].shape, len(frames)), affine)


@lru_cache(maxsize=1)
def _read_series(paths: tuple[str, ...], modality: str) -> Image:
    # The slices of one series are asked for one after the other; reading the series once a slice would be slow.
    found_frames, reasons = [], Counter()
    for path in paths:
        frames, left_out = frames_of(path, read_dicom_header(path))
        found_frames += frames
        reasons += left_out
    if not found_frames:
        what = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
        raise InputError(f"{paths[0]}: expected a DICOM slice, found none but {what}{advice(list(reasons))}")
    frames, affine = _ordered(found_frames)
    places: dict[str, list[int]] = {}
    for index, frame in enumerate(frames):
        places.setdefault(frame.path, []).append(index)
    volume = None
    for path, indices in places.items():
        pixels, found = read_pixels(path, modality)
        for index in indices:
            frame = frames[index]
            if pixels.shape[1:] != frame.shape or frame.number >= len(pixels):
                raise InputError(
                    f"{path}: expected {frame.shape[0]} x {frame.shape[1]} DICOM pixels, found {pixels.shape}"
                )
            if volume is None:  # not before one image has been decoded: a damaged header can announce anything
                volume = np.empty((*frame.shape, len(frames)), dtype=np.float32)
            volume[..., index] = pixels[frame.number]
    series = f"{Path(paths[0]).parent} ({len(paths)} DICOM files)"
    volume, info = physical_values(volume, frames, found, series)
    lacking = []
    if modality == "ct" and "rescale" in frames[0].assumed:
        lacking.append("scale in HU (no rescale slope and intercept in the DICOM header; stored values taken)")
    if len(frames) == 1 and "thickness" in frames[0].assumed:
        lacking.append("slice thickness (not in the DICOM header; 1 mm assumed)")
    return Image(volume, affine, {**info, **({"unverified": lacking} if lacking else {})}, found)


def read_dicom(paths: Sequence[str], modality: str) -> Image:
    """Read one DICOM series: values after rescale slope and intercept, ``(row, column, slice)``, and the RAS affine.

    The series may be one file an image or enhanced multi-frame files; slope and intercept are those of each image.

    Args:
        paths: the files of one series, in any order.
        modality: one of :data:`disinr_monai.modality.MODALITIES` asks for its DICOM modality; any other is not
            checked.

    Raises:
        InputError: as :func:`open_series`; another modality; pixels that cannot be decoded.
    """
    return _read_series(tuple(map(str, paths)), modality)


def _ordered(frames: list[Frame]) -> tuple[list[Frame], NDArray[np.float64]]:
    """Frames along the slice normal, and the affine of the volume that they form."""
    first = frames[0]
    for frame in frames[1:]:
        if frame.shape != first.shape:
            raise InputError(
                f"{frame.path}: expected {first.shape[0]} x {first.shape[1]} pixels like the rest of its series, found "
                f"{frame.shape[0]} x {frame.shape[1]}; put the series in folders of their own"
            )
        same = np.allclose(frame.orientation, first.orientation, atol=1e-3)
        if not same or not np.allclose(frame.spacing, first.spacing, rtol=1e-3):
            raise InputError(
                f"{frame.path}: expected the orientation and pixel spacing of the rest of its series, found "
                "others (a localizer?); put it in a folder of its own"
            )
    along_columns, along_rows = _LPS_TO_RAS @ first.orientation[:3], _LPS_TO_RAS @ first.orientation[3:]
    normal = np.cross(along_rows, along_columns)
    normal *= np.sign(normal[np.argmax(np.abs(normal))]) / np.linalg.norm(normal)
    positions = np.stack([_LPS_TO_RAS @ frame.position for frame in frames])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    step = _slice_step(heights[order], first, str(Path(first.path).parent))
    affine = np.eye(4)
    # DICOM's PixelSpacing is (between rows, between columns); the first array axis steps from row to row.
    affine[:3, 0], affine[:3, 1] = along_rows * first.spacing[0], along_columns * first.spacing[1]
    affine[:3, 2], affine[:3, 3] = normal * step, positions[order[0]]
    if len(order) > 1:
        affine[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    return [frames[i] for i in order], affine


def _slice_step(heights: NDArray, frame: Frame, folder: str) -> float:
    if len(heights) == 1:
        return frame.thickness
    steps = np.diff(heights)
    step = float(np.sort(steps)[(len(steps) - 1) // 2])
    if steps.min() < 1e-3:
        where = ", ".join(f"{height:.2f}" for height in np.unique(heights[:-1][steps < 1e-3].round(2))[:5])
        raise InputError(
            f"{folder}: expected one DICOM image a slice position, found several at {where} mm (phases, echoes or "
            "copies); keep one of them"
        )
    wrong = np.flatnonzero(np.abs(steps - step) > max(_TOLERANCE * step, 0.05))
    if len(wrong):
        where = ", ".join(f"{steps[i]:.2f} mm at {heights[i]:.2f} mm" for i in wrong[:5])
        raise InputError(
            f"{folder}: expected evenly spaced DICOM slices ({step:.2f} mm), found a step of {where}; "
            "slices are missing"
        )
    return step
