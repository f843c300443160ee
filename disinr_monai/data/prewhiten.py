from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from disinr_monai.errors import InputError


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
