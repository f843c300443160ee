"""The dual steps of the total variation prox, compiled by Numba for 2-D images on a CPU.

A step written with tensor operations passes ten times over arrays that leave the cache. Here a row of the image goes
through the whole step at once. Compiled at first use (a second or two), then kept on disk by Numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Products may be fused with sums; NaN and infinity keep their meaning.
_FAST = {"contract", "nsz", "arcp"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def dual_steps(
    image: NDArray,
    dual: NDArray,
    momentum: NDArray,
    spread: NDArray,
    step: NDArray,
    shares: NDArray,
    lowest: float,
    out: NDArray,
) -> None:
    """Fast gradient projection, one step for each entry of ``shares``; ``dual`` and ``momentum`` are changed.

    Args:
        image: the point ``(C, H, W)`` that the prox is taken of.
        dual: dual variable ``(2, C, H, W)``.
        momentum: the same shape; where the first gradient is taken.
        spread: weight of the total variation times the inverse metric, ``(H, W)``.
        step: size of a step, ``(H, W)``.
        shares: how far the momentum goes beyond each new dual.
        lowest: least value of the primal image.
        out: the primal image ``(C, H, W)`` at the end.
    """
    n_channels, height, width = image.shape
    here, below = np.empty((n_channels, width), image.dtype), np.empty((n_channels, width), image.dtype)
    down, right = np.empty((n_channels, width), image.dtype), np.empty((n_channels, width), image.dtype)
    norm = np.empty(width, image.dtype)
    one = image.dtype.type(1)
    n_steps = len(shares)
    # Row i is stepped when the primal of rows i and i + 1 is known; the round after the last step gives the image.
    for k in range(n_steps + 1):
        source = momentum if k < n_steps else dual
        for i in range(-1, height):
            r = i + 1
            if r < height:
                for c in range(n_channels):
                    value = below[c] if k < n_steps else out[c, r]
                    own, across, given, thick = source[0, c, r], source[1, c, r], image[c, r], spread[r]
                    if r > 0:
                        above = source[0, c, r - 1]
                        for j in range(width):
                            value[j] = given[j] - thick[j] * (above[j] - own[j])
                    else:
                        for j in range(width):
                            value[j] = given[j] + thick[j] * own[j]
                    value[0] += thick[0] * across[0]
                    for j in range(1, width):
                        value[j] -= thick[j] * (across[j - 1] - across[j])
                    for j in range(width):
                        value[j] = max(value[j], lowest)
            if i >= 0 and k < n_steps:
                share, size = shares[k], step[i]
                norm[:] = 0
                for c in range(n_channels):
                    x, x_below, a, b = here[c], below[c], down[c], right[c]
                    own, across = momentum[0, c, i], momentum[1, c, i]
                    if r < height:
                        for j in range(width):
                            a[j] = own[j] + size[j] * (x_below[j] - x[j])
                    else:
                        a[:] = 0
                    for j in range(width - 1):
                        b[j] = across[j] + size[j] * (x[j + 1] - x[j])
                    b[width - 1] = 0
                    for j in range(width):
                        norm[j] += a[j] * a[j] + b[j] * b[j]
                for j in range(width):
                    norm[j] = one / np.sqrt(max(norm[j], one))
                for c in range(n_channels):
                    a, kept, ahead = down[c], dual[0, c, i], momentum[0, c, i]
                    for j in range(width):
                        new = a[j] * norm[j]
                        ahead[j] = new + share * (new - kept[j])
                        kept[j] = new
                    b, kept, ahead = right[c], dual[1, c, i], momentum[1, c, i]
                    for j in range(width):
                        new = b[j] * norm[j]
                        ahead[j] = new + share * (new - kept[j])
                        kept[j] = new
            here, below = below, here
