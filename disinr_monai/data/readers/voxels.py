from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_THICK_SLICES, _THICKER = 3.0, 1.5


@dataclass(frozen=True)
class Image:
    """Voxels of an image file or series, or of one slice of it.

    Attributes:
        image: float32 ``(X, Y, Z)``, of a slice ``(H, W)``; HU for CT.
        affine: 4x4, RAS mm, of that array order; of a slice the third column is the normal.
        info: JSON-ready; ``unverified`` lists what the file does not say about orientation, scale or size.
        dicom: DICOM's name of the modality; None if the file does not say.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    info: dict[str, Any] = field(default_factory=dict)
    dicom: str | None = None


def canonical(volume: NDArray, affine: NDArray) -> tuple[NDArray, NDArray[np.float64]]:
    """Bring a volume and its affine to the closest RAS order (first axis towards right, second towards anterior)."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    return apply_orientation(volume, orientation), affine @ inv_ornt_aff(orientation, volume.shape)


def slice_axis(shape: tuple[int, ...], affine: NDArray) -> tuple[int, int]:
    """Axis that the slices of a canonical (RAS-ordered) volume are taken along, and their number.

    Axial (2), unless the volume is a single slice or was acquired in thick slices along another axis: their distance
    is 3 times the voxel size within them, or 1.5 times and there are fewer than a quarter as many as rows and columns.

    Args:
        shape: ``(X, Y, Z)``.
        affine: 4x4.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[-1], 1
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    thick = int(np.argmax(spacing))
    ratio, is_slab = spacing[thick] / spacing.min(), 4 * shape[thick] < min(np.delete(shape, thick))
    axis = thick if ratio > _THICK_SLICES or (ratio > _THICKER and is_slab) else 2
    return axis, shape[axis]


def n_slices(shape: tuple[int, ...], affine: NDArray) -> int:
    """Number of slices (:func:`slice_axis`) of a volume in any order."""
    from nibabel.orientations import io_orientation

    order = np.argsort(io_orientation(affine)[:, 0])
    return slice_axis(tuple(shape[i] for i in order), affine[:, [*order, 3]])[1]
