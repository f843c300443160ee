from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.modalities import MODALITIES
from disinr_monai.errors import InputError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_TOLERANCE = 0.05


def is_dicom(path: Path) -> bool:
    """Whether the file carries the DICOM preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom_header(path: str | Path) -> Any:
    """Header of one DICOM file, without its pixels.

    Raises:
        InputError: unreadable, or not DICOM.
    """
    import pydicom

    if not Path(path).is_file():
        raise InputError(f"{path}: expected a DICOM file, found no such file")
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except Exception as error:
        # pydicom raises whatever the damaged element leads to.
        raise InputError(
            f"{path}: expected a readable DICOM file, found a damaged or different one ({_first_line(error)})"
        ) from error


def is_image(header: Any) -> bool:
    """Whether a DICOM header describes an image (and not a report, a plan or a registration)."""
    return "Rows" in header and "Columns" in header


def sort_series(paths: Sequence[str]) -> tuple[list[str], NDArray[np.float64], tuple[int, int, int]]:
    """Order the files of one series by position and describe the volume that they form.

    Returns:
        The sorted paths (towards +RAS along the slice normal), the 4x4 RAS affine in mm of the array
        ``(row, column, slice)``, and its shape.

    Raises:
        InputError: no image, several frames in one file, no position, mixed sizes or orientations, several images at
            one position, missing slices.
    """
    headers = [(str(path), read_dicom_header(path)) for path in paths]
    for path, header in headers:
        _check_header(path, header)
    path, first = headers[0]
    shape = (int(first.Rows), int(first.Columns))
    spacing = np.asarray(first.PixelSpacing, dtype=float)
    orientation = np.asarray(first.ImageOrientationPatient, dtype=float)
    for other, header in headers[1:]:
        if (int(header.Rows), int(header.Columns)) != shape:
            raise InputError(
                f"{other}: expected {shape[0]} x {shape[1]} pixels like the rest of its series, found "
                f"{header.Rows} x {header.Columns}; put the series in folders of their own"
            )
        same = np.allclose(np.asarray(header.ImageOrientationPatient, dtype=float), orientation, atol=1e-3)
        if not same or not np.allclose(np.asarray(header.PixelSpacing, dtype=float), spacing, rtol=1e-3):
            raise InputError(
                f"{other}: expected the orientation and pixel spacing of the rest of its series, found "
                "others (a localizer?); put it in a folder of its own"
            )
    along_columns, along_rows = _LPS_TO_RAS @ orientation[:3], _LPS_TO_RAS @ orientation[3:]
    normal = np.cross(along_rows, along_columns)
    normal *= np.sign(normal[np.argmax(np.abs(normal))])
    positions = np.stack([_LPS_TO_RAS @ np.asarray(h.ImagePositionPatient, dtype=float) for _, h in headers])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    step = _slice_step(heights[order], first, str(Path(path).parent))
    affine = np.eye(4)
    # DICOM's PixelSpacing is (between rows, between columns); the first array axis steps from row to row.
    affine[:3, 0], affine[:3, 1] = along_rows * spacing[0], along_columns * spacing[1]
    affine[:3, 2], affine[:3, 3] = normal * step, positions[order[0]]
    if len(order) > 1:
        affine[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    return [headers[i][0] for i in order], affine, (*shape, len(order))


def read_dicom_volume(paths: Sequence[str], modality: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one DICOM series: values after rescale slope and intercept, ``(row, column, slice)``, and the RAS affine.

    Args:
        paths: the files of one series, in any order.
        modality: one of :data:`disinr_monai.data.modalities.MODALITIES` asks for its DICOM modality; any other is not
            checked.

    Raises:
        InputError: as :func:`sort_series`; another modality; pixels that cannot be decoded.
    """
    ordered, affine, shape = sort_series(paths)
    volume = np.empty(shape, dtype=np.float32)
    for index, path in enumerate(ordered):
        volume[..., index] = _read_pixels(path, shape[:2], modality)
    return volume, affine


def _check_header(path: str, header: Any) -> None:
    if not is_image(header):
        raise InputError(
            f"{path}: expected a DICOM image, found modality {header.get('Modality', 'unknown')} "
            "without rows and columns"
        )
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        raise InputError(
            f"{path}: expected one image a DICOM file, found {header.NumberOfFrames} frames; convert it "
            "to NIfTI (dcm2niix)"
        )
    if int(header.get("SamplesPerPixel", 1) or 1) != 1:
        raise InputError(f"{path}: expected a grey-scale DICOM image, found {header.SamplesPerPixel} colour channels")
    for key, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        value = header.get(key)
        if value is None or len(value) != length:
            raise InputError(
                f"{path}: expected the DICOM attribute {key} with {length} numbers, found {value}; give "
                "the original axial series, not a secondary capture"
            )


def _slice_step(heights: NDArray, header: Any, folder: str) -> float:
    if len(heights) == 1:
        return float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0) or 1.0
    steps = np.diff(heights)
    step = float(np.sort(steps)[(len(steps) - 1) // 2])
    if steps.min() < 1e-3:
        raise InputError(
            f"{folder}: expected one DICOM image a slice position, found several at "
            f"{heights[int(np.argmin(steps))]:.2f} mm (phases, echoes or copies); keep one of them"
        )
    if np.abs(steps - step).max() > max(_TOLERANCE * step, 0.05):
        where = heights[int(np.argmax(np.abs(steps - step)))]
        raise InputError(
            f"{folder}: expected evenly spaced DICOM slices ({step:.2f} mm), found a step of "
            f"{steps[int(np.argmax(np.abs(steps - step)))]:.2f} mm at {where:.2f} mm; slices are missing"
        )
    return step


def _read_pixels(path: str, shape: tuple[int, int], modality: str) -> NDArray[np.float32]:
    import pydicom

    try:
        dataset = pydicom.dcmread(path)
        found = str(dataset.get("Modality", "unknown"))
        pixels = dataset.pixel_array
        slope = float(dataset.get("RescaleSlope", 1) or 1)
        intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    except Exception as error:
        # A missing decoder, a truncated file and a damaged element all surface as different exceptions.
        raise InputError(
            f"{path}: expected decodable DICOM pixels, found {_first_line(error)}; decompress the series "
            "(for example gdcmconv --raw) or export it again"
        ) from error
    if modality in MODALITIES and not MODALITIES[modality].takes_dicom(found):
        expected = MODALITIES[modality].dicom_names
        raise InputError(f"{path}: expected a DICOM image of modality {expected}, found {found}")
    if pixels.shape != shape:
        raise InputError(f"{path}: expected {shape[0]} x {shape[1]} DICOM pixels, found {pixels.shape}")
    return pixels.astype(np.float32) * slope + intercept


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
