"""Physical values of DICOM pixels: slope and intercept, padding, inverted display."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from disinr_monai.data.readers.dicom_frames import Frame
from disinr_monai.modality import HU_AIR

logger = logging.getLogger(__name__)

_AIR_RANGE = (-1150.0, -850.0)
# Where the border of an inverted image lies at least between the lowest and the highest value. HU and Bq/ml are values
# of their own right, whatever a viewer does with them, so that more is asked of them.
_BRIGHT = {"MR": 0.3}
_BRIGHT_WITH_UNIT, _SHARE_OF_RANGE = 0.7, 0.05


def physical_values(
    stored: NDArray[np.float32], frames: Sequence[Frame], kind: str, series: str
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Turn stored pixels into values: rescaled, low end dark, padding set to air (-1000 HU for CT, else 0).

    Padding whose value other pixels have too counts only where it touches the border of its slice: 0 may be stored
    for both. An image of PhotometricInterpretation MONOCHROME1 is inverted unless its border, which is air, is dark as
    stored: then only its display is inverted. The log says what was done.

    Args:
        stored: ``(row, column, slice)``; overwritten.
        frames: of the slices.
        kind: DICOM modality.
        series: what the log calls it.

    Returns:
        The values, and ``padding_voxels`` and ``inverted`` where they apply.
    """
    info: dict[str, Any] = {}
    padding = _padding_of(stored, frames)
    slope, intercept = (np.array([frame.rescale[i] for frame in frames], dtype=np.float32) for i in (0, 1))
    turned = np.array([frame.mirror is not None for frame in frames])
    if turned.any() and _is_inverted(stored * slope + intercept, padding, turned, kind):
        info["inverted"] = True
        _invert(stored, frames, padding, turned, kind, series)
    elif turned.any():
        logger.info("%s: MONOCHROME1, with a dark border as stored: values taken as they are", series)
    values = stored
    values *= slope
    values += intercept
    if padding is not None and padding.any():
        info["padding_voxels"] = int(padding.sum())
        air = HU_AIR if kind == "CT" else 0.0
        values[padding] = air
        share = 100 * info["padding_voxels"] / padding.size
        text = "%s: %d voxels (%.2g %%) of padding (PixelPaddingValue) taken for air, %g"
        logger.info(text, series, info["padding_voxels"], share, air)
    return values, info


def _padding_of(stored: NDArray, frames: Sequence[Frame]) -> NDArray[np.bool_] | None:
    if all(frame.padding is None for frame in frames):
        return None
    padding = np.zeros(stored.shape, dtype=bool)
    for index, frame in enumerate(frames):
        if frame.padding is not None:
            low, high = frame.padding
            padding[..., index] = (stored[..., index] >= low) & (stored[..., index] <= high)
    if padding.all() or not padding.any():
        return np.zeros_like(padding)
    others = stored[~padding]
    low, high = float(others.min()), float(others.max())
    for index, frame in enumerate(frames):
        if frame.padding is not None and frame.padding[1] > low and frame.padding[0] < high:
            parts, _ = label(padding[..., index])
            edge = np.unique(np.concatenate([parts[[0, -1]].ravel(), parts[:, [0, -1]].ravel()]))
            padding[..., index] = np.isin(parts, edge[edge > 0])
    return padding


def _is_inverted(values: NDArray, padding: NDArray | None, turned: NDArray, kind: str) -> bool:
    image = np.ones(values.shape, dtype=bool) if padding is None else ~padding
    image &= turned
    border = np.zeros(values.shape, dtype=bool)
    border[[0, -1]], border[:, [0, -1]] = True, True
    if not image.any():
        return False
    inside = values[image & border] if (image & border).any() else values[image]
    low, high = float(values[image].min()), float(values[image].max())
    return float(np.median(inside)) - low > _BRIGHT.get(kind, _BRIGHT_WITH_UNIT) * (high - low)


def _invert(
    stored: NDArray, frames: Sequence[Frame], padding: NDArray | None, turned: NDArray, kind: str, series: str
) -> None:
    """Mirror stored values, about the middle of what the pixels can hold or, where that leaves no air, of the image."""
    image = np.broadcast_to(turned, stored.shape) if padding is None else turned & ~padding
    low, high = float(stored[image].min()), float(stored[image].max())
    first = frames[int(np.argmax(turned))]
    mirror = float(first.mirror or 0)
    slope, intercept = first.rescale
    how = "about the range of its pixels"
    if kind == "CT":
        if not _AIR_RANGE[0] <= slope * (mirror - high) + intercept <= _AIR_RANGE[1]:
            mirror, how = (HU_AIR - intercept) / slope + high, "so that its lowest value is air"
    elif mirror - high > _SHARE_OF_RANGE * (high - low):
        mirror, how = high, "so that its lowest value is 0"
    stored[..., turned] = mirror - stored[..., turned]
    logger.info("%s: MONOCHROME1 with a bright border: values inverted %s", series, how)
