"""Images of field reports: phantoms, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


def grid(n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from the middle, mm."""
    y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * 3.0
    return y, x


def head(n: int = 64) -> np.ndarray:
    """A magnitude: air 0, no symmetry."""
    y, x = grid(n)
    image = 60.0 * ((x / 66) ** 2 + (y / 81) ** 2 < 1)
    image[(x - 24) ** 2 + (y + 27) ** 2 < 21**2] = 150
    image[(x + 27) ** 2 + (y - 30) ** 2 < 12**2] = 200
    return image


def body(n: int = 64) -> np.ndarray:
    """HU: air, soft tissue, lung and bone."""
    y, x = grid(n)
    image = np.full((n, n), -1000.0)
    image[(x / 70) ** 2 + (y / 55) ** 2 < 1] = 40
    image[(x - 30) ** 2 + (y + 9) ** 2 < 18**2] = -850
    image[(x + 33) ** 2 + (y - 9) ** 2 < 12**2] = 300
    return image


def outside(n: int = 64) -> np.ndarray:
    """What a round field of view leaves out."""
    y, x = grid(n)
    return x**2 + y**2 > (1.5 * (n - 1)) ** 2


def nifti(path: Path, image: np.ndarray, dtype: Any = np.float32) -> Path:
    """Write an image ``(H, W)`` or ``(H, W, D)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image[..., None] if image.ndim == 2 else image
    nibabel.save(nibabel.Nifti1Image(image.astype(dtype), AFFINE), path)
    return path
