"""The attenuation that a simulated PET scan suffers: a file beside the activity, or water inside the body's outline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, label

from disinr_monai.data.read_image import ImageSlice, read_image
from disinr_monai.errors import InputError

WATER_511 = 0.0096
"""Attenuation of water for annihilation photons, 1/mm."""
SUFFIX = "_mumap"
_HIGHEST = 0.05  # denser than any tissue; a map in 1/cm or HU lies above
_OUTLINE = 0.03  # activity of the body's outline, as a share of the maximum


def mu_map_path(case: Mapping[str, Any]) -> Path | None:
    """``NAME_mumap.nii.gz`` (or ``.nii``) beside the NIfTI file ``NAME`` of a case, if it is there."""
    if not isinstance(case["path"], str):
        return None
    path = Path(case["path"])
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    found = [path.with_name(f"{stem}{SUFFIX}{end}") for end in (".nii.gz", ".nii")]
    return next((file for file in found if file.is_file()), None)


def read_mu_map(path: Path, case: Mapping[str, Any], activity: ImageSlice) -> NDArray[np.float32]:
    """The μ-map's slice of a case, 1/mm.

    Raises:
        InputError: unreadable, on another grid than the activity, negative, or not in 1/mm.
    """
    source = read_image({"path": str(path), "slice": case.get("slice")}, "mumap")
    if source.image.shape != activity.image.shape or not np.allclose(source.affine, activity.affine, atol=1e-2):
        raise InputError(
            f"{path}: expected the grid of the activity ({activity.image.shape} and its affine), found "
            f"{source.image.shape} or another affine; resample it"
        )
    low, high = float(source.image.min()), float(source.image.max())
    if low < 0 or high > _HIGHEST:
        raise InputError(
            f"{path}: expected attenuation in 1/mm (water {WATER_511}), found {low:g} to {high:g}; divide 1/cm by 10, "
            "convert HU"
        )
    return source.image


def water_body(activity: NDArray, pixel_spacing: float) -> NDArray[np.float32]:
    """Water inside the outline of the activity, 1/mm: what is smoothly above 3 % of the maximum, without its holes.

    Args:
        activity: ``(H, W)``.
        pixel_spacing: mm.
    """
    smooth = gaussian_filter(activity.astype(np.float32), 5.0 / pixel_spacing)
    body = binary_closing(smooth > _OUTLINE * smooth.max(), iterations=max(round(10.0 / pixel_spacing), 1))
    body = binary_fill_holes(body)
    parts, n_parts = label(body)
    if n_parts > 1:  # specks of noise are no body
        sizes = np.bincount(parts.ravel())[1:]
        body = np.isin(parts, 1 + np.flatnonzero(sizes > 0.01 * sizes.max()))
    return (WATER_511 * body).astype(np.float32)
