from __future__ import annotations

from torch import Tensor

from disinr_monai.conjugate_gradients import conjugate_gradients
from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.operators.linear_operator import LinearOperator


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
