from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label, map_coordinates
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.grid import centre_block
from disinr_monai.methods.classical import ConjugateGradient
from disinr_monai.numerics.cache import DiskCache
from disinr_monai.operators import NonCartesianFourier, fft2c
from disinr_monai.operators.calibration import dense_radius, density_compensation
from disinr_monai.scan import Scan

_MIN_ACS = 8
_COARSE = 96
_FIRST = 0.97  # eigenvalue above which the first eigenvector is certain,
_SECOND = 0.8  # and above which there can be a second set,
_FAINT = 0.03  # where the image that belongs to it exceeds this share of the maximum;
_ALIKE = 0.93  # and above which any two vectors of the plane would do, of which smoothing takes two:
_STEPS = 80
# Without wrapping less than 0.5 % of an object has a second eigenvalue beyond 0.98 (40 scans, noise 0.01 and 0.1),
# with a quarter of the field of view missing more than 1 %.
_WRAPPED, _WRAPPED_SHARE = 0.98, 0.008


def espirit_maps(
    kspace: Tensor | NDArray,
    acs: int | tuple[int, int],
    kernel_width: int = 8,
    thresh: float = 0.01,
    crop: float = 0.9,
    n_sets: int | None = None,
    name: str = "kspace",
) -> Tensor:
    r"""Coil sensitivity maps by ESPIRiT from the fully sampled centre of k-space.

    The maps at a pixel are the eigenvector, with eigenvalue 1, of the projection on what the calibration region
    explains (Uecker et al., Magn. Reson. Med. 71:990, 2014). Where the object is larger than the field of view, two
    parts of it lie in one pixel and two eigenvalues are 1; then there are two sets of maps and two images,
    :math:`y_c = M F \sum_j s_{jc} x_j`, of which the second is nonzero where the object wraps.

    The result is kept on disk under ``$DISINR_CACHE`` (default ``~/.cache/disinr_monai``), named by a hash of the
    calibration samples and settings; without a writable folder it is simply computed again.

    Args:
        kspace: complex ``(n_coils, H, W)``, centre in the middle; samples outside the calibration region are not read.
        acs: size of the fully sampled centre; of two sizes the smaller counts, because the region must be square.
        kernel_width: side of the calibration kernels.
        thresh: singular values below ``thresh`` times the largest are noise.
        crop: maps are zero where the eigenvalue is below ``crop``; 0 keeps them everywhere.
        n_sets: 1 or 2 sets; None: two if both leading eigenvalues exceed 0.98 in 0.8 % of the object.
        name: what error messages call the data, e.g. its file.

    Returns:
        complex64 ``(n_coils, H, W)``: root sum of squares 1 (or 0 where cropped), the phase relative to the strongest
        combination of the coils; or two sets ``(2, n_coils, H, W)``, orthogonal to each other. One coil gives ones.

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
    settings = (kernel_width, thresh, crop, n_sets)
    digest = hashlib.sha256(calibration.tobytes() + repr(("v2", data.shape, settings)).encode()).hexdigest()

    def build() -> NDArray[np.complex64]:
        with _one_blas_thread():
            return _espirit(calibration, data.shape[1:], *settings)

    maps = torch.from_numpy(_ON_DISK.get(digest, build))
    return maps[0] if len(maps) == 1 else maps


def _espirit(
    calibration: NDArray, shape: tuple[int, ...], kernel_width: int, thresh: float, crop: float, n_sets: int | None
) -> NDArray[np.complex64]:
    """Maps ``(n_sets, n_coils, H, W)`` from calibration samples ``(n_coils, n, n)``, largest magnitude 1."""
    # The maps vary slowly, so they are computed on a coarse grid over the same field of view and interpolated: 10 times
    # faster, and nearer to the full computation than that is to the truth by two orders of magnitude.
    coarse = [min(n, max(_COARSE, calibration.shape[-1])) for n in shape]
    explained = _explained(calibration, min(kernel_width, calibration.shape[-1] // 2), thresh, coarse)
    values, vectors = torch.linalg.eigh(torch.from_numpy(explained))
    values, vectors = values.numpy(), vectors.numpy()
    # An eigenvector has no phase of its own. The first principal component of the coils sees everything, so relative to
    # it the phase of maps and image stays smooth; relative to one coil it jumps where that coil sees nothing.
    coils = calibration.reshape(len(calibration), -1)
    strongest = np.linalg.eigh(coils @ coils.conj().T)[1][:, -1]
    sets = [_turned(vectors[..., -1], strongest)]
    low = _low_resolution(calibration, coarse)
    if n_sets is None:
        size = np.linalg.norm(low, axis=-1)
        is_beyond = values[..., -2][size > 0.1 * np.quantile(size, 0.99)] > _WRAPPED
        n_sets = 2 if is_beyond.mean() > _WRAPPED_SHARE else 1
    seen = [_interpolate(values[..., -1], shape) > (crop or -np.inf)]
    if n_sets == 2:
        wrapped, alike = values[..., -2] > _SECOND, values[..., -2] > _ALIKE
        sets = list(_separated(sets[0], vectors[..., -2:], alike, ~alike & (values[..., -1] > _FIRST)))
        # Eigenvalues fade over the width of a kernel; the object itself says more exactly where it overlaps.
        own, other = (np.abs((part.conj() * low).sum(-1)) for part in sets)
        there = other * wrapped > _FAINT * np.quantile(np.maximum(own, other), 0.99)
        seen.append(_interpolate(binary_dilation(there).astype(np.float32), shape) > 0.5)
    maps = np.stack([_on_grid(part, shape) * where for part, where in zip(sets, seen, strict=True)])
    return np.ascontiguousarray(maps, dtype=np.complex64)


def _explained(calibration: NDArray, kernel_width: int, thresh: float, shape: Sequence[int]) -> NDArray:
    r"""Share of a coil vector at each pixel that the calibration explains, Hermitian ``(*shape, n_coils, n_coils)``.

    The windows of the calibration span a subspace; projecting :math:`s_c e^{-2πi k r}` on it gives :math:`M(r)\, s`
    with :math:`M` a trigonometric polynomial of degree ``kernel_width - 1``, so that few points determine it.
    """
    n_coils, n_points = len(calibration), 2 * kernel_width
    windows = sliding_window_view(calibration, (kernel_width, kernel_width), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
    _, singular, kernels = np.linalg.svd(windows.reshape(-1, n_coils * kernel_width**2), full_matrices=False)
    kernels = kernels[singular > thresh * singular[0]].reshape(-1, n_coils, kernel_width, kernel_width)
    fields = np.fft.ifft2(kernels, s=(n_points, n_points)) * (n_points**2 / kernel_width)
    fields = np.ascontiguousarray(fields.transpose(2, 3, 1, 0), dtype=np.complex64)
    lags = np.fft.fft2(fields @ fields.conj().swapaxes(-2, -1), axes=(0, 1), norm="forward")
    rows, columns = (np.fft.fftfreq(n_points, 1 / n_points).astype(int) % n for n in shape)
    spectrum = np.zeros((*shape, n_coils, n_coils), np.complex64)
    spectrum[rows[:, None], columns] = lags
    return np.fft.fftshift(np.fft.ifft2(spectrum, axes=(0, 1), norm="forward"), axes=(0, 1)).astype(np.complex64)


def _low_resolution(calibration: NDArray, shape: Sequence[int]) -> NDArray:
    """Coil images ``(*shape, n_coils)`` of the calibration samples, tapered."""
    taper = np.hanning(calibration.shape[-1] + 2)[1:-1]
    low = np.zeros((len(calibration), *shape), np.complex64)
    middle = (centre_block(n, m) for n, m in zip(shape, calibration.shape[1:], strict=True))
    low[:, *middle] = calibration * taper[:, None] * taper
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(low, axes=(-2, -1))), axes=(-2, -1))
    return images.transpose(1, 2, 0)


def _separated(first: NDArray, plane: NDArray, wrapped: NDArray, is_one: NDArray) -> tuple[NDArray, NDArray]:
    """Smooth basis ``(H, W, n_coils)``, twice, of the two leading eigenvectors ``(H, W, n_coils, 2)``.

    Where the object wraps, both eigenvalues are 1 and any two vectors of their plane are eigenvectors. The first set is
    that which continues its surroundings (what lies there in a larger field of view), from the pixels where there is
    one eigenvector (``is_one``) and as smoothly as can be, the second is orthogonal to it.
    """

    def in_plane(vectors: NDArray) -> NDArray:
        return _of_size_one((plane @ (plane.conj().swapaxes(-2, -1) @ vectors[..., None]))[..., 0])

    smooth = np.where(is_one[..., None], first, 0)
    known = is_one.copy()
    for step in range(_STEPS + max(known.shape)):
        mean = _blurred(smooth.real) + 1j * _blurred(smooth.imag)
        if not known.all():  # first from neighbour to neighbour; where there is air, the continuation is all there is
            new = ~known & (_blurred(known.astype(np.float32)) > 1e-3)
            known |= new
        elif step < _STEPS:
            new = wrapped
        else:
            break
        smooth = np.where(new[..., None], np.where(wrapped[..., None], in_plane(mean), _of_size_one(mean)), smooth)
    first = np.where(wrapped[..., None], smooth, first)
    rest = plane - first[..., None] * (first.conj()[..., None, :] @ plane)
    second = np.take_along_axis(rest, np.linalg.norm(rest, axis=-2, keepdims=True).argmax(-1)[..., None], -1)[..., 0]
    second = _of_size_one(second)
    # Each overlap has a phase reference of its own: another part of the object lies there.
    parts, n_parts = label(binary_dilation(wrapped, iterations=2))
    for number in range(1, n_parts + 1):
        vectors = second[parts == number]
        second[parts == number] = _turned(vectors, np.linalg.eigh(vectors.T @ vectors.conj())[1][:, -1])
    second *= (parts > 0)[..., None]
    for _ in range(_STEPS):
        mean = _blurred(second.real) + 1j * _blurred(second.imag)
        second *= np.exp(1j * np.angle((second.conj() * mean).sum(-1)))[..., None]
    return first, second


def _of_size_one(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _blurred(fields: NDArray) -> NDArray:
    """Gaussian blur of maps ``(H, W, ...)`` over the pixels."""
    return gaussian_filter(fields, (3, 3, *(0,) * (fields.ndim - 2)), mode="nearest")


def _turned(vectors: NDArray, reference: NDArray) -> NDArray:
    """Turn the phase of vectors ``(..., n_coils)`` so that their product with a reference is positive."""
    return vectors * np.exp(-1j * np.angle(vectors @ reference.conj()))[..., None]


def _on_grid(vectors: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Interpolate unit vectors ``(h, w, n_coils)`` to ``(n_coils, *shape)``, again of size 1."""
    fields = [_interpolate(v.real, shape) + 1j * _interpolate(v.imag, shape) for v in vectors.transpose(2, 0, 1)]
    return fields / np.maximum(np.linalg.norm(fields, axis=0), 1e-6)


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
