from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.operators.fourier import MultiCoilFourier
from disinr_monai.operators.linear_operator import LinearOperator


class L1Wavelet(ClassicalMethod):
    r"""Compressed sensing MRI with a wavelet prior, by SigPy.

    .. math:: \min_x \; \tfrac12 \|A x - y\|^2 + λ \|Ψ x\|_1

    with an orthogonal wavelet transform :math:`Ψ` (Lustig et al., Magn. Reson. Med. 58:1182, 2007), solved by
    ``sigpy.mri.app.L1WaveletRecon`` (FISTA, on the CPU).

    Args:
        l1_weight: :math:`λ`, for an image of about 1.
        n_iterations: FISTA iterations.
        wavelet: name of the wavelet in PyWavelets.
    """

    def __init__(self, *, l1_weight: float = 2e-3, n_iterations: int = 100, wavelet: str = "db4") -> None:
        super().__init__()
        if l1_weight < 0 or n_iterations < 1:
            raise ValueError(
                f"L1Wavelet: expected l1_weight >= 0 and n_iterations >= 1, found {l1_weight}, {n_iterations}"
            )
        self.l1_weight = l1_weight
        self.n_iterations = n_iterations
        self.wavelet = wavelet

    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """Reconstruct the complex image as ``(2, H, W)``.

        Raises:
            InputError: the operator is not multi-coil MRI.
        """
        if not isinstance(operator, MultiCoilFourier):
            raise InputError(
                f"L1Wavelet: expected the operator MultiCoilFourier (MRI), found {type(operator).__name__}; "
                "use TotalVariation for other modalities"
            )
        from sigpy.mri.app import L1WaveletRecon  # Imported here: SigPy takes a second and only this method needs it.

        # The operator keeps maps and mask with zero frequency first, SigPy expects it in the middle.
        maps = torch.fft.fftshift(operator.maps, dim=(-2, -1)).cpu().numpy()
        mask = torch.fft.fftshift(operator.mask, dim=(-2, -1)).cpu().numpy()
        image = L1WaveletRecon(
            measurement.cpu().numpy(),
            maps,
            self.l1_weight,
            weights=mask,
            wave_name=self.wavelet,
            # SigPy would estimate the step with NumPy's global random state; the norm is approached from below.
            alpha=0.95 / operator.norm_squared(),
            max_iter=self.n_iterations,
            show_pbar=False,
        ).run()
        image = torch.from_numpy(image).to(measurement)
        return torch.stack((image.real, image.imag))
