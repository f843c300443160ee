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


def random_mask(width: int, acceleration: float, acs: int, seed: int = 0) -> NDArray[np.bool_]:
    """A fully sampled centre and random other phase-encoding lines, ``width / acceleration`` in all (as in fastMRI).

    Args:
        width: number of phase-encoding lines.
        acceleration: all lines over sampled lines, the centre included.
        acs: number of autocalibration lines in the centre.
        seed: of the random lines.

    Raises:
        InputError: ``acceleration`` below 1, ``acs`` out of range, or no line left beside the centre.
    """
    if not 0 <= acs <= width:
        raise InputError(f"acs: expected 0 to {width} lines (the image width), found {acs}")
    mask = np.zeros(width, dtype=bool)
    start = (width - acs + 1) // 2
    mask[start : start + acs] = True
    n_others = round(width / acceleration) - acs if acceleration >= 1 else 0
    if n_others < 1 and acs < width:
        raise InputError(
            f"acceleration: expected from 1 to below {width / max(acs, 1):.3g} with {acs} of {width} lines in the "
            f"centre, found {acceleration}; lower it or acs"
        )
    others = np.flatnonzero(~mask)
    mask[np.random.default_rng(seed).choice(others, min(n_others, len(others)), replace=False)] = True
    return mask


def poisson_mask(shape: tuple[int, int], acceleration: float, acs: int, seed: int = 0) -> NDArray[np.bool_]:
    """Variable-density Poisson-disc pattern of single samples with a fully sampled centre, boolean ``(H, W)``.

    By SigPy (Lustig and Pauly, Magn. Reson. Med. 64:457, 2010). Corners of k-space are left out.

    Args:
        shape: ``(H, W)``.
        acceleration: all samples over sampled ones, centre and corners included.
        acs: side of the centre.
        seed: of the pattern.

    Raises:
        InputError: no such pattern: ``acceleration`` too low or too high for the centre.
    """
    from sigpy.mri import poisson  # imports numba: a second

    if not 0 <= acs <= min(shape):
        raise InputError(f"acs: expected 0 to {min(shape)} lines (the image size), found {acs}")
    try:
        mask = poisson(shape, acceleration, (acs, acs), dtype=bool, seed=seed, tol=max(0.1, 0.02 * acceleration))
    except ValueError as error:
        raise InputError(
            f"acceleration: no Poisson-disc pattern of {shape[0]} x {shape[1]} with a centre of {acs} x {acs} has "
            f"{acceleration} (from about 1.5 to {shape[0] * shape[1] / max(acs, 1) ** 2:.3g}); change it or acs"
        ) from error
    block = tuple(slice(n // 2 - acs // 2, n // 2 - acs // 2 + acs) for n in shape)
    mask[block] = True
    return mask
