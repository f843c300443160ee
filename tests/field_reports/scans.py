"""CT scans of water discs by their chord lengths, in the documented geometry and without any operator of ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# x, y, radius in mm and attenuation in 1/mm, added up: water with a denser insert and a hole.
DISCS = [(0.0, 0.0, 90.0, 0.020), (35.0, 20.0, 20.0, 0.004), (-30.0, 40.0, 15.0, -0.010)]
FAN = {"source_distance": 500.0, "detector_distance": 300.0}
FULL_TURN = np.arange(120) * 2 * math.pi / 120
GOLDEN = np.arange(120) * math.pi * (math.sqrt(5) - 1)


def integrals(
    angles: np.ndarray, n: int = 200, spacing: float = 2.0, discs: Any = DISCS, photons: float = 1e5, **geometry: Any
) -> np.ndarray:
    """Noisy line integrals ``(view, cell)``; parallel beams without ``source_distance``."""
    sine, cosine = np.sin(angles)[:, None], np.cos(angles)[:, None]
    u = (np.arange(n) - (n - 1) / 2) * spacing + geometry.get("detector_offset", 0.0)
    source = geometry.get("source_distance")
    if source is None:
        start, direction = (u * cosine, u * sine), (-sine, cosine)
    else:
        far = source + geometry["detector_distance"]
        start, direction = (source * sine, -source * cosine), (-far * sine + u * cosine, far * cosine + u * sine)
    length = np.hypot(*direction)
    total = np.zeros((len(angles), n))
    for x, y, radius, attenuation in discs:
        distance = (direction[0] * (y - start[1]) - direction[1] * (x - start[0])) / length
        total = total + 2 * attenuation * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    counts = np.random.default_rng(0).poisson(photons * np.exp(-total))
    return -np.log(np.maximum(counts, 1) / photons)


def write(path: Path, sinogram: np.ndarray, angles: np.ndarray | None, spacing: float = 2.0, **values: Any) -> Path:
    """One scan with pixels of 4 mm; a value of None is left out."""
    values = {"pixel_spacing": 4.0, "image_shape": (64, 64), "detector_spacing": spacing, **values}
    values["geometry"] = values.get("geometry", "fan_flat" if "source_distance" in values else "parallel")
    with h5py.File(path, "w") as file:
        file["sinogram"] = sinogram.astype(np.float32)
        if angles is not None:
            file["angles"] = angles
        file.attrs.update({key: value for key, value in values.items() if value is not None})
    return path


def measured_hu(image: Any) -> tuple[float, float, float]:
    """Mean HU inside the water, the insert and the hole of :data:`DISCS`; true are 0, 200 and -500."""
    hu = 1200 * np.asarray(image)[0] - 1000
    y, x = np.mgrid[:64, :64]
    x, y = (x - 31.5) * 4.0, (31.5 - y) * 4.0
    insert, hole = np.hypot(x - 35, y - 20), np.hypot(x + 30, y - 40)
    water = (np.hypot(x, y) < 80) & (insert > 28) & (hole > 23)
    return float(hu[water].mean()), float(hu[insert < 14].mean()), float(hu[hole < 9].mean())
