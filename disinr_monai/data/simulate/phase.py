"""The phase of a real image: sharp at fat and water, vessels and air, random where there is no signal.

A magnitude image does not know its phase, so this draws one that its edges allow. Facts and their sources:

* fat precesses 3.5 ppm slower than water (Dixon, Radiology 153:189, 1984), protons at 42.577 MHz/T;
* tissue has a susceptibility of -9.05 ppm (water), air 0.36 ppm; the field around a sphere of air is a dipole's
  (Schenck, Med. Phys. 23:815, 1996);
* frequencies of grey and white matter differ by some 0.01 to 0.03 ppm (Duyn et al., PNAS 104:11796, 2007);
* a magnitude m in noise of standard deviation σ in each channel has the mean square m² + 2σ²; without signal the phase
  is uniform (Gudbjartsson and Patz, Magn. Reson. Med. 34:910, 1995).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FAT_PPM = -3.5
_MHZ_PER_TESLA = 42.577
_AIR_PPM = 0.36 + 9.05
_TISSUE_PPM = 0.02
_RIM = 0.08  # thickness of scalp or skin over the square root of the object's area


class Echo(NamedTuple):
    """What turns a frequency into a phase.

    Attributes:
        tesla: field strength.
        ms: time from the excitation to the gradient echo, or from the centre of a spin echo to the readout's.
    """

    tesla: float
    ms: float

    def radians(self, ppm: float | NDArray) -> float | NDArray:
        """Phase that a frequency offset in parts per million gathers, :math:`2π γ B_0 T_E δ`."""
        return 2e-3 * np.pi * _MHZ_PER_TESLA * self.tesla * self.ms * ppm


def random_echo(rng: np.random.Generator) -> Echo:
    """Draw an echo at 1.5, 3 or 7 T: in one of four scans a spin echo, else a gradient echo of 2 to 30 ms."""
    tesla = rng.choice([1.5, 3.0, 7.0], p=[0.4, 0.5, 0.1])
    spin = rng.random() < 0.25
    return Echo(float(tesla), rng.uniform(-0.2, 0.2) if spin else float(np.exp(rng.uniform(*np.log([2.0, 30.0])))))


def tissue_factor(magnitude: NDArray, rng: np.random.Generator, echo: Echo | None = None) -> NDArray[np.complex128]:
    r"""Draw the complex factor that makes an object of a magnitude image, besides its smooth phase.

    .. math:: c = \left[(1 - f)\, s\, e^{i (ω_t T_E + φ_v)} + f e^{i ω_f T_E}\right] e^{i (ω_a T_E + φ_k)}

    * f: fraction of fat, the bright part of the outermost rim (scalp, skin). It is between 0 and 1 at its edges:
      fat and water of one voxel add as complex numbers and may cancel, so :math:`|c| \le 1`;
    * :math:`ω_f, ω_t, ω_a`: chemical shift of fat, offset of each of three tissue classes (by brightness), dipoles of
      air cavities near the outline in and out of the plane, after a linear shim;
    * :math:`φ_v`: phase of flow in vessels, which are small spots brighter or darker than their surroundings, and in
      one larger one next to the rim;
    * :math:`φ_k`: a slope, of an echo that is off the middle of k-space by some sample;
    * s: sign, in one of seven scans negative in the darkest class (inversion recovery).

    Where the magnitude is near the noise floor that its background shows, the phase is that of signal plus noise.

    Args:
        magnitude: ``(H, W)``, non-negative.
        rng: source of all that is drawn.
        echo: field strength and echo time; drawn by :func:`random_echo` if not given.

    Returns:
        complex128 ``(H, W)``; 1 for an image without an object.
    """
    magnitude = np.maximum(magnitude.astype(np.float64), 0)
    echo = echo or random_echo(rng)
    inside = object_mask(magnitude)
    if not inside.any():
        return np.ones(magnitude.shape, complex)
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    fat = fat_fraction(magnitude, inside)
    dark, ppm = _tissues(magnitude, inside & (fat < 0.5), rng)
    sign = 1 - 2 * dark if rng.random() < 1 / 7 else 1.0
    water = sign * np.exp(1j * (echo.radians(ppm) + _flow(magnitude, depth, fat, rng)))
    factor = (1 - fat) * water + fat * np.exp(1j * echo.radians(FAT_PPM))
    turns = zip(rng.normal(0, 1, 2), np.indices(inside.shape), inside.shape, strict=True)
    slope = sum(2 * np.pi * turn * axis / n for turn, axis, n in turns)
    factor = factor * np.exp(1j * (echo.radians(_air(inside, rng)) + slope))
    return _with_noise(magnitude, factor, inside, rng)


def object_mask(magnitude: NDArray) -> NDArray[np.bool_]:
    """Largest connected part above the background, without its holes; empty for an empty image."""
    smooth = ndimage.gaussian_filter(magnitude.astype(np.float64), 1)
    bright = smooth[smooth > 0.02 * smooth.max()] if smooth.max() > 0 else smooth[:0]
    if not bright.size:
        return np.zeros(magnitude.shape, bool)
    labels, n = ndimage.label(smooth > 0.1 * np.quantile(smooth, 0.99))
    if n == 0:
        return np.zeros(magnitude.shape, bool)
    return ndimage.binary_fill_holes(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def fat_fraction(magnitude: NDArray, inside: NDArray) -> NDArray[np.float64]:
    """Fraction of fat of each voxel: the bright part of the rim of the object ``inside``, soft at its edges."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    rim = inside & (depth <= max(_RIM * np.sqrt(inside.sum()), 1))
    low, high = _centres(magnitude[rim], 2)
    fat = rim & (magnitude > (low + high) / 2)
    return ndimage.gaussian_filter(fat.astype(np.float64), 0.6)


def _centres(values: NDArray, n: int) -> NDArray:
    """Means of ``n`` classes by k-means in one dimension, ascending."""
    centres = np.quantile(values, (np.arange(n) + 0.5) / n)
    for _ in range(20):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(n)])
    return np.sort(centres)


def _tissues(magnitude: NDArray, water: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Fraction of the darkest of three tissues, and the offset of the mixture in ppm."""
    offsets = rng.normal(0, _TISSUE_PPM, 3)
    if not water.any():
        return np.zeros(magnitude.shape), np.zeros(magnitude.shape)
    calm = ndimage.gaussian_filter(magnitude, 0.6)
    classes = np.abs(calm[..., None] - _centres(calm[water], 3)).argmin(-1)
    dark = ndimage.gaussian_filter(((classes == 0) & water).astype(np.float64), 0.6)
    return dark, ndimage.gaussian_filter(offsets[classes] * water, 0.5)


def _air(inside: NDArray, rng: np.random.Generator) -> NDArray:
    """Field in ppm of two to five spheres of air near the outline, less its best plane."""
    y, x = np.indices(inside.shape)
    size = np.sqrt(inside.sum() / np.pi)
    edge = np.argwhere(inside & ~ndimage.binary_erosion(inside))
    axis = rng.choice(3, p=[0.6, 0.2, 0.2])  # of the static field: along the slice normal, rows or columns
    total = np.zeros(inside.shape)
    for _ in range(rng.integers(2, 6)):
        centre = edge[rng.integers(len(edge))] + rng.normal(0, 0.05 * size, 2)
        height, radius = rng.uniform(0.15, 0.6) * size, rng.uniform(0.05, 0.15) * size
        offset = np.broadcast_arrays(height, y - centre[0], x - centre[1])
        squared = sum(part**2 for part in offset)
        total += _AIR_PPM / 3 * (radius**2 / squared) ** 1.5 * (3 * offset[axis] ** 2 / squared - 1)
    plane = np.stack([np.ones(inside.shape), y / size, x / size], -1)
    return total - plane @ np.linalg.lstsq(plane[inside], total[inside], rcond=None)[0]


def _flow(magnitude: NDArray, depth: NDArray, fat: NDArray, rng: np.random.Generator) -> NDArray:
    """Phase in radians of up to 40 small vessels and a larger one just inside the rim."""
    score = np.abs(ndimage.gaussian_filter(magnitude, 0.8) - ndimage.gaussian_filter(magnitude, 2.5))
    score = score * (depth > 3) * (1 - fat)
    spots = np.argwhere((score == ndimage.maximum_filter(score, 5)) & (score > 0))
    spots = spots[np.argsort(-score[tuple(spots.T)], kind="stable")][:120]
    phase = np.zeros(magnitude.shape)
    for row, column in rng.permutation(spots)[: rng.integers(41)]:
        phase[row, column] = rng.normal(0, 1)
    width = rng.uniform(0.6, 1.2)
    phase = ndimage.gaussian_filter(phase, width) * 2 * np.pi * width**2
    size = np.sqrt((depth > 0).sum())
    near = np.argwhere(np.abs(depth - 1.3 * _RIM * size) < 1)
    if len(near):
        row, column = near[rng.integers(len(near))]
        y, x = np.indices(magnitude.shape)
        disc = np.hypot(y - row, x - column) < rng.uniform(0.015, 0.05) * size
        phase = phase + rng.normal(0, 1) * ndimage.gaussian_filter(disc.astype(np.float64), 0.7)
    return phase


def _with_noise(magnitude: NDArray, factor: NDArray, inside: NDArray, rng: np.random.Generator) -> NDArray:
    """Give the factor the phase of signal plus noise, whose size the background shows (its median is 1.177 σ)."""
    noise = rng.standard_normal((2, *magnitude.shape))
    outside = ~ndimage.binary_dilation(inside, iterations=3)
    sigma = np.median(magnitude[outside]) / np.sqrt(2 * np.log(2)) if outside.sum() > 100 else 0.0
    clean = np.sqrt(np.maximum(magnitude**2 - 2 * sigma**2, 0)) * factor
    noisy = clean + sigma * (noise[0] + 1j * noise[1])
    return np.where(np.abs(noisy) > 0, np.abs(factor) * np.exp(1j * np.angle(noisy)), factor)
