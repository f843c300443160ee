from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.operators.coils import to_channels, to_complex
from disinr_monai.scan import Scan


class L1Wavelet(ClassicalMethod):
    r"""Compressed sensing MRI with a wavelet prior, by SigPy.

    .. math:: \min_x \; \tfrac12 \|A x - y\|^2 + λ \|Ψ x\|_1

    with an orthogonal wavelet transform :math:`Ψ` (Lustig et al., Magn. Reson. Med. 58:1182, 2007), solved as
    ``sigpy.mri.app.L1WaveletRecon`` does, by SigPy's FISTA and wavelets on the CPU, with the case's own operator.

    Args:
        l1_weight: :math:`λ`, for an image of about 1; None: chosen from each scan
            (:mod:`disinr_monai.methods.automatic`).
        n_iterations: FISTA iterations.
        wavelet: name of the wavelet in PyWavelets.
    """

    def __init__(self, *, l1_weight: float | None = 2e-3, n_iterations: int = 100, wavelet: str = "db4") -> None:
        super().__init__()
        if (l1_weight is not None and l1_weight < 0) or n_iterations < 1:
            raise ValueError(
                f"L1Wavelet: expected l1_weight >= 0 and n_iterations >= 1, found {l1_weight}, {n_iterations}"
            )
        self.l1_weight = l1_weight
        self.n_iterations = n_iterations
        self.wavelet = wavelet

    def solve(self, scan: Scan) -> Tensor:
        """Reconstruct the complex image as ``(2 n_sets, H, W)``.

        Raises:
            InputError: the measurement is not k-space.
        """
        operator, measurement = scan.operator, scan.measurement
        if not measurement.is_complex():
            raise InputError(
                f"L1Wavelet: expected complex k-space (MRI), found a real measurement of {type(operator).__name__}; "
                "use TotalVariation for other modalities"
            )
        import sigpy  # Imported here: SigPy takes a second and only this method needs it.

        l1_weight = self.chosen("l1_wavelet", scan) if self.l1_weight is None else self.l1_weight
        target = scan.adjoint()

        def slope(image: NDArray) -> NDArray:
            gradient = scan.gram(to_channels(torch.from_numpy(image).to(measurement))) - target
            return to_complex(gradient).cpu().numpy()

        start = to_complex(torch.zeros_like(target)).cpu().numpy()
        transform = sigpy.linop.Wavelet(start.shape, axes=(-2, -1), wave_name=self.wavelet)
        solver = sigpy.alg.GradientMethod(
            slope,
            start,
            # The norm is approached from below.
            alpha=0.95 / operator.norm_squared(),
            proxg=sigpy.prox.UnitaryTransform(sigpy.prox.L1Reg(transform.oshape, l1_weight), transform),
            accelerate=True,
            max_iter=self.n_iterations,
        )
        while not solver.done():
            solver.update()
        return to_channels(torch.from_numpy(solver.x).to(measurement))
