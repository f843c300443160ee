from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.operators.linear_operator import LinearOperator


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
