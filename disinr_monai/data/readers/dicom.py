from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import first_line
from disinr_monai.errors import InputError
from disinr_monai.modality import MODALITIES

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_TOLERANCE = 0.05


def is_dicom(path: Path) -> bool:
    """Whether the file carries the DICOM preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _pydicom() -> Any:
    """pydicom, told not to quote values that break the standard: its warnings would put them into logs."""
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def read_dicom_header(path: str | Path) -> Any:
    """Header of one DICOM file, without its pixels.

    Raises:
        InputError: unreadable, or not DICOM.
    """
    pydicom = _pydicom()
    if not Path(path).is_file():
        raise InputError(f"{path}: expected a DICOM file, found no such file")
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except Exception as error:
        raise damaged(path, error) from error  # pydicom raises whatever the damaged element leads to


def sort_series(paths: Sequence[str]) -> tuple[list[str], NDArray[np.float64], tuple[int, int, int]]:
    """Order the files of one series by position and describe the volume that they form.

    Returns:
        The sorted paths (towards +RAS along the slice normal), the 4x4 RAS affine in mm of the array
        ``(row, column, slice)``, and its shape.

    Raises:
        InputError: as :func:`frames_of`; mixed sizes or orientations, several images at one position, missing slices.
    """
    frames, affine = _sorted_frames(paths)
    return list(dict.fromkeys(frame.path for frame in frames)), affine, (*frames[0].shape, len(frames))


def read_dicom_volume(paths: Sequence[str], modality: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one DICOM series: values after rescale slope and intercept, ``(row, column, slice)``, and the RAS affine.

    The series may be one file an image or enhanced multi-frame files; slope and intercept are those of each image.

    Args:
        paths: the files of one series, in any order.
        modality: one of :data:`disinr_monai.modality.MODALITIES` asks for its DICOM modality; any other is not
            checked.

    Raises:
        InputError: as :func:`sort_series`; another modality; pixels that cannot be decoded.
    """
    frames, affine = _sorted_frames(paths)
    places: dict[str, list[int]] = {}
    for index, frame in enumerate(frames):
        places.setdefault(frame.path, []).append(index)
    volume = None
    for path, indices in places.items():
        pixels = _read_pixels(path, modality)
        for index in indices:
            frame = frames[index]
            if pixels.shape[1:] != frame.shape or frame.number >= len(pixels):
                raise InputError(
                    f"{path}: expected {frame.shape[0]} x {frame.shape[1]} DICOM pixels, found {pixels.shape}"
                )
            if volume is None:  # not before one image has been decoded: a damaged header can announce anything
                volume = np.empty((*frame.shape, len(frames)), dtype=np.float32)
            volume[..., index] = pixels[frame.number] * frame.rescale[0] + frame.rescale[1]
    return volume, affine


def dicom_unverified(paths: Sequence[str], modality: str) -> dict[str, list[str]]:
    """``{"unverified": ...}`` where the files lack the scale of CT or the thickness of one slice, else empty.

    Raises:
        InputError: as :func:`~disinr_monai.data.readers.dicom.frames_of`.
    """
    frames = frames_of(paths[0], read_dicom_header(paths[0]))
    found = []
    if modality == "ct" and "rescale" in frames[0].assumed:
        found.append("scale in HU (no rescale slope and intercept in the DICOM header; stored values taken)")
    if len(paths) * len(frames) == 1 and "thickness" in frames[0].assumed:
        found.append("slice thickness (not in the DICOM header; 1 mm assumed)")
    return {"unverified": found} if found else {}


def _sorted_frames(paths: Sequence[str]) -> tuple[list[Frame], NDArray[np.float64]]:
    frames = [frame for path in paths for frame in frames_of(path, read_dicom_header(path))]
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


def _read_pixels(path: str, modality: str) -> NDArray[np.float32]:
    """All frames of one file, ``(frame, row, column)``, before slope and intercept."""
    pydicom = _pydicom()
    try:
        dataset = pydicom.dcmread(path)
        found = str(dataset.get("Modality", "unknown"))
        pixels = dataset.pixel_array
    except Exception as error:
        # A missing decoder, a truncated file and a damaged element all surface as different exceptions.
        raise InputError(
            f"{path}: expected decodable DICOM pixels, found {first_line(error)}; decompress the series "
            "(for example gdcmconv --raw) or export it again"
        ) from error
    if modality in MODALITIES and not MODALITIES[modality].takes_dicom(found):
        expected = MODALITIES[modality].dicom_names
        raise InputError(f"{path}: expected a DICOM image of modality {expected}, found {found}")
    return pixels.reshape(-1, *pixels.shape[-2:]).astype(np.float32)


_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Frame:
    """One image of a DICOM file.

    Attributes:
        path: the file.
        number: of the frame in the file, from 0.
        shape: rows and columns.
        position: of the first pixel, LPS mm.
        orientation: directions of a row and of a column, six numbers.
        spacing: between rows and between columns, mm.
        thickness: between slices, as far as one image says, mm.
        rescale: slope and intercept.
        assumed: which of thickness and rescale the file does not hold (1 mm; the stored values).
    """

    path: str
    number: int
    shape: tuple[int, int]
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    thickness: float
    rescale: tuple[float, float]
    assumed: frozenset[str]


@dataclass(frozen=True)
class DicomFile:
    """What sorting files into series needs to know of one: see :func:`describe_file`."""

    modality: str
    ignored: str
    series: str
    number: str
    patient: str


def describe_file(path: str | Path, header: Any) -> DicomFile:
    """Series and patient of a file, and why it is not an image to reconstruct from, if it is not.

    Raises:
        InputError: a damaged header.
    """
    try:
        kinds = [str(kind).upper() for kind in (header.get("ImageType") or ())]
        ignored = ""
        if "Rows" not in header or "Columns" not in header:
            ignored = "no image"
        elif str(header.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
            ignored = "a secondary capture"
        elif "LOCALIZER" in kinds or "SCOUT" in kinds:
            ignored = "a localizer"
        return DicomFile(
            str(header.get("Modality", "") or "unknown"),
            ignored,
            str(header.get("SeriesInstanceUID", "") or Path(path).parent),
            str(header.get("SeriesNumber", "") or ""),
            str(header.get("PatientID", "") or ""),
        )
    except Exception as error:
        raise damaged(path, error) from error


def frames_of(path: str | Path, header: Any) -> list[Frame]:
    """The images of one file: one, or those of an enhanced (multi-frame) object with its functional groups.

    Raises:
        InputError: no grey-scale image, frames without functional groups, or a missing, damaged or impossible position,
            orientation, spacing or rescale slope.
    """
    try:
        return _frames(str(path), header)
    except InputError:
        raise
    except Exception as error:  # pydicom decodes an element when it is asked for, and raises whatever that leads to
        raise damaged(path, error) from error


def damaged(path: str | Path, error: Exception) -> InputError:
    """The error of a file that pydicom cannot make sense of."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return InputError(f"{path}: expected a readable DICOM file, found a damaged or different one ({line})")


def _frames(path: str, header: Any) -> list[Frame]:
    if "Rows" not in header or "Columns" not in header:
        raise InputError(
            f"{path}: expected a DICOM image, found modality {header.get('Modality', 'unknown')} "
            "without rows and columns"
        )
    if int(header.get("SamplesPerPixel", 1) or 1) != 1:
        raise InputError(f"{path}: expected a grey-scale DICOM image, found {header.SamplesPerPixel} colour channels")
    shape = (int(header.Rows), int(header.Columns))
    if min(shape) < 1:
        raise InputError(f"{path}: expected a DICOM image, found {shape[0]} x {shape[1]} pixels")
    n_frames = int(header.get("NumberOfFrames", 1) or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if n_frames > 1:
            raise InputError(
                f"{path}: expected one image a DICOM file, found {n_frames} frames without functional groups; "
                "convert it to NIfTI (dcm2niix)"
            )
        return [_frame(path, 0, shape, [header])]
    if len(groups) != n_frames:
        raise InputError(f"{path}: expected functional groups of {n_frames} frames, found {len(groups)}")
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())[:1]
    return [_frame(path, i, shape, [group, *shared, header]) for i, group in enumerate(groups)]


def _frame(path: str, number: int, shape: tuple[int, int], levels: list[Any]) -> Frame:
    """One frame; what it says itself comes before what all frames share and what the file says."""

    def find(sequence: str, key: str) -> Any:
        for level in levels:
            items = level.get(sequence)
            value = items[0].get(key) if items else level.get(key)
            if value is not None:
                return value
        return None

    def numbers(sequence: str, key: str, length: int) -> NDArray[np.float64]:
        value = find(sequence, key)
        if value is None or isinstance(value, str) or np.size(value) != length:
            raise InputError(
                f"{path}: expected the DICOM attribute {key} with {length} numbers, found {value}; give "
                "the original series, not a secondary capture"
            )
        result = np.asarray(value, dtype=float)
        if not np.isfinite(result).all():
            raise InputError(f"{path}: expected finite numbers in the DICOM attribute {key}, found {value}")
        return result

    position = numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    axes = orientation.reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=0.01) or spacing.min() <= 0:
        raise InputError(
            f"{path}: expected perpendicular unit directions in ImageOrientationPatient and a positive PixelSpacing, "
            f"found {orientation.tolist()} and {spacing.tolist()}"
        )
    between = find("PixelMeasuresSequence", "SpacingBetweenSlices") or find("PixelMeasuresSequence", "SliceThickness")
    thickness = abs(float(between or 1.0))
    slope = find("PixelValueTransformationSequence", "RescaleSlope")
    intercept = find("PixelValueTransformationSequence", "RescaleIntercept")
    rescale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    if not np.isfinite(rescale).all() or rescale[0] == 0:
        raise InputError(
            f"{path}: expected a finite rescale slope other than 0, found {slope} and intercept {intercept}"
        )
    has_thickness = between is not None and np.isfinite(thickness) and thickness > 0
    lacking = {"thickness": not has_thickness, "rescale": slope is None or intercept is None}
    assumed = frozenset(key for key, lacks in lacking.items() if lacks)
    thickness = thickness if has_thickness else 1.0
    return Frame(path, number, shape, position, orientation, spacing, thickness, rescale, assumed)
