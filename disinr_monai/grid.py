"""The part of a field of view that is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from disinr_monai.errors import InputError


def voxel_centres(shape: Sequence[int]) -> Tensor:
    """Coordinates of the voxel centres of a grid over ``[-1, 1]``, float32, ``(D, *shape)``.

    Voxel ``i`` of ``n`` is at ``(2 i + 1) / n - 1``. The first coordinate runs along the first axis.

    Args:
        shape: number of voxels along each of the ``D`` axes.
    """
    axes = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()


_MAX_VOXELS = 2**29


def output_grid(
    shape: Sequence[int], affine: NDArray, spacing: float | Sequence[float]
) -> tuple[Tensor, NDArray[np.float64]]:
    r"""Voxel centres of another grid over the same field of view, in the coordinates of the source's.

    Along each axis the field of view :math:`n s` holds :math:`n' = \max(1, \mathrm{round}(n s / s'))` new voxels around
    the same middle, so it is kept to within half a new voxel.

    Args:
        shape: voxels of the source along its axes, two (a slice) or three.
        affine: 4x4 of the source, RAS mm; its first columns belong to these axes.
        spacing: :math:`s'` in mm, one number or one an axis; a third one is ignored for a slice.

    Returns:
        Points ``(D, *T)``, float32 (never outside [-1, 1], but up to half a source voxel outside the outermost source
        centres), and the 4x4 affine of the new grid.

    Raises:
        InputError: not positive numbers, the wrong number of them, or too fine.
    """
    n_axes = len(shape)
    try:
        wanted = np.array([spacing] * n_axes if np.ndim(spacing) == 0 else spacing, dtype=float)
    except (TypeError, ValueError):
        wanted = np.zeros(0)
    if len(wanted) not in (n_axes, 3) or not (np.isfinite(wanted).all() and (wanted > 0).all()):
        raise InputError(
            f"output_spacing: expected one positive number or {n_axes} of them, in mm, found {spacing!r}; for example "
            "--output_spacing 1.0 or --output_spacing '[1.0,1.0,2.0]'"
        )
    wanted = wanted[:n_axes]
    old = np.linalg.norm(affine[:3, :n_axes], axis=0)
    lengths = np.asarray(shape) * old
    counts = np.maximum(np.round(lengths / wanted), 1)
    if counts.prod() > _MAX_VOXELS:
        raise InputError(
            f"output_spacing: expected at most {_MAX_VOXELS:,} voxels, found {' x '.join(f'{n:.0f}' for n in counts)}; "
            "choose a larger one"
        )
    offsets = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, wanted, strict=True)]
    axes = [torch.from_numpy(2 * offset / length).float() for offset, length in zip(offsets, lengths, strict=True)]
    new = np.array(affine, dtype=float)
    new[:3, :n_axes] = affine[:3, :n_axes] * (wanted / old)
    first = np.array([offset[0] for offset in offsets]) / old + (np.asarray(shape) - 1) / 2  # in source voxels
    new[:3, 3] = affine[:3, 3] + affine[:3, :n_axes] @ first
    return torch.stack(torch.meshgrid(*axes, indexing="ij")), new


def interpolate(image: Tensor, points: Tensor) -> Tensor:
    """Linear interpolation of an image on its voxel centres, constant beyond the outermost ones.

    Args:
        image: ``(C, *S)``, two or three spatial axes.
        points: ``(D, *T)`` in [-1, 1].

    Returns:
        ``(C, *T)``.
    """
    n_axes = len(points)
    # grid_sample takes the last axis first.
    grid = points.flatten(1).flip(0).t().reshape(1, *[1] * (n_axes - 1), -1, n_axes).to(image.dtype)
    values = functional.grid_sample(image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.reshape(len(image), *points.shape[1:])


def centre_block(n: int, n_kept: int) -> slice:
    """The ``n_kept`` of ``n`` positions around ``n // 2``, so that the centre stays the centre."""
    start = n // 2 - n_kept // 2
    return slice(start, start + n_kept)


def crop_image(image: Tensor, sizes: tuple[int, ...] | None) -> Tensor:
    """The centre of an image ``(C, *S)``, of the given sizes; all of it without any."""
    if sizes is None:
        return image
    return image[:, *(centre_block(n, kept) for n, kept in zip(image.shape[1:], sizes, strict=True))]
