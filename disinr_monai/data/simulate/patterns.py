"""Non-Cartesian trajectories of simulated scans, in cycles per field of view."""

from __future__ import annotations

import math

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


_GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2


def radial_trajectory(
    shape: tuple[int, int], n_spokes: int, start: float = 0.0, oversampling: int = 2
) -> NDArray[np.float64]:
    """Spokes through the centre, each the golden angle (111.25 degrees) further than the last.

    (Winkelmann et al., IEEE Trans. Med. Imaging 26:68, 2007.) Every number of spokes is spread nearly evenly.

    Args:
        shape: ``(H, W)`` of the image; spokes end where its k-space does.
        n_spokes: number of spokes.
        start: angle of the first spoke, radians.
        oversampling: samples per cell along a spoke.

    Returns:
        ``(n_spokes, oversampling * max(H, W), 2)``: positions along rows and columns.
    """
    n_samples = oversampling * max(shape)
    angles = start + _GOLDEN_ANGLE * np.arange(n_spokes)
    directions = np.stack((np.sin(angles) * shape[0], np.cos(angles) * shape[1]), axis=-1)
    return directions[:, None] * ((np.arange(n_samples) - n_samples // 2) / n_samples)[:, None]


def n_radial_spokes(shape: tuple[int, int], acceleration: float) -> int:
    r"""Spokes of a radial scan: :math:`π/2 · \max(H, W)` sample the edge of k-space fully, divided by the factor."""
    return max(round(math.pi / 2 * max(shape) / acceleration), 1)
