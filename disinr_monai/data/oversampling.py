from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disinr_monai.crop import centre_block


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


def cut_affine(affine: NDArray, rows: slice, columns: slice) -> NDArray[np.float64]:
    """Affine of the part ``[rows, columns]`` of a slice."""
    result = np.array(affine, dtype=np.float64)
    result[:3, 3] += result[:3, 0] * rows.start + result[:3, 1] * columns.start
    return result


def cut_size(n_encoded: int, encoded_fov: float, n_recon: int, recon_fov: float) -> int:
    """Pixels to keep of ``n_encoded`` over ``encoded_fov`` so that ``recon_fov`` is left, at the same resolution."""
    kept = min(max(round(n_encoded * recon_fov / encoded_fov), 1), n_encoded)
    return n_recon if abs(n_recon - kept) <= 1 and n_recon <= n_encoded else kept
