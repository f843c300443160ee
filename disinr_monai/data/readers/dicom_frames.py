from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.dicom_kinds import why_no_slice
from disinr_monai.data.readers.hdf5 import first_line
from disinr_monai.errors import InputError
from disinr_monai.modality import MODALITIES


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
    if not Path(path).is_file():
        raise InputError(f"{path}: expected a DICOM file, found no such file")
    with decoding(path):
        return _pydicom().dcmread(path, stop_before_pixels=True)


@contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Turn errors of pydicom, which decodes elements on access, into an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: expected a readable DICOM file, found a damaged or different one ({first_line(error)})"
        ) from error


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
        padding: lowest and highest stored value of pixels that are no image; None where the file has none.
        mirror: of a file that shows low values white (MONOCHROME1), lowest plus highest value that its pixels can hold.
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
    padding: tuple[int, int] | None = None
    mirror: int | None = None


def frames_of(path: str | Path, header: Any) -> tuple[list[Frame], Counter[str]]:
    """The images of one file: one, or those of an enhanced (multi-frame) object with its functional groups.

    Returns:
        The slices, and the numbers of images that are none by reason
        (:func:`~disinr_monai.data.readers.dicom_kinds.why_no_slice`).

    Raises:
        InputError: no grey-scale image, frames without functional groups, or a missing, damaged or impossible position,
            orientation, spacing or rescale slope.
    """
    with decoding(path):
        return _frames(str(path), header)


def _frames(path: str, header: Any) -> tuple[list[Frame], Counter[str]]:
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
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())[:1]
    levels = [[header]] if groups is None else [[group, *shared, header] for group in groups]
    reasons = [why_no_slice(level) for level in levels]
    if groups is None:
        if n_frames > 1 and not reasons[0]:
            raise InputError(
                f"{path}: expected one image a DICOM file, found {n_frames} frames without functional groups; "
                "convert it to NIfTI (dcm2niix)"
            )
    elif len(groups) != n_frames:
        raise InputError(f"{path}: expected functional groups of {n_frames} frames, found {len(groups)}")
    frames = [_frame(path, i, shape, levels[i]) for i, reason in enumerate(reasons) if not reason]
    return frames, Counter(reason for reason in reasons if reason)


def _frame(path: str, number: int, shape: tuple[int, int], levels: list[Any]) -> Frame:
    """One frame; its own attributes win over those shared by all frames and those of the file."""

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
    if find("ModalityLUTSequence", "LUTData") is not None:
        raise InputError(
            f"{path}: expected rescale slope and intercept, found a table of values (ModalityLUTSequence); apply it "
            "and store the result"
        )
    padding, mirror = _padding(levels[-1]), _mirror(levels[-1])
    return Frame(path, number, shape, position, orientation, spacing, thickness, rescale, assumed, padding, mirror)


def _padding(header: Any) -> tuple[int, int] | None:
    """PixelPaddingValue and PixelPaddingRangeLimit, lowest first, as the pixels store them."""
    value = header.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = header.get("PixelPaddingRangeLimit")
    size, signed = 2 ** int(header.get("BitsAllocated", 16)), int(header.get("PixelRepresentation", 0) or 0)
    bounds = []
    for number in (int(value), int(value if limit is None or limit == "" else limit)):
        # Written with the sign that the pixels do not have, or without the one that they have.
        number %= size
        bounds.append(number - size if signed and number >= size // 2 else number)
    return min(bounds), max(bounds)


def _mirror(header: Any) -> int | None:
    if str(header.get("PhotometricInterpretation", "")).strip().upper() != "MONOCHROME1":
        return None
    if int(header.get("PixelRepresentation", 0) or 0):
        return -1
    return 2 ** int(header.get("BitsStored", header.get("BitsAllocated", 16))) - 1


def read_pixels(path: str, modality: str) -> tuple[NDArray[np.float32], str]:
    """Read all frames of one file, ``(frame, row, column)`` before slope and intercept, and its DICOM modality.

    Raises:
        InputError: pixels that cannot be decoded, or another modality than that of
            :data:`disinr_monai.modality.MODALITIES`, if it is one of them.
    """
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
    return pixels.reshape(-1, *pixels.shape[-2:]).astype(np.float32), found
