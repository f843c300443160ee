"""A random chest of ellipsoids in three dimensions. For demonstrations and tests of volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class _Block:
    """A block of voxels over ``[-1, 1]`` to the right, front and top; shapes are painted over."""

    def __init__(self, shape: tuple[int, int, int], background: float) -> None:
        self.axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij", sparse=True)
        self.voxel = 2 / max(shape)
        self.image = np.full(shape, background, dtype=np.float64)

    def ellipsoid(
        self, centre: tuple[float, float, float], axes: tuple[float, float, float], value: float, inside=None
    ) -> NDArray:
        """Paint one (semi-axes ``axes``; infinity makes a cylinder); return how much of each voxel it covers."""
        parts = [(x - c) / a for x, c, a in zip(self.axes, centre, axes, strict=True)]
        radius = np.sqrt(sum(p**2 for p in parts))
        slope = np.sqrt(sum((p / a) ** 2 for p, a in zip(parts, axes, strict=True))) / np.maximum(radius, 1e-9)
        # Signed distance to the surface in voxels, to first order: one voxel of partial volume.
        cover = np.clip(0.5 - (radius - 1) / np.maximum(slope, 1e-9) / self.voxel, 0, 1)
        cover = cover if inside is None else cover * inside
        self.image += cover * (value - self.image)
        return cover


def chest_volume(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Chest in HU, float32 ``(size, size, size // 2)``; body, lungs with vessels, heart, liver on the right, spine.

    Args:
        size: voxels along the two axes in the axial plane.
        rng: source of the subject's variation.
    """

    def vary(value: float, spread: float = 0.08) -> float:
        return value * rng.uniform(1 - spread, 1 + spread)

    block = _Block((size, size, max(size // 2, 1)), -1000.0)
    width, depth = vary(0.85), vary(0.6)
    block.ellipsoid((0, 0, 0), (width, depth, np.inf), rng.normal(-100, 8))
    body = block.ellipsoid((0, 0, 0), (0.92 * width, 0.9 * depth, np.inf), rng.normal(45, 8))
    lungs = np.zeros_like(body)
    for side in (-1, 1):
        centre = (side * vary(0.45) * width, 0.05 * depth, 0.15)
        lung = block.ellipsoid(centre, (vary(0.32) * width, vary(0.68) * depth, vary(0.9)), rng.normal(-840, 25), body)
        lungs = np.maximum(lungs, lung)
    block.ellipsoid((vary(0.4) * width, 0, -0.95), (0.5 * width, 0.6 * depth, vary(0.55)), rng.normal(60, 6), body)
    block.ellipsoid((-0.12, vary(0.2) * depth, -0.2), (vary(0.24), vary(0.22), vary(0.4)), rng.normal(50, 8), body)
    block.ellipsoid((-0.15, 0.2 * depth, -0.2), (0.1, 0.1, 0.2), rng.normal(150, 30), body)
    block.ellipsoid((0, -0.6 * depth, 0), (0.1, 0.08, np.inf), rng.normal(220, 30), body)
    block.ellipsoid((-0.1, -0.3 * depth, 0), (0.06, 0.06, np.inf), rng.normal(140, 30), body)
    for _ in range(rng.integers(20, 30)):
        centre = (rng.choice((-1, 1)) * rng.uniform(0.2, 0.7) * width, *rng.uniform(-0.5, 0.6, size=2))
        block.ellipsoid(centre, tuple(rng.uniform(0.015, 0.05, size=3)), rng.normal(30, 15), lungs)
    return block.image.astype(np.float32)
