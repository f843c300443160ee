"""Raw MRI as converters write it, of an object with sharp edges, in ways that field reports describe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.data.readers.ismrmrd_files import HEADER, Writer

N = 48
FOV = 96.0
REVERSE, PHASE_CORRECTION = 22, 24


def xml(n: int = N, fov: float = FOV, n_recon: int = N, fov_recon: float = FOV, n_lines: int = N) -> str:
    """Header of a slice; the readout is encoded with ``n`` samples over ``fov``."""
    return HEADER.format(
        ex=n, ny=n_lines, nz=1, efx=fov, efy=FOV, efz=5, rx=n_recon, ry=n_lines, rz=1, rfx=fov_recon, rfy=FOV, rfz=5,
        limits="", trajectory="cartesian", parallel="",
    )  # fmt: skip


def fourier(image: NDArray) -> NDArray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)


def rss(kspace: NDArray) -> NDArray:
    axes = (-2, -1)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    return np.sqrt((np.abs(coils) ** 2).sum(0))


def psnr(image: NDArray, truth: NDArray) -> float:
    return float(10 * np.log10(truth.max() ** 2 / ((image - truth) ** 2).mean()))


def coil_images(width: float = 10, height: float = 17, n: int = N, n_readout: int | None = None) -> NDArray:
    """Four coils ``(4, n_readout, n)`` of an ellipse with an off-centre disc."""
    rows = n_readout or n
    y, x = np.mgrid[:rows, :n]
    y, x = y - rows // 2, x - n // 2
    image = ((x / width) ** 2 + (y / height) ** 2 < 1) + 0.6 * ((x - 4) ** 2 + (y + 6) ** 2 < 12)
    centres = ((18, 18), (-18, 18), (18, -18), (-18, -18))
    maps = np.stack([np.exp(-((x - a) ** 2 + (y - b) ** 2) / 1400 + 0.02j * a * y / n) for a, b in centres])
    return maps * image


def noisy(kspace: NDArray, std: float = 0.01) -> NDArray:
    rng = np.random.default_rng(0)
    return kspace + std * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))


def write_lines(
    path: Path, kspace: NDArray, header: str | None = None, lines: Iterable[int] | None = None, **more: object
) -> Path:
    """Forward lines of ``(coil, readout, line)``."""
    with Writer(path, header or xml(), np.eye(3), np.zeros(3)) as writer:
        for w in range(kspace.shape[-1]) if lines is None else lines:
            writer.line(kspace[..., w], kspace_encode_step_1=w, **more)
    return path


def write_echo_train(
    path: Path,
    images: NDArray,
    constant: float = 0.0,
    delay: float = 0.0,
    n_corrections: int = 0,
    order: str = "forward",
    missing: int = 0,
    step: int = 1,
) -> Path:
    """Lines in turn forward and reversed, after ``n_corrections`` phase-correction lines.

    Args:
        path: the file.
        images: of the coils.
        constant: phase of reversed lines, radians.
        delay: of reversed readouts, samples.
        n_corrections: phase-correction lines.
        order: how reversed lines are stored: ``"forward"``, ``"acquired"`` (``center_sample`` counts from the first
            acquired sample) or ``"turned"`` (turned round already).
        missing: samples at the start of each readout (asymmetric echo).
        step: from line to line.
    """
    n, width = images.shape[1:]
    x = np.arange(n)[:, None] - n // 2
    kspace, late = noisy(fourier(images)), noisy(fourier(images * np.exp(1j * (constant + 2 * np.pi * delay * x / n))))
    train = [(width // 2, i % 2 == 0, True) for i in range(n_corrections)]
    train += [(line, number % 2 == 1, False) for number, line in enumerate(range(0, width, step))]
    with Writer(path, xml(n_lines=width), np.eye(3), np.zeros(3)) as writer:
        for line, is_reverse, is_correction in train:
            data, centre = (late if is_reverse else kspace)[:, missing:, line], n // 2 - missing
            if is_reverse and order != "turned":
                data = data[:, ::-1]
            if is_reverse and order == "acquired":
                centre = n - missing - 1 - centre
            flags = (REVERSE,) * is_reverse + (PHASE_CORRECTION,) * is_correction
            writer.line(data, centre=centre, flags=flags, kspace_encode_step_1=line)
    return path
