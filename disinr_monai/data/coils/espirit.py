from __future__ import annotations

import contextlib
import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.methods.classical import ConjugateGradient
from disinr_monai.numerics.cache import DiskCache
from disinr_monai.operators import NonCartesianFourier, fft2c
from disinr_monai.operators.calibration import dense_radius, density_compensation
from disinr_monai.scan import Scan

_MIN_ACS = 8
_COARSE = 96


def espirit_maps(
    kspace: Tensor | NDArray,
    acs: int | tuple[int, int],
    kernel_width: int = 6,
    thresh: float = 0.02,
    crop: float = 0.9,
    max_iter: int = 30,
    name: str = "kspace",
) -> Tensor:
    """Coil sensitivity maps by ESPIRiT (SigPy) from the fully sampled centre of k-space.

    The result is kept on disk under ``$DISINR_CACHE`` (default ``~/.cache/disinr_monai``), named by a hash of the
    calibration samples and settings; without a writable folder it is simply computed again.

    Args:
        kspace: complex ``(n_coils, H, W)``, centre in the middle; samples outside the calibration region are not read.
        acs: size of the fully sampled centre; of two sizes the smaller counts, because the region must be square.
        kernel_width: side of the calibration kernels.
        thresh: singular values below ``thresh`` times the largest are noise.
        crop: maps are zero where the eigenvalue is below ``crop``; 0 keeps them everywhere.
        max_iter: power iterations.
        name: what error messages call the data, e.g. its file.

    Returns:
        complex64 ``(n_coils, H, W)``: root sum of squares 1 (or 0 where cropped), the phase relative to the strongest
        combination of the coils. A single coil gives ones.

    Raises:
        InputError: wrong rank, no coil, NaN or all zero in the centre, or fewer than 8 calibration lines.
    """
    data = kspace.detach().cpu().numpy() if isinstance(kspace, Tensor) else np.asarray(kspace)
    if data.ndim != 3 or 0 in data.shape or data.dtype.kind != "c":
        raise InputError(f"{name}: coil maps need complex k-space (coil, H, W), found {data.dtype} {data.shape}")
    if len(data) == 1:
        return torch.ones(data.shape, dtype=torch.complex64)
    width = min(*((acs, acs) if isinstance(acs, int) else acs), *data.shape[1:])
    if width < _MIN_ACS:
        raise InputError(
            f"{name}: coil maps need at least {_MIN_ACS} fully sampled lines in the centre of k-space (ACS), found "
            f"{width}; estimate the maps together with the image (--maps joint), or give a file with "
            "`sensitivity_maps`"
        )
    centre = [slice(n // 2 - width // 2, n // 2 - width // 2 + width) for n in data.shape[1:]]
    calibration = np.ascontiguousarray(data[:, centre[0], centre[1]], dtype=np.complex64)
    if not np.isfinite(calibration).all() or not calibration.any():
        raise InputError(f"{name}: coil maps need finite samples in the centre of k-space, found NaN or only zeros")
    # The scale of the data must not change the maps: far from 1 the squares below leave single precision.
    calibration = calibration / np.abs(calibration).max()
    settings = (kernel_width, thresh, crop, max_iter)
    digest = hashlib.sha256(calibration.tobytes() + repr(("v1", data.shape, settings)).encode()).hexdigest()

    def build() -> NDArray[np.complex64]:
        with _one_blas_thread():
            return _espirit(calibration, data.shape, *settings)

    return torch.from_numpy(_ON_DISK.get(digest, build))


def _espirit(
    calibration: NDArray, shape: tuple[int, ...], kernel_width: int, thresh: float, crop: float, max_iter: int
) -> NDArray[np.complex64]:
    import sigpy
    from sigpy.mri.app import EspiritCalib

    # The maps vary slowly, so they are computed on a coarse grid over the same field of view and interpolated: 10 times
    # faster, and nearer to the full computation than that is to the truth by two orders of magnitude.
    coarse = [min(n, max(_COARSE, calibration.shape[-1])) for n in shape[1:]]
    maps, eigenvalues = EspiritCalib(
        sigpy.resize(calibration, (shape[0], *coarse)),
        calib_width=calibration.shape[-1],
        kernel_width=min(kernel_width, calibration.shape[-1] // 2),
        thresh=thresh,
        crop=0.0,
        max_iter=max_iter,
        output_eigenvalue=True,
        show_pbar=False,
    ).run()
    # SigPy takes the phase relative to the first coil, which jumps where that coil sees nothing. The first principal
    # component of the coils sees everything, so the phase of maps and image stays smooth.
    coils = calibration.reshape(len(calibration), -1)
    strongest = np.linalg.eigh(coils @ coils.conj().T)[1][:, -1]
    maps = np.nan_to_num(maps)
    maps = maps * np.exp(-1j * np.angle(np.einsum("c,chw->hw", strongest.conj(), maps)))
    maps = np.stack([_interpolate(m.real, shape[1:]) + 1j * _interpolate(m.imag, shape[1:]) for m in maps])
    maps /= np.maximum(np.sqrt((np.abs(maps) ** 2).sum(0, keepdims=True)), 1e-6)
    if crop > 0:
        maps *= _interpolate(eigenvalues.squeeze().real, shape[1:]) > crop
    return np.ascontiguousarray(maps, dtype=np.complex64)


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
    # The matrices are small. On busy cores waiting BLAS threads turn a second of work into twenty.
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(limits=1, user_api="blas")


def _interpolate(field: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Cubic interpolation of a periodic field to another grid over the same field of view, centre on centre."""
    if field.shape == tuple(shape):
        return field
    axes = [(np.arange(n) - n // 2) * m / n + m // 2 for n, m in zip(shape, field.shape, strict=True)]
    return map_coordinates(field, np.meshgrid(*axes, indexing="ij"), order=3, mode="grid-wrap")


_ON_DISK = DiskCache("espirit", lambda maps: {"maps": maps}, lambda arrays: arrays["maps"])

_LARGEST = 32
_MARGIN = 16


def gridded_calibration(
    kspace: NDArray, trajectory: NDArray, shape: tuple[int, int]
) -> tuple[NDArray[np.complex64], int]:
    """Cartesian calibration samples from the densely sampled centre of a non-Cartesian scan.

    Each coil's image is fitted at low resolution (least squares by conjugate gradients, on a somewhat larger part of
    k-space, because a sample at the edge also depends on what lies beyond) and transformed back.

    Args:
        kspace: complex ``(n_coils, n_readouts, n_samples)``.
        trajectory: ``(n_readouts, n_samples, 2)``, cycles per field of view.
        shape: ``(H, W)`` of the scan.

    Returns:
        complex64 ``(n_coils, H, W)``, zero outside the calibration square, and the side of that.
    """
    # The corners of the square lie beyond the dense disc, but the object does not fill the field of view.
    size = min(2 * dense_radius(trajectory), _LARGEST, *shape)
    n = min(size + _MARGIN, *(m - m % 2 for m in shape))
    inside = np.abs(trajectory).max(-1) < n / 2
    positions = trajectory[inside][None]
    operator = NonCartesianFourier(
        torch.ones((1, n, n), dtype=torch.complex64), positions, density_compensation(positions)
    )
    samples = torch.from_numpy(np.ascontiguousarray(kspace[:, inside][:, None, None]))
    # All coils at once: one system whose blocks are the coils.
    images = ConjugateGradient(n_iterations=20).solve(Scan(operator, operator.precondition(samples)))
    low = fft2c(torch.complex(images[:, 0], images[:, 1])).numpy()
    grid = np.zeros((len(kspace), *shape), np.complex64)
    source = slice(n // 2 - size // 2, n // 2 - size // 2 + size)
    rows, columns = (slice(m // 2 - size // 2, m // 2 - size // 2 + size) for m in shape)
    grid[:, rows, columns] = low[:, source, source]
    return grid, size
