from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from disinr_monai.modality import CT_ATTENUATION, hu_to_image
from disinr_monai.operators import FanGeometry

# Few neighbouring rays have nearly the same length in the image, and their samples fit the processor's cache.
_RAYS_PER_CHUNK = 50


def simulate_fan_beam(
    hu_image: np.ndarray | Tensor,
    geometry: FanGeometry,
    *,
    photons: float = 1e5,
    electronic_noise: float = 5.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor | None, dict]:
    r"""Fan-beam measurement of a CT slice, made without the operator that inverts it.

    Rays are sampled through the slice at its own, finer resolution (bilinear, every half pixel), sub-rays of a
    detector cell are averaged as intensities, and the detector counts photons:

    .. math::
        n \sim \mathrm{Poisson}\Big(\frac{n_0}{J} \sum_j e^{-0.024 \int_j x \,\mathrm{d}\ell}\Big)
        + \mathcal N(0, σ^2), \qquad y = -\frac{\log(\max(n, 1) / n_0)}{0.024}

    with :math:`x = (\mathrm{HU} + 1000) / 1200`, not below air.

    Args:
        hu_image: slice in Hounsfield units, ``(H, W)``.
        geometry: of the scan, with the pixels of the slice; a flat detector without offsets.
        photons: incident photons per ray, :math:`n_0`; 0 is free of noise.
        electronic_noise: standard deviation :math:`σ` in counts.
        seed: of the noise; the same seed gives the same measurement.

    Returns:
        measurement ``(1, n_views, n_detectors)`` in mm; weights of the same shape, the inverse variances
        :math:`n^2 / (n + σ^2)` with mean 1 (``None`` without noise); with noise, ``rays_without_counts``.

    Raises:
        ValueError: the slice does not fit the geometry, has values that are not finite, a number is negative, the
            detector is curved or shifted, or no ray meets the object.
    """
    image = torch.as_tensor(np.asarray(hu_image), dtype=torch.float32)
    if tuple(image.shape) != geometry.image_shape or not bool(torch.isfinite(image).all()):
        raise ValueError(
            f"simulate_fan_beam: hu_image must be finite and of shape {geometry.image_shape}, found shape "
            f"{tuple(image.shape)}"
        )
    if photons < 0 or electronic_noise < 0:
        raise ValueError(
            f"simulate_fan_beam: photons and electronic_noise must be 0 or more, found {photons} and {electronic_noise}"
        )
    if geometry.curved or geometry.detector_offset or geometry.axis_offset:
        raise ValueError("simulate_fan_beam: geometry must have a flat detector without offsets")
    image = hu_to_image(image).clamp(min=0)
    n = geometry.n_detectors * geometry.n_subrays
    u = (torch.arange(n) - (n - 1) / 2) * (geometry.detector_spacing / geometry.n_subrays)
    integrals = torch.stack([_trace_view(image, geometry, angle, u) for angle in geometry.angles])
    if image.any() and not integrals.any():
        raise ValueError("simulate_fan_beam: no ray meets the object with these lengths")
    intensity = torch.exp(-CT_ATTENUATION * integrals.double()).unflatten(-1, (-1, geometry.n_subrays)).mean(-1)
    if not photons:
        return (-torch.log(intensity) / CT_ATTENUATION).float()[None], None, {}
    generator = np.random.default_rng(seed)
    counts = generator.poisson(photons * intensity.numpy()) + generator.normal(0, electronic_noise, intensity.shape)
    # Fewer than one count has no logarithm worth having.
    info = {"rays_without_counts": int((counts < 1).sum())}
    counts = torch.from_numpy(np.maximum(counts, 1))
    measurement = -torch.log(counts / photons) / CT_ATTENUATION
    weights = counts**2 / (counts + electronic_noise**2)
    return measurement.float()[None], (weights / weights.mean()).float()[None], info


def _trace_view(image: Tensor, geometry: FanGeometry, angle: float, u: Tensor) -> Tensor:
    """Line integrals in mm of one view, ``(len(u),)``."""
    sine, cosine, pixel_spacing = math.sin(angle), math.cos(angle), geometry.pixel_spacing
    near, far = geometry.source_distance, geometry.detector_distance
    source = torch.tensor((near * sine, -near * cosine))
    target = torch.stack((-far * sine + u * cosine, far * cosine + u * sine), dim=-1)
    direction = target - source
    direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    half_size = torch.tensor((image.shape[1], image.shape[0])) * (pixel_spacing / 2)
    # Where each ray enters and leaves the image and half a pixel around it (the reach of the interpolation).
    sides = torch.stack((-(half_size + pixel_spacing / 2) - source, half_size + pixel_spacing / 2 - source))
    # A ray parallel to a side divides by 0: infinities say rightly whether it is between the two sides.
    crossings = sides[:, None] / torch.where(direction == 0, 1e-30, direction)
    enter, leave = crossings.amin(0).amax(-1), crossings.amax(0).amin(-1)
    hits = torch.nonzero(leave > enter).flatten()
    integrals = torch.zeros(len(u))
    if not len(hits):
        return integrals
    step = pixel_spacing / 2
    to_grid = torch.tensor((1.0, -1.0)) / half_size
    for rays in hits.split(_RAYS_PER_CHUNK):
        first, last = float(enter[rays].min()), float(leave[rays].max())
        along = (first + step * (torch.arange(math.ceil((last - first) / step)) + 0.5))[:, None]
        grid = torch.addcmul(source * to_grid, along, (direction[rays] * to_grid)[:, None])
        samples = grid_sample(image[None, None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
        integrals[rays] = samples[0, 0].sum(-1) * step
    return integrals
