"""Multi-coil MRI measurements of a magnitude image, made on a finer grid than the one they are inverted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from disinr_monai.data.simulate.coils import CoilArray, random_array
from disinr_monai.data.simulate.phase import tissue_factor
from disinr_monai.operators.nufft import NUFFT

COILS, PHASES = ("ring", "array", "raw_array"), ("smooth", "tissue")
_FINER = 2
_BRIGHT, _SHARE = 0.1, 0.05
_Field = Callable[[NDArray, NDArray], NDArray]


@dataclass(frozen=True)
class SimulatedScan:
    """Result of :func:`simulate_kspace`.

    Attributes:
        kspace: complex64 with noise, every sample ``(n_coils, H, W)``, or ``(n_coils, n_readouts, n_samples)`` along
            a trajectory.
        reference: float32 ``(1, H, W)``, the noise-free magnitude within the measured band.
        maps: complex64 ``(n_coils, H, W)``, the true sensitivities at the voxel centres, unit root sum of squares.
        noise_std: standard deviation of the complex noise of one sample, in the units of ``kspace``.
    """

    kspace: NDArray[np.complex64]
    reference: NDArray[np.float32]
    maps: NDArray[np.complex64]
    noise_std: float


def simulate_kspace(
    magnitude: NDArray,
    n_coils: int = 8,
    noise_std: float = 0.0316,
    seed: int = 0,
    mask: NDArray | None = None,
    trajectory: NDArray | None = None,
    object_phase: Literal["smooth", "tissue"] = "smooth",
    coils: Literal["ring", "array", "raw_array"] = "ring",
) -> SimulatedScan:
    """Simulate the multi-coil k-space of a magnitude image, fully sampled or along a trajectory.

    The object (cubic interpolation of the image, times a smooth random phase) and the coil sensitivities (analytic) are
    evaluated on a grid twice as fine; its Fourier transform is cut to the measured band. So the measurement contains
    what a voxel model on the ``(H, W)`` grid cannot represent exactly (products of object and coil beyond the band,
    truncation), as a real one does, and inverting it with the operator is no inverse crime. The reference is what the
    true sensitivities combine from the noise-free band: the object as the scanner resolves it.

    Args:
        magnitude: ``(H, W)``, non-negative.
        n_coils: number of receive coils.
        noise_std: complex Gaussian noise relative to the root mean square of the sampled k-space
            (0.0316 is a signal-to-noise ratio of 30 dB); the variance is shared by real and imaginary part.
        seed: of coils, phase and noise.
        mask: ``(H, W)`` or ``(W,)``, the samples that ``noise_std`` refers to; all of them by default.
        trajectory: ``(n_readouts, n_samples, 2)``, cycles per field of view along rows and columns; Cartesian by
            default.
        object_phase: ``"smooth"`` waves alone, or ``"tissue"``: also
            :func:`~disinr_monai.data.simulate.phase.tissue_factor`, sharp at fat, vessels and air.
        coils: ``"ring"`` of regular loops, or ``"array"``: :func:`~disinr_monai.data.simulate.coils.random_array`,
            prewhitened by its true noise covariance, so that the noise is white; ``"raw_array"`` leaves the noise
            correlated, as in a file without a noise scan (``noise_std`` is then the mean over the coils).

    Raises:
        ValueError: wrong rank, or fewer than one coil, or negative noise, or an unknown ``object_phase`` or ``coils``.
    """
    if magnitude.ndim != 2 or n_coils < 1 or noise_std < 0 or object_phase not in PHASES or coils not in COILS:
        raise ValueError(
            "simulate_kspace: expected magnitude (H, W), n_coils >= 1, noise_std >= 0, "
            f"object_phase of {', '.join(PHASES)} and coils of {', '.join(COILS)}, "
            f"found {magnitude.shape}, {n_coils}, {noise_std}, {object_phase}, {coils}"
        )
    shape = magnitude.shape
    rng = np.random.default_rng(seed)
    ring, phase = _random_coils(n_coils, rng), _random_phase(rng)
    white = np.eye(n_coils, dtype=complex)
    array = CoilArray(ring, white, white) if coils == "ring" else random_array(n_coils, rng, magnitude)
    array = array.whitened() if coils == "array" else array
    fine_axes = [(np.arange(_FINER * n) - _FINER * n // 2) / _FINER + n // 2 for n in shape]
    fine, coarse = _positions(fine_axes, shape), _positions([np.arange(n) for n in shape], shape)
    grid = np.meshgrid(*fine_axes, indexing="ij")
    # Cubic splines overshoot at sharp edges, and a magnitude has no negative values.
    object_fine = np.maximum(map_coordinates(magnitude.astype(np.float64), grid, order=3, mode="nearest"), 0)
    object_fine = object_fine * np.exp(1j * phase(*fine))
    if object_phase == "tissue":
        object_fine = object_fine * map_coordinates(tissue_factor(magnitude, rng), grid, order=1, mode="nearest")
    fields = _unit_rss(array.fields(*fine))
    band = np.stack([_measure(object_fine * field, shape) for field in fields])
    maps = _unit_rss(array.fields(*coarse))
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(band, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
    reference = np.abs((maps.conj() * images).sum(0, keepdims=True))
    sampled = np.ones(shape, bool) if mask is None else np.broadcast_to(np.asarray(mask) != 0, shape)
    if trajectory is not None:
        band = sample_kspace(object_fine * fields, trajectory) / _FINER
        sampled = np.ones(band.shape[1:], bool)
    std = noise_std * float(np.sqrt(np.mean(np.abs(band[:, sampled]) ** 2)))
    noise = rng.standard_normal((2, *band.shape)) * (std / np.sqrt(2))
    noise = noise[0] + 1j * noise[1]
    if coils == "raw_array":
        noise = np.tensordot(np.linalg.cholesky(array.covariance), noise, 1)
    kspace = (band + noise).astype(np.complex64)
    return SimulatedScan(kspace, reference.astype(np.float32), maps.astype(np.complex64), std)


def oversampled(image: NDArray) -> NDArray:
    """Continue an object beyond a field of view whose edge it reaches: mirrored, down to 0 within an eighth a side.

    A scanner measures such an object with oversampling of readout and phase and cuts the field of view out of the
    result. Without it the object would end in a step, and its coil sensitivities would jump from one edge to the other:
    coil maps can be estimated from neither. An axis at whose edges there is air stays as it is.

    Args:
        image: magnitude ``(H, W)``.

    Returns:
        Larger or the same image, the field of view in its centre.
    """
    level = _BRIGHT * np.quantile(image, 0.99)
    for axis in (0, 1):
        edges = np.take(image, (0, -1), axis)
        n = image.shape[axis]
        if (edges > level).mean(1 - axis).max() <= _SHARE or n < 2:
            continue
        margin = n // 8 + (n // 8) % 2  # even, so that the centre stays the centre
        fall = np.cos(np.pi / 2 * (np.arange(margin) + 0.5) / margin) ** 2
        profile = np.concatenate((fall[::-1], np.ones(n), fall))
        widths = [(margin, margin) if a == axis else (0, 0) for a in (0, 1)]
        image = np.pad(image, widths, mode="symmetric") * np.expand_dims(profile, 1 - axis)
    return image


def sample_kspace(images: NDArray, trajectory: NDArray) -> NDArray[np.complex128]:
    """Orthonormal Fourier transform of images ``(n_coils, H, W)`` along a trajectory ``(n_readouts, n_samples, 2)``."""
    transform = NUFFT(trajectory.reshape(-1, 2), images.shape[1:])
    samples = transform(torch.from_numpy(images.astype(np.complex128))).numpy() / np.sqrt(np.prod(images.shape[1:]))
    return samples.reshape(len(images), *trajectory.shape[:2])


def _measure(fine_image: NDArray, shape: tuple[int, int]) -> NDArray:
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(fine_image), norm="ortho"))
    start = [_FINER * n // 2 - n // 2 for n in shape]
    # The orthonormal transform of the finer grid is larger by this factor for the same object.
    return spectrum[start[0] : start[0] + shape[0], start[1] : start[1] + shape[1]] / _FINER


def _positions(axes: list[NDArray], shape: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """Array indices to the plane ``[-1, 1]``, in the aspect of the image."""
    scale = 2 / max(shape)
    row, column = ((axis - (n - 1) / 2) * scale for axis, n in zip(axes, shape, strict=True))
    return row[:, None], column[None, :]


def _unit_rss(fields: NDArray) -> NDArray:
    return fields / np.sqrt((np.abs(fields) ** 2).sum(0, keepdims=True))


def _random_coils(n_coils: int, rng: np.random.Generator) -> list[_Field]:
    """Rectangular loops, long along the slice normal, on a jittered circle around the field of view.

    In the plane such a loop is two opposite line currents at complex positions a and b; Biot-Savart gives the receive
    field 1 / (p - a) - 1 / (p - b), magnitude and phase.
    """
    start, radius = rng.uniform(0, 2 * np.pi), 1.6
    half_width = min(0.9 * np.pi / n_coils, 0.5)
    coils = []
    for index in range(n_coils):
        angle = start + 2 * np.pi / n_coils * (index + rng.uniform(-0.1, 0.1))
        r = radius * rng.uniform(1, 1.1)
        a, b = r * np.exp(1j * (angle - half_width)), r * np.exp(1j * (angle + half_width))
        gain = rng.uniform(0.8, 1.2) * np.exp(1j * rng.uniform(0, 2 * np.pi))
        coils.append(lambda y, x, a=a, b=b, gain=gain: gain * (a - b) / ((x + 1j * y - a) * (x + 1j * y - b)))
    return coils


def _random_phase(rng: np.random.Generator) -> _Field:
    """Smooth object phase in radians: a constant, a slope, and a few long waves, as field inhomogeneity gives."""
    constant, slope = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.5, 2)
    waves = [(rng.normal(0, 0.35), rng.normal(0, 1.5, 2), rng.uniform(0, 2 * np.pi)) for _ in range(4)]

    def phase(y: NDArray, x: NDArray) -> NDArray:
        total = constant + slope[0] * y + slope[1] * x
        for amplitude, (ky, kx), offset in waves:
            total = total + amplitude * np.sin(ky * y + kx * x + offset)
        return total

    return phase
