from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.dicom import dicom_unverified, read_dicom_header, read_dicom_volume
from disinr_monai.data.readers.hdf5 import check_announced, first_line
from disinr_monai.errors import InputError

HU_WINDOW = (-800.0, 400.0)
_AIR = -200.0
_THICK_SLICES = 3.0


@dataclass(frozen=True)
class ImageSlice:
    """One slice of an image, in the array order that its affine describes.

    Attributes:
        image: float32 ``(H, W)``; HU for CT.
        affine: 4x4, RAS mm; the first two columns are the steps along the two array axes, the third the slice normal.
        spacing: voxel size along the two array axes, mm.
        info: JSON-ready.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing: tuple[float, float]
    info: dict[str, Any]


def read_image(case: Mapping[str, Any], modality: str) -> ImageSlice:
    """Read the slice of one image case of :func:`disinr_monai.data.cases.list_cases`.

    Volumes are first reoriented to the closest RAS order (first axis towards right, second towards anterior), so that
    the same anatomy has the same array orientation whatever file it came from; the affine follows.

    Args:
        case: ``path`` (a NIfTI file, or a list of DICOM files of one series) and ``slice``.
        modality: ``"ct"`` (values must be HU) or any other.

    Raises:
        InputError: unreadable, not an image, 4-D, no such slice, NaN or infinite, constant, or, for CT, not HU.
    """
    path, index = case["path"], case.get("slice")
    if isinstance(path, (list, tuple)):
        volume, affine = _cached_dicom(tuple(str(p) for p in path), modality)
        label, kind = f"{Path(path[0]).parent} ({len(path)} DICOM files)", "dicom"
    else:
        volume, affine = read_nifti(path)
        label, kind = str(path), "nifti"
    axis, n_slices = slice_axis(volume.shape, affine)
    if index is None and n_slices > 1:
        raise InputError(f"{label}: expected a slice number from 0 to {n_slices - 1}, found none")
    index = index or 0
    if not 0 <= index < n_slices:
        raise InputError(f"{label}: expected a slice number from 0 to {n_slices - 1}, found {index}")
    image = np.ascontiguousarray(np.take(volume, index, axis=axis), dtype=np.float32)
    _check_image(image, label, index, modality)
    slice_affine = _affine_of_slice(affine, axis, index)
    spacing = tuple(float(s) for s in np.linalg.norm(slice_affine[:3, :2], axis=0))
    info = {"format": kind, "slice": index, "n_slices": n_slices}
    info |= nifti_unverified(path) if kind == "nifti" else dicom_unverified([str(p) for p in path], modality)
    return ImageSlice(image, slice_affine, spacing, info)


def slice_axis(shape: tuple[int, ...], affine: NDArray) -> tuple[int, int]:
    """Axis that the slices of a canonical (RAS-ordered) volume are taken along, and their number.

    Axial (2), unless the volume is a single slice or was acquired in thick slices along another axis.

    Args:
        shape: ``(X, Y, Z)``.
        affine: 4x4.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[-1], 1
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    thick = int(np.argmax(spacing))
    axis = thick if spacing[thick] > _THICK_SLICES * spacing.min() else 2
    return axis, shape[axis]


def nifti_slices(path: str | Path) -> int:
    """Number of slices of a NIfTI file, from its header.

    Raises:
        InputError: not readable, or not a 2-D or 3-D image.
    """
    image, shape = _open_nifti(path)
    return canonical_slice_axis(shape, image.affine)[1]


def nifti_unverified(path: str | Path) -> dict[str, list[str]]:
    """``{"unverified": ...}`` for a NIfTI file whose header does not say how the patient lay, else empty.

    Without sform and qform nibabel takes the array for one in RAS order.
    """
    header = _open_nifti(path)[0].header
    codes = [int(header[key]) for key in ("sform_code", "qform_code") if key in header]
    return {"unverified": ["orientation (neither sform nor qform in the NIfTI header)"]} if codes == [0, 0] else {}


def canonical_slice_axis(shape: tuple[int, int, int], affine: NDArray) -> tuple[int, int]:
    """:func:`slice_axis` of a volume that is not in canonical order yet."""
    from nibabel.orientations import io_orientation

    order = np.argsort(io_orientation(affine)[:, 0])
    return slice_axis(tuple(shape[i] for i in order), affine[:, [*order, 3]])


def _open_nifti(path: str | Path) -> tuple[Any, tuple[int, int, int]]:
    import nibabel as nib
    from nibabel.orientations import io_orientation

    if not Path(path).is_file():
        raise InputError(f"{path}: expected a NIfTI file, found no such file")
    try:
        image = nib.load(path)
    except Exception as error:
        # nibabel lets struct, zlib, OS and its own errors through.
        raise InputError(
            f"{path}: expected a readable NIfTI image, found a damaged or different file ({first_line(error)})"
        ) from error
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "buif":
        raise InputError(f"{path}: expected real voxel values, found {dtype} (complex or colour); save the magnitude")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(
            f"{path}: expected a 2-D or 3-D image, found shape {tuple(image.shape)}; split the series "
            "into one file an image"
        )
    affine = image.affine
    usable = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-12
    if not usable or np.isnan(io_orientation(affine)).any():  # also where one axis is next to nothing beside the others
        raise InputError(f"{path}: expected an invertible affine, found {image.affine.tolist()}; repair the header")
    check_announced(path, int(np.prod(shape, dtype=object)) * dtype.itemsize, str(path).lower().endswith(".gz"))
    return image, shape if len(shape) == 3 else (*shape, 1)


def read_nifti(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values of a NIfTI file and its affine, in the closest RAS order.

    Raises:
        InputError: not readable, or not a real 2-D or 3-D image.
    """
    image, shape = _open_nifti(path)
    try:
        volume = image.get_fdata(dtype=np.float32).reshape(shape)
    except Exception as error:
        raise InputError(
            f"{path}: expected readable voxel values, found a damaged or truncated file "
            f"({first_line(error)}); copy or export it again"
        ) from error
    return canonical(volume, image.affine)


def canonical(volume: NDArray, affine: NDArray) -> tuple[NDArray, NDArray[np.float64]]:
    """A volume and its affine in the closest RAS order (first axis towards right, second towards anterior)."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    return apply_orientation(volume, orientation), affine @ inv_ornt_aff(orientation, volume.shape)


@lru_cache(maxsize=1)
def _cached_dicom(paths: tuple[str, ...], modality: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    # The slices of one series are asked for one after the other; reading the series once a slice would be slow.
    return canonical(*read_dicom_volume(paths, modality))


def _affine_of_slice(affine: NDArray, axis: int, index: int) -> NDArray[np.float64]:
    first, second = (a for a in range(3) if a != axis)
    result = np.eye(4)
    result[:3, 0], result[:3, 1], result[:3, 2] = affine[:3, first], affine[:3, second], affine[:3, axis]
    result[:3, 3] = affine[:3, 3] + index * affine[:3, axis]
    return result


def _check_image(image: NDArray, label: str, index: int, modality: str) -> None:
    n_bad = int((~np.isfinite(image)).sum())
    if n_bad:
        raise InputError(f"{label}: expected finite voxels, found {n_bad} NaN or infinite ones in slice {index}")
    if min(image.shape) < 2:
        raise InputError(f"{label}: expected at least 2 x 2 voxels a slice, found {image.shape}")
    low, high = float(image.min()), float(image.max())
    if modality == "ct":
        # An image scaled to 0 ... 1 or 0 ... 255 lies in the window too, so air is asked for as well.
        in_window = ((image >= HU_WINDOW[0]) & (image <= HU_WINDOW[1])).any()
        if not in_window or low > _AIR:
            raise InputError(
                f"{label}: expected CT values in HU, in the window [-800, 400] and with air (about -1000), "
                f"found {low:g} to {high:g} in slice {index}; convert the image to HU"
            )
    elif high <= low:
        raise InputError(f"{label}: expected an image, found the same value {low:g} everywhere in slice {index}")


@dataclass(frozen=True)
class ImageVolume:
    """A volume in the closest RAS order (axes towards right, anterior, head).

    Attributes:
        image: float32 ``(X, Y, Z)``; HU for CT.
        affine: 4x4, RAS mm.
        dicom: DICOM's name of the modality; None if the file does not say.
        info: JSON-ready.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    dicom: str | None
    info: dict[str, Any]


def read_volume(case: Mapping[str, Any]) -> ImageVolume:
    """Read the volume of one image case of :func:`disinr_monai.data.cases.list_cases`.

    Raises:
        InputError: unreadable, not a volume of at least 2 voxels along each axis, NaN or infinite, or constant.
    """
    path = case["path"]
    if isinstance(path, (list, tuple)):
        image, affine = canonical(*read_dicom_volume([str(p) for p in path], "volume"))
        dicom = str(read_dicom_header(path[0]).get("Modality", "")) or None
        label, kind = f"{Path(path[0]).parent} ({len(path)} DICOM files)", "dicom"
    else:
        image, affine = read_nifti(path)
        label, kind, dicom = str(path), "nifti", None
    n_bad = int(image.size - np.isfinite(image).sum())
    if n_bad:
        raise InputError(f"{label}: expected finite voxels, found {n_bad} NaN or infinite ones")
    if min(image.shape) < 2:
        shape = " x ".join(map(str, image.shape))
        raise InputError(f"{label}: expected a volume of at least 2 voxels along each axis, found {shape}")
    low, high = float(image.min()), float(image.max())
    if not high > low:
        raise InputError(f"{label}: expected an image, found the same value {low:g} everywhere")
    image = np.ascontiguousarray(image, dtype=np.float32)
    unverified = nifti_unverified(path) if kind == "nifti" else {}
    return ImageVolume(image, affine, dicom, {"format": kind, "file_shape": list(image.shape), **unverified})
