"""Objects whose line integrals are known: ellipses seen by any 2-D beam, a disc seen along parallel lines."""

import math

import numpy as np
import torch

from disinr_monai.operators import ParallelBeam

# x, y, semi-axes, angle, value: nothing of it is symmetric. The large one is the body.
ELLIPSES = [
    (2.0, -3.0, 38.0, 30.0, 0.3, 0.85),
    (-14.0, 9.0, 9.0, 7.0, 1.0, 0.15),
    (15.0, -8.0, 7.5, 7.5, 0.0, -0.45),
    (8.0, 12.0, 6.5, 9.0, 0.6, 0.35),
]


def lines(operator) -> tuple[np.ndarray, np.ndarray]:
    """A point and a unit direction of every cell's middle ray, from the documented convention alone, ray by ray."""
    points, directions = [], []
    geometry, n = operator.geometry, operator.range_shape[-1]
    for angle in geometry.angles:
        axis = np.array([math.cos(angle), math.sin(angle)])
        normal = np.array([-math.sin(angle), math.cos(angle)])
        for k in range(n):
            u = (k - (n - 1) / 2) * geometry.detector_spacing + geometry.detector_offset
            if isinstance(operator, ParallelBeam):
                point, direction = u * axis, normal
            else:
                point = -geometry.source_distance * normal - geometry.axis_offset * axis
                far = geometry.source_distance + geometry.detector_distance
                if geometry.curved:
                    direction = math.cos(u / far) * normal + math.sin(u / far) * axis
                else:
                    direction = (far * normal + u * axis) / math.hypot(far, u)
            points.append(point)
            directions.append(direction)
    shape = (*operator.range_shape[1:], 2)
    return np.reshape(points, shape), np.reshape(directions, shape)


def analytic(operator, ellipses=ELLIPSES) -> torch.Tensor:
    """Exact line integrals of ellipses along the middle rays, ``range_shape``."""
    points, directions = lines(operator)
    total = np.zeros(points.shape[:-1])
    for x, y, a, b, turn, value in ellipses:
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        p = (points - [x, y]) @ rotation.T / [a, b]
        d = directions @ rotation.T / [a, b]
        aa, bb, cc = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
        total += value * 2 * np.sqrt(np.maximum(bb * bb - aa * cc, 0)) / aa
    return torch.tensor(total, dtype=torch.float32)[None]


def picture(shape, spacing, ellipses=ELLIPSES, fine=4) -> torch.Tensor:
    """The ellipses on the pixel grid: columns along +x, rows along -y."""
    height, width = shape
    x = ((np.arange(width * fine) + 0.5) / fine - width / 2) * spacing
    y = -((np.arange(height * fine) + 0.5) / fine - height / 2)[:, None] * spacing
    total = np.zeros((height * fine, width * fine))
    for x0, y0, a, b, turn, value in ellipses:
        along = (x - x0) * math.cos(turn) + (y - y0) * math.sin(turn)
        across = -(x - x0) * math.sin(turn) + (y - y0) * math.cos(turn)
        total += value * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return torch.tensor(total.reshape(height, fine, width, fine).mean((1, 3)), dtype=torch.float32)[None]


def disc_chords(angles: np.ndarray, n_bins: int, spacing: float, x: float, y: float, radius: float) -> torch.Tensor:
    """Chord lengths of a disc, averaged over each bin: the exact sinogram of it."""
    u = (np.arange(20 * n_bins) - (20 * n_bins - 1) / 2) * spacing / 20
    distance = u[None] - (x * np.cos(angles) + y * np.sin(angles))[:, None]
    chords = 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    return torch.from_numpy(chords.reshape(len(angles), n_bins, 20).mean(-1)).float()[None]


def disc(size: int, spacing: float, x: float, y: float, radius: float) -> torch.Tensor:
    """Area of each pixel inside the disc; columns along +x, rows along -y."""
    fine = (np.arange(8 * size) - (8 * size - 1) / 2) * spacing / 8
    inside = ((fine[None] - x) ** 2 + (-fine[:, None] - y) ** 2 < radius**2).astype(np.float32)
    return torch.from_numpy(inside.reshape(size, 8, size, 8).mean((1, 3)))[None]
