from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.readers.values import hounsfield, not_negative
from disinr_monai.data.readers.voxels import Image, canonical, slice_axis
from disinr_monai.errors import InputError


def read_image(case: Mapping[str, Any], modality: str) -> Image:
    """Read the slice of one image case of :func:`disinr_monai.data.cases.list_cases`.

    Volumes are first reoriented to the closest RAS order (first axis towards right, second towards anterior), so that
    the same anatomy has the same array orientation whatever file it came from; the affine follows.

    Args:
        case: ``path`` (a NIfTI file, or a list of DICOM files of one series), ``slice`` and ``reader``.
        modality: ``"ct"`` (values must be HU; below -1000 becomes air) or any other (values must not be negative; a
            little ringing becomes 0). What is clipped is counted in the log.

    Raises:
        InputError: unreadable, not an image, 4-D, no such slice, NaN or infinite, constant, for CT not HU, otherwise
            more than a small share of negative values.
    """
    volume, label = _read(case, modality)
    axis, n_slices = slice_axis(volume.image.shape, volume.affine)
    index = case.get("slice")
    if index is None and n_slices > 1:
        raise InputError(f"{label}: expected a slice number from 0 to {n_slices - 1}, found none")
    index = index or 0
    if not 0 <= index < n_slices:
        raise InputError(f"{label}: expected a slice number from 0 to {n_slices - 1}, found {index}")
    image = np.ascontiguousarray(np.take(volume.image, index, axis=axis), dtype=np.float32)
    _check_image(image, label, index)
    where = f"{label}: slice {index}" if n_slices > 1 else label
    if modality == "ct":
        image = hounsfield(image, where)
    elif image.max() > image.min():
        image = not_negative(image, where, modality, volume.image)
    if not image.max() > image.min():
        raise InputError(
            f"{label}: expected an image, found the same value {image[0, 0]:g} everywhere in slice {index}"
        )
    info = {**volume.info, "slice": index, "n_slices": n_slices}
    return Image(image, _affine_of_slice(volume.affine, axis, index), info, volume.dicom)


def read_volume(case: Mapping[str, Any]) -> Image:
    """Read the volume of one image case of :func:`disinr_monai.data.cases.list_cases`, in the closest RAS order.

    Raises:
        InputError: unreadable, not a volume of at least 2 voxels along each axis, NaN or infinite, or constant.
    """
    volume, label = _read(case, "volume")
    image = volume.image
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
    return replace(volume, image=image, info={**volume.info, "file_shape": list(image.shape)})


def _read(case: Mapping[str, Any], modality: str) -> tuple[Image, str]:
    """Image of a case in the closest RAS order, and its label for messages."""
    path = case["path"]
    volume = reader_of(case).read(path, modality)
    image, affine = canonical(volume.image, volume.affine)
    label = f"{Path(path[0]).parent} ({len(path)} DICOM files)" if isinstance(path, (list, tuple)) else str(path)
    return replace(volume, image=image, affine=affine, info={"format": case["reader"], **volume.info}), label


def _affine_of_slice(affine: NDArray, axis: int, index: int) -> NDArray[np.float64]:
    first, second = (a for a in range(3) if a != axis)
    result = np.eye(4)
    result[:3, 0], result[:3, 1], result[:3, 2] = affine[:3, first], affine[:3, second], affine[:3, axis]
    result[:3, 3] = affine[:3, 3] + index * affine[:3, axis]
    return result


def _check_image(image: NDArray, label: str, index: int) -> None:
    n_bad = int((~np.isfinite(image)).sum())
    if n_bad:
        raise InputError(f"{label}: expected finite voxels, found {n_bad} NaN or infinite ones in slice {index}")
    if min(image.shape) < 2:
        raise InputError(f"{label}: expected at least 2 x 2 voxels a slice, found {image.shape}")
