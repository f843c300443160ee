from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def voxel_centres(shape: Sequence[int]) -> Tensor:
    """Coordinates of the voxel centres of a grid over ``[-1, 1]``, float32, ``(D, *shape)``.

    Voxel ``i`` of ``n`` is at ``(2 i + 1) / n - 1``. The first coordinate runs along the first axis.

    Args:
        shape: number of voxels along each of the ``D`` axes.
    """
    axes = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()
