"""Checks of image values: HU of CT, magnitudes of MR, activity of PET. Clipped values are counted."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError
from disinr_monai.modality import HU_AIR

logger = logging.getLogger(__name__)

HU_WINDOW = (-800.0, 400.0)
_AIR = -200.0
# Largest value of the extended CT scale; above _METAL lies only metal, and that is small.
_HIGHEST, _METAL, _METAL_SHARE = 30_710.0, 4000.0, 0.1
# Noise and undershoot of air reach down to _LOWEST; what lies below and is not one value outside the field of view is
# no HU.
_LOWEST, _LOW_SHARE, _AIR_RANGE = -1200.0, 0.1, (-1150.0, -850.0)
_TISSUE, _TISSUE_SHARE = (-200.0, 250.0), 0.02
_BRIGHT_CORNER = 2000.0
_NEGATIVE_ENERGY, _NEGATIVE_VOXELS, _NOTICED = 0.01, 0.05, 0.01


_NOT_NEGATIVE = {"pet": "an activity (PET)", "mumap": "attenuation in 1/mm (not HU)"}


def hounsfield(image: NDArray, label: str, needs_air: bool = True) -> NDArray[np.float32]:
    """Check that values are HU and set what lies below air to air, -1000 HU; the log counts it.

    One value below -1200 HU is the padding outside a round field of view where there is also air near -1000 HU and soft
    tissue.

    Args:
        image: of any shape, a slice or a volume.
        label: what messages call it.
        needs_air: refuse an image without air, whose scale cannot be told.

    Raises:
        InputError: nothing between -800 and 400 HU, no air, values above 30,710 HU, many above 4000 HU, all corners
            above 2000 HU, or many different ones below -1200 HU.
    """
    low, high = float(image.min()), float(image.max())
    in_window = ((image >= HU_WINDOW[0]) & (image <= HU_WINDOW[1])).any()
    # An image scaled to 0 ... 1 or 0 ... 255 lies in the window too, so air is asked for as well.
    if not in_window or (needs_air and low > _AIR):
        raise InputError(
            f"{label}: expected CT values in HU, in the window [-800, 400] and with air (about -1000), found {low:g} "
            f"to {high:g}; convert the image to HU"
        )
    corners = image[np.ix_(*[[0, -1]] * image.ndim)]
    dense = float((image > _METAL).mean())
    if high > _HIGHEST or dense > _METAL_SHARE or corners.min() > _BRIGHT_CORNER:
        top = float((image == high).mean())
        raise InputError(
            f"{label}: expected CT values in HU (at most {_HIGHEST:.0f}, above {_METAL:.0f} only metal, corners of "
            f"air), found {low:g} to {high:g}, {_percent(dense)} above {_METAL:.0f} and {_percent(top)} at the highest "
            "value; is it padding outside the field of view? Set it to -1000 (air)"
        )
    below = image < _LOWEST
    if below.any():
        found, counts = np.unique(image[below], return_counts=True)
        padding = image == found[counts.argmax()]
        rest = float((below & ~padding).mean())
        has_air = ((image >= _AIR_RANGE[0]) & (image <= _AIR_RANGE[1])).any()
        has_tissue = ((image >= _TISSUE[0]) & (image <= _TISSUE[1])).mean() > _TISSUE_SHARE
        if rest > _LOW_SHARE or (padding.mean() > _LOW_SHARE and not (has_air and has_tissue)):
            raise InputError(
                f"{label}: expected CT values in HU with air near -1000 and soft tissue near 0, found {low:g} "
                f"to {high:g}, {_percent(float(below.mean()))} below {_LOWEST:.0f}; is the intercept subtracted twice?"
            )
    return _clipped(image, HU_AIR, label, "HU, taken for air (padding, noise)")


def not_negative(
    image: NDArray, label: str, modality: str = "mri", whole: NDArray | None = None
) -> NDArray[np.float32]:
    """Check that a magnitude, an activity or an attenuation is not negative.

    A little ringing is set to 0 and counted in the log.

    Args:
        image: of any shape, a slice or a volume.
        label: what messages call it.
        modality: ``"mri"``, ``"pet"`` or ``"mumap"``.
        whole: the volume that a slice is from, which is checked too.

    Raises:
        InputError: negative values hold more than 1 % of the energy, or more than 5 % of the voxels lie below -1 % of
            the maximum.
    """
    for part in (image,) if whole is None else (whole, image):
        if not (part < 0).any():
            continue
        if too_negative(part):
            values = np.asarray(part, dtype=np.float64)
            mean, spread = float(values.mean()), float(values.std())
            cause = _cause(float(values.min()), float(values.max()), mean, spread)
            expected = _NOT_NEGATIVE.get(modality, "a magnitude image (MR)")
            raise InputError(
                f"{label}: expected {expected} without negative values, found {values.min():g} to "
                f"{values.max():g}, {_percent(float((values < 0).mean()))} of the voxels negative (mean {mean:.3g}, "
                f"standard deviation {spread:.3g}: {cause}); give the magnitude, as it was before normalisation"
            )
    return _clipped(image, 0.0, label, "(ringing of an interpolation, noise)")


def too_negative(image: NDArray) -> bool:
    """Tell whether more than a small share of the energy or of the voxels is negative."""
    negative = image[image < 0].astype(np.float64)
    if not negative.size:
        return False
    values = image.reshape(-1)[:: max(image.size // 2**20, 1)].astype(np.float64)
    top = float(np.percentile(np.abs(values), 99.9))
    energy = float((negative**2).mean()) * negative.size / float((values**2).mean() * image.size)
    return energy > _NEGATIVE_ENERGY or float((negative < -_NOTICED * top).sum()) / image.size > _NEGATIVE_VOXELS


def _cause(low: float, high: float, mean: float, spread: float) -> str:
    if 0.9 < -low / max(high, 1e-30) < 1.1:
        return "most likely a phase, real or imaginary image, or a z-score"
    if abs(mean) < 0.1 * spread:
        return "most likely a z-score, an image normalised to mean 0"
    return "a z-score over a part of it, another normalisation, or a difference image"


def _clipped(image: NDArray, lowest: float, label: str, why: str) -> NDArray[np.float32]:
    below = image < lowest
    if below.any():
        text = "%s: %d values (%s) below %g, down to %g, set to %g %s"
        share = _percent(float(below.mean()))
        logger.info(text, label, below.sum(), share, lowest, float(image.min()), lowest, why)
    return np.maximum(image, np.float32(lowest)).astype(np.float32, copy=False)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
