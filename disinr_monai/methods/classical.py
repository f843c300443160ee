"""What the classical methods share: the check of what they are given."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.numerics.conjugate_gradients import conjugate_gradients
from disinr_monai.operators.count_model import CountModel
from disinr_monai.operators.linear_operator import LinearOperator


class ClassicalMethod(CaseInferer):
    """A reconstruction without a network; subclasses write :meth:`solve`."""

    def reconstruct(
        self,
        points: Tensor | None = None,
        network: nn.Module | None = None,
        *,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None = None,
        **counts: CountModel,
    ) -> Tensor:
        """Reconstruct one image ``(C, *S)`` from one measurement; ``points`` and ``network`` are ignored.

        ``counts`` holds the ``count_model`` for a method with ``takes_counts`` and is empty for others.

        Raises:
            ValueError: measurement or weights do not have the shape of the operator's range.
        """
        for name, tensor in (("measurement", measurement), ("weights", weights)):
            if tensor is not None and tuple(tensor.shape) != operator.range_shape:
                raise ValueError(
                    f"{type(self).__name__}: {name} must have the operator's shape {operator.range_shape}, "
                    f"found {tuple(tensor.shape)}"
                )
        self.iterations_run = getattr(self, "n_iterations", 0)
        with torch.no_grad():
            return self.solve(operator, measurement, weights, **counts)

    @abstractmethod
    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """The image ``(C, *S)`` of a checked measurement; runs without gradients."""


class DirectInverse(ClassicalMethod):
    """The operator's one-step reconstruction: zero-filled for MRI, filtered back-projection for CT."""

    fits_data = False

    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """``operator.direct_inverse(measurement)``; the weights have no part in it."""
        return operator.direct_inverse(measurement).clone()


class ConjugateGradient(ClassicalMethod):
    r"""Least squares by conjugate gradients on the normal equations; CG-SENSE for multi-coil MRI.

    .. math:: (A^H W A / L + λ I)\, x = A^H W y / L, \qquad L = \|A^H A\|

    from :math:`x = 0` (Pruessmann et al., Magn. Reson. Med. 46:638, 2001). Dividing by :math:`L` gives
    ``l2_weight`` the same meaning for every operator.

    Args:
        n_iterations: at most so many; few iterations are a regulariser of their own.
        l2_weight: :math:`λ`.
        tolerance: stop when the residual is this fraction of the right-hand side.
        use_weights: use the statistical weights :math:`W` where a case has them.
    """

    def __init__(
        self, *, n_iterations: int = 30, l2_weight: float = 1e-3, tolerance: float = 1e-6, use_weights: bool = True
    ) -> None:
        super().__init__()
        if n_iterations < 1 or l2_weight < 0:
            raise ValueError(
                f"ConjugateGradient: expected n_iterations >= 1 and l2_weight >= 0, found {n_iterations}, {l2_weight}"
            )
        self.n_iterations = n_iterations
        self.l2_weight = l2_weight
        self.tolerance = tolerance
        self.use_weights = use_weights

    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """Solve for the image ``(C, *S)``."""
        scale = 1 / operator.norm_squared()
        weights = weights if self.use_weights else None

        def normal(image: Tensor) -> Tensor:
            return operator.gram(image, weights) * scale + self.l2_weight * image

        right = operator.adjoint(measurement if weights is None else measurement * weights) * scale
        return conjugate_gradients(normal, right, self.n_iterations, self.tolerance)


class SIRT(ClassicalMethod):
    r"""Simultaneous iterative reconstruction for tomography.

    .. math:: x \leftarrow x + ρ\, C A^T R\,(y - A x), \qquad R = 1 / (A 1), \quad C = 1 / (A^T 1)

    from :math:`x = 0` (Gilbert, J. Theor. Biol. 36:105, 1972). The iteration count is the regulariser.

    Args:
        n_iterations: number of iterations.
        relaxation: :math:`ρ`, between 0 and 2.
        non_negative: clip the image at 0 after every iteration.
    """

    def __init__(self, *, n_iterations: int = 200, relaxation: float = 1.9, non_negative: bool = True) -> None:
        super().__init__()
        if n_iterations < 1 or not 0 < relaxation < 2:
            raise ValueError(
                f"SIRT: expected n_iterations >= 1 and 0 < relaxation < 2, found {n_iterations}, {relaxation}"
            )
        self.n_iterations = n_iterations
        self.relaxation = relaxation
        self.non_negative = non_negative

    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """Iterate; the statistical weights have no part in it.

        Raises:
            InputError: the measurement is complex, so the rows of the operator have no sums.
        """
        if measurement.is_complex():
            raise InputError(
                "SIRT: expected a real measurement such as a sinogram, found a complex one; "
                "use ConjugateGradient or TotalVariation for MRI"
            )
        row_sums = operator(torch.ones(operator.domain_shape).to(measurement))
        column_sums = operator.adjoint(torch.ones_like(measurement))
        rows, columns = _inverse_or_zero(row_sums), self.relaxation * _inverse_or_zero(column_sums)
        image = torch.zeros_like(columns)
        for _ in range(self.n_iterations):
            image += columns * operator.adjoint(rows * (measurement - operator(image)))
            if self.non_negative:
                image.clamp_(min=0)
        return image


def _inverse_or_zero(sums: Tensor) -> Tensor:
    # A ray that misses the image, or a pixel that no ray meets, takes no part.
    small = 1e-6 * sums.max()
    return torch.where(sums > small, 1 / sums.clamp(min=small), 0.0)
