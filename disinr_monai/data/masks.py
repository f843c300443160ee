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
