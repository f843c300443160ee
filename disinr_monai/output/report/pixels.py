"""Pixels inside a page: still pictures as PNG, and 12-bit values that the page's script windows."""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEVELS = 4095
"""Largest stored value: 12 bits, one HU a step over the usual range of CT."""


def png(grey: NDArray[np.uint8]) -> str:
    """A ``data:`` address of an 8-bit image ``(H, W)`` in grey or ``(H, W, 3)`` in colour."""
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def pack(image: NDArray, low: float, high: float) -> str:
    """Values between ``low`` and ``high`` in ``LEVELS`` steps, as text for ``viewer.js``.

    Differences of neighbours modulo 2^16 in C order, first all low bytes, then all high ones, zlib, base64.
    """
    steps = np.diff(quantise(image, low, high).ravel(), prepend=np.uint16(0))
    planes = np.concatenate([steps & 255, steps >> 8]).astype(np.uint8)
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def quantise(image: NDArray, low: float, high: float) -> NDArray[np.uint16]:
    """Stored values, 0 at ``low`` and ``LEVELS`` at ``high``; what lies beyond is clipped."""
    scaled = (np.asarray(image, dtype=np.float64) - low) * (LEVELS / (high - low))
    return np.rint(np.clip(scaled, 0, LEVELS)).astype(np.uint16)


def windowed(image: NDArray, level: float, width: float) -> NDArray[np.uint8]:
    """Grey values of a window, as the page's script draws them."""
    return np.rint(np.clip((image - level) / width + 0.5, 0, 1) * 255).astype(np.uint8)


def hot(share: NDArray) -> NDArray[np.uint8]:
    """Black, red, yellow, white for 0 to 1, as the page's script draws errors: ``(H, W, 3)``."""
    return np.rint(np.clip(share[..., None] * 3 - np.arange(3), 0, 1) * 255).astype(np.uint8)


def smaller(image: NDArray, longest: int) -> NDArray:
    """Means of blocks, so that no side is longer than ``longest``."""
    for axis, size in enumerate(image.shape):
        factor = -(-size // longest)
        if factor > 1:
            starts = np.arange(0, size, factor)
            sums = np.moveaxis(np.add.reduceat(image, starts, axis=axis), axis, -1)
            image = np.moveaxis(sums / np.diff(starts, append=size), -1, axis)
    return image
