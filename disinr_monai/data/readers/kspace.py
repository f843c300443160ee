from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import read_array
from disinr_monai.errors import InputError
from disinr_monai.grid import centre_block

_SMALLEST = 1e-10  # of the largest sample
_LEAST_SIZE, _AT_THE_ENDS = 16, 8.0  # of an axis; times the energy of the middle


@dataclass(frozen=True)
class RawScan:
    """One slice of a raw MRI scan.

    Attributes:
        kspace: complex64 ``(coil, H, W)`` or, along a trajectory, ``(coil, readouts, samples)``.
        shape: (H, W) of the image.
        affine: 4x4, RAS mm, of ``shape``.
        info: JSON-ready.
        mask: bool ``(H, W)``, what was (or, for a full scan with a mask in the file, is to be taken as) measured; None
            with a trajectory.
        trajectory: ``(readouts, samples, 2)``, cycles per field of view; None for a Cartesian scan.
        is_full: whether ``kspace`` holds a fully sampled Cartesian scan.
        has_mask: whether the mask came from the file.
        maps: complex64 ``(coil, H, W)``; None where the file has none.
        calibration: complex64 ``(coil, H, W)``, separate lines for coil maps; None where the file has none.
        crop: rows and columns around the centre that are to come out; None for all.
        unit: of ``kspace`` in the units of the file.
    """

    kspace: NDArray[np.complex64]
    shape: tuple[int, int]
    affine: NDArray[np.float64]
    info: dict[str, Any]
    mask: NDArray[np.bool_] | None = None
    trajectory: NDArray[np.float64] | None = None
    is_full: bool = False
    has_mask: bool = False
    maps: NDArray[np.complex64] | None = None
    calibration: NDArray[np.complex64] | None = None
    crop: tuple[int, int] | None = None
    unit: float = 1.0


def normalised(kspace: NDArray) -> tuple[NDArray[np.complex64], float]:
    """K-space whose squares single precision can hold, and its unit: a power of two, 1 for usual sizes."""
    largest = float(np.abs(kspace).max(initial=0.0))
    if not np.isfinite(largest) or largest == 0 or _SMALLEST < largest < 1 / _SMALLEST:
        return kspace.astype(np.complex64), 1.0
    exponent = int(np.floor(np.log2(largest)))
    scaled = np.ldexp(kspace.real, -exponent) + 1j * np.ldexp(kspace.imag, -exponent)
    return scaled.astype(np.complex64), float(np.ldexp(1.0, exponent))


def remove_oversampling(kspace: NDArray, n_kept: int, axis: int = -2) -> NDArray[np.complex64]:
    """Cut the field of view along one completely measured axis: transform, keep the centre, transform back.

    The transforms are orthonormal, so the pixels keep their values and the noise its size.

    Args:
        kspace: complex, zero frequency in the middle of ``axis``.
        n_kept: pixels to keep, at most the size of ``axis``.
        axis: the readout.
    """
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=axis), axis=axis, norm="ortho"), axes=axis)
    kept = np.take(image, np.arange(kspace.shape[axis])[centre_block(kspace.shape[axis], n_kept)], axis=axis)
    cut = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(kept, axes=axis), axis=axis, norm="ortho"), axes=axis)
    return cut.astype(np.complex64)


def check_centre(kspace: NDArray, mask: NDArray[np.bool_], path: str | Path) -> None:
    """Refuse Cartesian k-space ``(coil, H, W)`` with zero frequency in the corner, not in the middle.

    Along each axis the energy of its middle quarter is compared with that of both ends, per measured sample.

    Raises:
        InputError: an end holds far more than the middle.
    """
    scaled = np.abs(kspace / np.abs(kspace).max()).astype(np.float64) ** 2
    corner = []
    for axis, name in ((-2, "rows"), (-1, "columns")):
        n = kspace.shape[axis]
        energy, count = scaled.sum((0, -3 - axis)), mask.sum(-3 - axis)
        distance = np.abs(np.arange(n) - n // 2)
        middle, ends = distance <= n // 8, distance >= n // 2 - n // 8
        if n >= _LEAST_SIZE and count[middle].any() and count[ends].any():
            density = [energy[part].sum() / count[part].sum() for part in (middle, ends)]
            corner += [name] if density[1] > _AT_THE_ENDS * density[0] else []
    if corner:
        raise InputError(
            f"{path}: expected zero frequency in the middle of k-space, found the signal at both ends of its "
            f"{' and '.join(corner)}; apply np.fft.fftshift along them (and to the mask), or mend the line counters"
        )


def cut_affine(affine: NDArray, rows: slice, columns: slice) -> NDArray[np.float64]:
    """Affine of the part ``[rows, columns]`` of a slice."""
    result = np.array(affine, dtype=np.float64)
    result[:3, 3] += result[:3, 0] * rows.start + result[:3, 1] * columns.start
    return result


def unplaced_affine(rows: float, columns: float, thickness: float, index: int) -> NDArray[np.float64]:
    """Affine of a slice whose place in the patient is not known, RAS mm, from its voxel size and number.

    Rows run towards posterior and columns towards the patient's left, as a viewer draws an axial slice: it shows the
    image as the PNG and the report do.
    """
    affine = np.zeros((4, 4))
    affine[1, 0], affine[0, 1], affine[2, 2], affine[3, 3] = -rows, -columns, thickness, 1.0
    affine[2, 3] = index * thickness
    return affine


def cut_size(n_encoded: int, encoded_fov: float, n_recon: int, recon_fov: float) -> int:
    """Pixels to keep of ``n_encoded`` over ``encoded_fov`` so that ``recon_fov`` is left, at the same resolution."""
    kept = min(max(round(n_encoded * recon_fov / encoded_fov), 1), n_encoded)
    return n_recon if abs(n_recon - kept) <= 1 and n_recon <= n_encoded else kept


def is_fully_sampled(measured: NDArray[np.bool_]) -> bool:
    """Tell whether the measured samples ``(H, W)`` fill a block in the middle.

    Outer zeros on both sides are padding; on one side they were not measured (partial Fourier, asymmetric echo).
    """
    rows, columns = np.flatnonzero(measured.any(1)), np.flatnonzero(measured.any(0))
    if len(rows) == 0:
        return False
    for n, axis in zip(measured.shape, (rows, columns), strict=True):
        before, after = n // 2 - axis[0], axis[-1] + 1 - n // 2
        if abs(before - after) > 1 + 0.1 * max(before, after):
            return False
    block = measured[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A stray exact zero happens in real data; a skipped line is at least 1 / width of the samples.
    return bool(block.mean() > 1 - 0.5 / max(block.shape))


def checked_slice(slice_index: int | None, n_slices: int, path: str | Path) -> int:
    """Check the slice number; 0 if there is only one slice.

    Raises:
        InputError: none given although there are several, or no such slice.
    """
    if slice_index is None and n_slices > 1:
        raise InputError(f"{path}: expected a slice number from 0 to {n_slices - 1}, found none")
    index = slice_index or 0
    if not 0 <= index < n_slices:
        raise InputError(f"{path}: expected a slice number from 0 to {n_slices - 1}, found {index}")
    return index


def whitening_matrix(noise: NDArray, n_coils: int, path: str | Path = "noise") -> NDArray[np.complex128]:
    r"""Matrix that makes the noise of the coils independent, of variance 1.

    .. math:: W = L^{-1}, \qquad L L^H = Ψ = \tfrac1n \sum_i η_i η_i^H

    with noise samples :math:`η_i` of all coils (Pruessmann et al., Magn. Reson. Med. 46:638, 2001, appendix A).

    Args:
        noise: complex ``(n_coils, n_samples)``; more axes of samples are allowed.
        n_coils: of the scan.
        path: for messages.

    Raises:
        InputError: wrong shape or type, NaN, too few samples, or a coil without noise of its own.
    """
    if noise.ndim < 2 or len(noise) != n_coils or noise.dtype.kind != "c":
        raise InputError(
            f"{path}: `noise` must be complex with shape ({n_coils}, samples), one row a coil of `kspace`, found "
            f"{noise.dtype} {tuple(noise.shape)}"
        )
    samples = noise.reshape(n_coils, -1).astype(np.complex128)
    if samples.shape[1] < 4 * n_coils or not np.isfinite(samples).all():
        raise InputError(
            f"{path}: `noise` must hold at least {4 * n_coils} finite samples a coil, found {samples.shape[1]}"
            + ("" if np.isfinite(samples).all() else " with NaN or infinite ones")
        )
    covariance = samples @ samples.conj().T / samples.shape[1]
    eigenvalues = np.linalg.eigvalsh(covariance)
    if not eigenvalues[0] > 1e-10 * eigenvalues[-1]:
        raise InputError(
            f"{path}: `noise` must have independent noise in every coil, found a coil without or one that others add "
            "up to; leave that coil out"
        )
    return scipy.linalg.solve_triangular(np.linalg.cholesky(covariance), np.eye(n_coils), lower=True)


def prewhiten(
    kspace: NDArray, maps: NDArray | None, noise: NDArray, path: str | Path = "noise"
) -> tuple[NDArray[np.complex64], NDArray[np.complex64] | None]:
    """Apply :func:`whitening_matrix` to k-space ``(n_coils, ...)`` and, up to a factor, to coil maps.

    The result is in units of the noise. The maps keep their mean size.
    """
    matrix = whitening_matrix(noise, len(kspace), path)
    whitened = np.tensordot(matrix, kspace, axes=1).astype(np.complex64)
    if maps is not None:
        mixed = np.tensordot(matrix, maps, axes=1)
        maps = (mixed * (np.linalg.norm(maps) / np.linalg.norm(mixed))).astype(np.complex64)
    return whitened, maps


def read_trajectory(
    file: Any, kspace_shape: tuple[int, ...], path: str | Path
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Read where the samples of a non-Cartesian scan lie, from an open HDF5 file.

    The dataset ``trajectory`` ``(readouts, samples, 2)`` holds positions along rows and columns of the image in cycles
    per field of view, from -N/2 to N/2. ``image_shape`` (H, W), a dataset or an attribute of the file or of
    ``trajectory``, is the matrix size; without it the smallest even square that holds the trajectory.

    Args:
        file: open file.
        kspace_shape: of the dataset ``kspace``: ``(..., coil, readouts, samples)``.
        path: for messages.

    Returns:
        The trajectory, and (H, W).

    Raises:
        InputError: wrong shape or type, NaN, a range that is not that of cycles per field of view, or a mask beside it.
    """
    data = file["trajectory"]
    shape, expected = getattr(data, "shape", ()), (*kspace_shape[-2:], 2)
    if shape != expected:
        raise InputError(
            f"{path}: `trajectory` must have shape {expected} (readouts, samples, 2) to match `kspace` "
            f"{tuple(kspace_shape)}, found {tuple(shape) or 'a group'}"
        )
    trajectory = read_array(file, "trajectory", path)
    if trajectory.dtype.kind not in "iuf":
        raise InputError(f"{path}: `trajectory` must be real, found {trajectory.dtype}")
    trajectory = trajectory.astype(np.float64)
    n_bad = int((~np.isfinite(trajectory)).sum())
    if n_bad:
        raise InputError(f"{path}: `trajectory` must be finite, found {n_bad} NaN or infinite values")
    if "mask" in file:
        raise InputError(f"{path}: expected `mask` or `trajectory`, found both; leave out what was not measured")
    reach = np.abs(trajectory).max((0, 1))
    given = file.get("image_shape", {**file.attrs, **data.attrs}.get("image_shape"))
    if given is None:
        if reach.max() <= 4:
            raise InputError(
                f"{path}: `trajectory` must be in cycles per field of view, from -N/2 to N/2, found at most "
                f"{reach.max():.3g}; multiply by the matrix size N (cycles per pixel) or N / 2π (radians)"
            )
        return trajectory, (2 * int(np.ceil(reach.max() - 0.25)),) * 2
    size = np.asarray(given[()] if hasattr(given, "id") else given).reshape(-1)
    if size.dtype.kind not in "iuf" or size.shape != (2,) or not (size >= 8).all() or (size % 1).any():
        raise InputError(f"{path}: `image_shape` must be two whole numbers (H, W) of at least 8, found {size}")
    if (reach > size / 2 * (1 + 1e-4)).any() or reach.max() <= 4:
        raise InputError(
            f"{path}: `trajectory` must be in cycles per field of view, within {size[0] / 2:g} along rows and "
            f"{size[1] / 2:g} along columns (`image_shape`), found up to {reach[0]:.4g} and {reach[1]:.4g}"
        )
    return trajectory, (int(size[0]), int(size[1]))
