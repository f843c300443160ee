"""Pixels inside a page: still pictures as PNG, and 12-bit values that the page's script windows."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

LEVELS = 4095
"""Largest stored value: 12 bits, one HU a step over the usual range of CT."""


def png(grey: NDArray[np.uint8]) -> str:
    """A ``data:`` address of an 8-bit image ``(H, W)`` in grey or ``(H, W, 3)`` in colour."""
    height, width = grey.shape[:2]
    rows = grey.reshape(height, -1).astype(np.uint8)
    upwards = rows.copy()
    upwards[1:] -= rows[:-1]  # filter 2 of PNG: the difference to the row above, modulo 256
    raw = np.concatenate([np.full((height, 1), 2, np.uint8), upwards], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if grey.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def pack(image: NDArray, low: float, high: float) -> str:
    """Values between ``low`` and ``high`` in ``LEVELS`` steps, as text for ``viewer.js``.

    Differences of neighbours modulo 2^16 in C order, first all low bytes, then all high ones, zlib, base64.
    """
    stored = quantise(image, low, high)
    steps = np.diff(stored.ravel(), prepend=np.uint16(0))
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
    share = np.clip(share, 0, 1)[..., None] * 3 - np.arange(3)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def upright(image: NDArray, affine: NDArray | None) -> NDArray:
    """``(row, column)`` or ``(slice, row, column)`` as a radiologist looks at it: patient's right is left, front is up.

    Args:
        image: ``(H, W)`` or ``(X, Y, Z)``.
        affine: 4x4 in RAS mm; None leaves the axes as they are stored (a volume's last becomes the slice).
    """
    if affine is None:
        return image if image.ndim == 2 else np.moveaxis(image, 2, 0)
    from nibabel.orientations import io_orientation

    world, sign = io_orientation(affine)[: image.ndim].T.astype(int)
    order = np.argsort(-world)  # S before A before R: slices, rows, columns
    image, sign = np.transpose(image, order), sign[order]
    for axis in range(image.ndim):
        # Rows run down, columns towards the patient's left (or back); slices of a volume from the feet up.
        if sign[axis] != (1 if image.ndim == 3 and axis == 0 else -1):
            image = np.flip(image, axis)
    return image


def spacing_of(affine: NDArray | None, n_axes: int) -> list[float]:
    """Voxel size in mm along the axes of :func:`upright`."""
    if affine is None:
        return [1.0] * n_axes
    from nibabel.orientations import io_orientation

    order = np.argsort(-io_orientation(affine)[:n_axes, 0])
    return [float(np.linalg.norm(affine[:3, axis])) for axis in order]


def smaller(image: NDArray, longest: int) -> NDArray:
    """Means of blocks, so that no side is longer than ``longest``."""
    for axis, size in enumerate(image.shape):
        factor = -(-size // longest)
        if factor > 1:
            starts = np.arange(0, size, factor)
            counts = np.diff(np.append(starts, size)).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
            image = np.add.reduceat(image, starts, axis=axis) / counts
    return image
