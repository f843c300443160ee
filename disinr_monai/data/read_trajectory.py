from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.data.hdf5 import read_array
from disinr_monai.errors import InputError


def read_trajectory(file: Any, kspace_shape: tuple[int, ...], path: str | Path) -> dict[str, Any]:
    """Read where the samples of a non-Cartesian scan lie, from an open HDF5 file.

    The dataset ``trajectory`` ``(readouts, samples, 2)`` holds positions along rows and columns of the image in cycles
    per field of view, from -N/2 to N/2. ``image_shape`` (H, W), a dataset or an attribute of the file or of
    ``trajectory``, is the matrix size; without it the smallest even square that holds the trajectory.

    Args:
        file: open file.
        kspace_shape: of the dataset ``kspace``: ``(..., coil, readouts, samples)``.
        path: for messages.

    Returns:
        ``trajectory`` float64 and ``shape`` (H, W).

    Raises:
        InputError: wrong shape or type, NaN, a range that is not that of cycles per field of view, or a mask beside it.
    """
    data = file["trajectory"]
    shape = getattr(data, "shape", ())
    expected = (*kspace_shape[-2:], 2)
    if shape != expected:
        raise InputError(
            f"{path}: `trajectory` must have shape {expected} (readouts, samples, 2) to match `kspace` "
            f"{tuple(kspace_shape)}, found {tuple(shape) or 'a group'}"
        )
    trajectory = read_array(file, "trajectory", path)
    if trajectory.dtype.kind not in "iuf":
        raise InputError(f"{path}: `trajectory` must be real, found {trajectory.dtype}")
    trajectory = trajectory.astype(np.float64)
    n_bad = int((~np.isfinite(trajectory)).sum())
    if n_bad:
        raise InputError(f"{path}: `trajectory` must be finite, found {n_bad} NaN or infinite values")
    if "mask" in file:
        raise InputError(f"{path}: expected `mask` or `trajectory`, found both; leave out what was not measured")
    reach = np.abs(trajectory).max((0, 1))
    given = file.get("image_shape", {**file.attrs, **data.attrs}.get("image_shape"))
    if given is None:
        if reach.max() <= 4:
            raise InputError(
                f"{path}: `trajectory` must be in cycles per field of view, from -N/2 to N/2, found at most "
                f"{reach.max():.3g}; multiply by the matrix size N (cycles per pixel) or N / 2π (radians)"
            )
        return {"trajectory": trajectory, "shape": (2 * int(np.ceil(reach.max() - 0.25)),) * 2}
    image_shape = np.asarray(given[()] if hasattr(given, "id") else given).reshape(-1)
    if (
        image_shape.dtype.kind not in "iuf"
        or image_shape.shape != (2,)
        or not (image_shape >= 8).all()
        or (image_shape % 1).any()
    ):
        raise InputError(f"{path}: `image_shape` must be two whole numbers (H, W) of at least 8, found {image_shape}")
    limit = image_shape / 2
    if (reach > limit * (1 + 1e-4)).any() or reach.max() <= 4:
        raise InputError(
            f"{path}: `trajectory` must be in cycles per field of view, within {limit[0]:g} along rows and "
            f"{limit[1]:g} along columns (`image_shape`), found up to {reach[0]:.4g} and {reach[1]:.4g}"
        )
    return {"trajectory": trajectory, "shape": (int(image_shape[0]), int(image_shape[1]))}
