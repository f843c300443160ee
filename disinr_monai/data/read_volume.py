from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.read_dicom import read_dicom_header, read_dicom_volume
from disinr_monai.data.read_image import canonical, nifti_unverified, read_nifti
from disinr_monai.errors import InputError


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
