from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError


def equispaced_mask(
    width: int, acceleration: int, acs: int, offset: int | None = None, seed: int | None = None
) -> NDArray[np.bool_]:
    """Every ``acceleration``-th phase-encoding line and a fully sampled centre, boolean ``(width,)``.

    The same lines as ``fastmri.data.subsample.EquiSpacedMaskFunc`` with the same offset. The true acceleration is lower
    than ``acceleration`` because of the centre.

    Args:
        width: number of phase-encoding lines.
        acceleration: distance between the sampled lines.
        acs: number of autocalibration lines in the centre.
        offset: first sampled line; drawn from ``0 ... acceleration - 1`` with ``seed`` if not given.
        seed: seed of that draw; without it the offset is 0.

    Raises:
        InputError: ``acceleration`` below 1, or ``acs`` or ``offset`` out of range.
    """
    if int(acceleration) != acceleration or acceleration < 1:
        raise InputError(f"acceleration: expected a whole number of at least 1, found {acceleration}")
    if not 0 <= acs <= width:
        raise InputError(f"acs: expected 0 to {width} lines (the image width), found {acs}")
    if offset is None:
        offset = 0 if seed is None else int(np.random.default_rng(seed).integers(acceleration))
    if not 0 <= offset < acceleration:
        raise InputError(f"offset: expected 0 to {acceleration - 1}, found {offset}")
    mask = np.zeros(width, dtype=bool)
    mask[offset :: int(acceleration)] = True
    start = (width - acs + 1) // 2
    mask[start : start + acs] = True
    return mask


def acs_size(mask: NDArray) -> tuple[int, ...]:
    """Size of the fully sampled region in the middle of a sampling mask, one number per axis of ``mask``.

    The region is the block ``[n // 2 - size // 2, n // 2 - size // 2 + size)`` along every axis, which is what
    calibration software cuts out. In 2-D it is the block with the longest shorter side (then the largest area), because
    the shorter side limits the calibration. All zeros if the centre itself is not sampled.

    Args:
        mask: real or boolean, ``(W,)`` or ``(H, W)``; non-zero is sampled.

    Raises:
        ValueError: ``mask`` has another rank.
    """
    sampled = np.asarray(mask) != 0
    if sampled.ndim == 1:
        return (_centred_run(sampled),)
    if sampled.ndim != 2:
        raise ValueError(f"acs_size: mask must have shape (W,) or (H, W), found {sampled.shape}")
    height, centre = sampled.shape[0], sampled.shape[0] // 2
    best = (0, 0)
    for rows in range(1, height + 1):
        start = centre - rows // 2
        columns = _centred_run(sampled[start : start + rows].all(axis=0))
        if columns == 0:
            break
        best = max(best, (rows, columns), key=lambda block: (min(block), block[0] * block[1]))
    return best


def _centred_run(line: NDArray[np.bool_]) -> int:
    centre, size = len(line) // 2, 0
    while size < len(line) and line[centre - (size + 1) // 2] and line[centre - (size + 1) // 2 + size]:
        size += 1
    return size
