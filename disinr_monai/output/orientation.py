"""The orientation in which a radiologist looks at an image: patient's right is left, front or head is up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def radiological(image: NDArray, affine: NDArray, n_axes: int | None = None) -> tuple[NDArray, NDArray]:
    """Reorder and flip the axes of an image for the radiological view.

    Of two axes the first becomes the rows (towards posterior or feet) and the second the columns (towards the patient's
    left, or posterior). Of three axes the first becomes the slices, from the feet up.

    Args:
        image: ``(H, W)``, ``(X, Y, Z)`` or with further axes behind.
        affine: 4x4 in RAS mm; its first columns belong to the axes of the image.
        n_axes: how many leading axes are turned, two or three; all by default.

    Returns:
        A view of the image and the affine of its new axes.
    """
    from nibabel.orientations import io_orientation

    n_axes = image.ndim if n_axes is None else n_axes
    world, sign = io_orientation(affine)[:n_axes].T.astype(int)
    order = np.argsort(-world)  # S before A before R
    image = np.transpose(image, [*order, *range(n_axes, image.ndim)])
    affine = affine[:, [*order, *range(n_axes, 4)]]
    for axis in range(n_axes):
        wanted = 1 if n_axes == 3 and axis == 0 else -1
        if sign[order[axis]] != wanted:
            affine[:, 3] += affine[:, axis] * (image.shape[axis] - 1)
            affine[:, axis] *= -1
            image = np.flip(image, axis)
    return image, affine
