"""Where the body is in a reference image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label
from torch import Tensor

_SMOOTH = 1.0  # voxels
_FRACTION, _PERCENTILE = 0.1, 99
_CT_TISSUE = 0.25  # HU -500 in the window [-800, 400]


def body_mask(reference: Tensor, is_hu: bool) -> Tensor:
    """Voxels of the body in a display image ``(1, *S)``; boolean, all False where there is no signal.

    The reference is smoothed (Gaussian, one voxel), what lies above a threshold is kept, of that the largest connected
    part (no table, no ghosts), and its holes are filled (lungs, ventricles). The threshold is HU -500 of CT, else a
    tenth of the 99th percentile of the smoothed image.

    Args:
        reference: as :func:`~disinr_monai.output.metrics.to_display` gives it.
        is_hu: whether it shows HU, in the window [-800, 400].
    """
    values = gaussian_filter(reference[0].double().cpu().numpy(), _SMOOTH)
    threshold = _CT_TISSUE if is_hu else _FRACTION * np.percentile(values, _PERCENTILE)
    inside = (values > threshold) & (values > 0)
    if inside.any():
        parts, _ = label(inside)
        inside = _filled(parts == np.bincount(parts[inside]).argmax())
    return torch.from_numpy(inside)[None]


def _filled(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with its holes, which are the parts of the background that do not reach the border."""
    parts, n = label(~inside)
    outer = np.zeros(n + 1, bool)
    for axis in range(inside.ndim):
        outer[np.unique(np.take(parts, (0, -1), axis))] = True
    outer[0] = False  # the mask itself
    return ~outer[parts]
