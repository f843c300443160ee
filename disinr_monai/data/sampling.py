from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError


def is_fully_sampled(measured: NDArray[np.bool_]) -> bool:
    """Whether the measured samples ``(H, W)`` fill their bounding block and that lies in the middle.

    Outer zeros on both sides are padding; on one side they were not measured (partial Fourier, asymmetric echo).
    """
    rows, columns = np.flatnonzero(measured.any(1)), np.flatnonzero(measured.any(0))
    if len(rows) == 0:
        return False
    for n, axis in zip(measured.shape, (rows, columns), strict=True):
        before, after = n // 2 - axis[0], axis[-1] + 1 - n // 2
        if abs(before - after) > 1 + 0.1 * max(before, after):
            return False
    block = measured[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A stray exact zero happens in real data; a skipped line is at least 1 / width of the samples.
    return bool(block.mean() > 1 - 0.5 / max(block.shape))


def checked_slice(slice_index: int | None, n_slices: int, path: str | Path) -> int:
    """The slice number, 0 where there is only one.

    Raises:
        InputError: none given although there are several, or no such slice.
    """
    if slice_index is None and n_slices > 1:
        raise InputError(f"{path}: expected a slice number from 0 to {n_slices - 1}, found none")
    index = slice_index or 0
    if not 0 <= index < n_slices:
        raise InputError(f"{path}: expected a slice number from 0 to {n_slices - 1}, found {index}")
    return index
