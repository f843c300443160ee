from __future__ import annotations

from torch import Tensor
from torch.nn import functional


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
