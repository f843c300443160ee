from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disinr_monai.errors import InputError

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
