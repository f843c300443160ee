from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.methods.automatic import automatic
from disinr_monai.numerics.conjugate_gradients import conjugate_gradients
from disinr_monai.scan import Scan

logger = logging.getLogger(__name__)

_MOST = 1000  # iterations of SIRT


class ClassicalMethod(CaseInferer):
    """Reconstruction without a network; subclasses write :meth:`solve`."""

    def reconstruct(self, points: Tensor | None, network: nn.Module | None, case: Mapping[str, Any]) -> Tensor:
        """Reconstruct the image ``(C, *S)`` of a case's scan; ``points`` and ``network`` are ignored."""
        self.iterations_run = getattr(self, "n_iterations", 0) or 0
        with torch.no_grad():
            return self.solve(case["scan"])

    @abstractmethod
    def solve(self, scan: Scan) -> Tensor:
        """Reconstruct the image ``(C, *S)`` of a scan; called without gradients."""

    def chosen(self, method: str, scan: Scan) -> float:
        """Choose the weight (:func:`~disinr_monai.methods.automatic.automatic`); log and ``history`` name it."""
        weight = automatic(method, scan)
        if self.case_name:  # not for the parts of a scan that the prior and its guard look at
            noise = scan.noise_std()
            self.history.append({"iteration": self.iterations_run, "weight": weight, "noise": noise})
            logger.info("%s: %s %.3g chosen from the scan (noise %.2g)", self.case_name, method, weight, noise)
        return weight


def far_apart(subsets: list[Scan]) -> list[Scan]:
    """Order subsets of views so that those far apart in angle follow each other (multiples of the golden ratio)."""
    order = sorted(range(len(subsets)), key=lambda i: (i * 0.6180339887) % 1.0)
    return [subsets[i] for i in order]


class DirectInverse(ClassicalMethod):
    """The operator's one-step reconstruction: zero-filled for MRI, filtered back-projection for CT."""

    fits_data = False

    def solve(self, scan: Scan) -> Tensor:
        """Apply the operator's ``direct_inverse``; the weights are not used."""
        return scan.operator.direct_inverse(scan.measurement).clone()


class ConjugateGradient(ClassicalMethod):
    r"""Least squares by conjugate gradients on the normal equations; CG-SENSE for multi-coil MRI.

    .. math:: (A^H W A / L + λ I)\, x = A^H W y / L, \qquad L = \|A^H A\|

    from :math:`x = 0` (Pruessmann et al., Magn. Reson. Med. 46:638, 2001). Dividing by :math:`L` gives
    ``l2_weight`` the same meaning for every operator.

    Args:
        n_iterations: at most so many; few iterations are a regulariser of their own.
        l2_weight: :math:`λ`; None: chosen from each k-space (:mod:`disinr_monai.methods.automatic`).
        tolerance: stop when the residual is this fraction of the right-hand side.
        use_weights: use the statistical weights :math:`W` where a case has them.
    """

    def __init__(
        self,
        *,
        n_iterations: int = 30,
        l2_weight: float | None = 1e-3,
        tolerance: float = 1e-6,
        use_weights: bool = True,
    ) -> None:
        super().__init__()
        if n_iterations < 1 or (l2_weight is not None and l2_weight < 0):
            raise ValueError(
                f"ConjugateGradient: expected n_iterations >= 1 and l2_weight >= 0, found {n_iterations}, {l2_weight}"
            )
        self.n_iterations = n_iterations
        self.l2_weight = l2_weight
        self.tolerance = tolerance
        self.use_weights = use_weights

    def solve(self, scan: Scan) -> Tensor:
        """Solve for the image ``(C, *S)``."""
        scale = 1 / scan.operator.norm_squared()
        scan = scan if self.use_weights else scan.tempered(0)
        l2_weight = self.chosen("sense", scan) if self.l2_weight is None else self.l2_weight

        def normal(image: Tensor) -> Tensor:
            return scan.gram(image) * scale + l2_weight * image

        return conjugate_gradients(normal, scan.adjoint() * scale, self.n_iterations, self.tolerance)


class SIRT(ClassicalMethod):
    r"""Simultaneous iterative reconstruction for tomography.

    .. math:: x \leftarrow x + ρ\, C A^T R\,(y - A x), \qquad R = 1 / (A 1), \quad C = 1 / (A^T 1)

    from :math:`x = 0` (Gilbert, J. Theor. Biol. 36:105, 1972). The iteration count is the regulariser.

    Args:
        n_iterations: number of iterations; None: chosen from each scan (:mod:`disinr_monai.methods.automatic`).
        relaxation: :math:`ρ`, between 0 and 2.
        non_negative: clip the image at 0 after every iteration.
    """

    def __init__(self, *, n_iterations: int | None = 200, relaxation: float = 1.9, non_negative: bool = True) -> None:
        super().__init__()
        if (n_iterations is not None and n_iterations < 1) or not 0 < relaxation < 2:
            raise ValueError(
                f"SIRT: expected n_iterations >= 1 and 0 < relaxation < 2, found {n_iterations}, {relaxation}"
            )
        self.n_iterations = n_iterations
        self.relaxation = relaxation
        self.non_negative = non_negative

    def solve(self, scan: Scan) -> Tensor:
        """Iterate; the statistical weights are not used.

        Raises:
            InputError: the measurement is complex, so the rows of the operator have no sums.
        """
        operator, measurement = scan.operator, scan.measurement
        if measurement.is_complex():
            raise InputError(
                "SIRT: expected a real measurement such as a sinogram, found a complex one; "
                "use ConjugateGradient or TotalVariation for MRI"
            )
        row_sums = operator(torch.ones(operator.domain_shape).to(measurement))
        column_sums = operator.adjoint(torch.ones_like(measurement))
        rows, columns = _inverse_or_zero(row_sums), self.relaxation * _inverse_or_zero(column_sums)
        image = torch.zeros_like(columns)
        n_iterations = self.n_iterations
        if n_iterations is None:
            # Its weights are equal: the noise of all rays counts.
            n_iterations = min(max(round(self.chosen("sirt", scan)), 5), _MOST)
            self.iterations_run = n_iterations
        for _ in range(n_iterations):
            image += columns * operator.adjoint(rows * (measurement - operator(image)))
            if self.non_negative:
                image.clamp_(min=0)
        return image


def _inverse_or_zero(sums: Tensor) -> Tensor:
    # A ray that misses the image, or a pixel that no ray meets, takes no part.
    small = 1e-6 * sums.max()
    return torch.where(sums > small, 1 / sums.clamp(min=small), 0.0)
