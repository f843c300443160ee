from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.methods.tv_prox import TotalVariationProx
from disinr_monai.operators.linear_operator import LinearOperator


class TotalVariation(ClassicalMethod):
    r"""Least squares with isotropic total variation, the classical method to beat.

    .. math:: \min_x \; \frac{1}{2L} \|W^{1/2}(A x - y)\|^2 + λ \sum_i |(\nabla x)_i|, \qquad L = \|A^H A\|

    by FISTA (Beck and Teboulle, SIAM J. Imaging Sci. 2:183, 2009) with restarts (O'Donoghue and Candes, Found. Comput.
    Math. 15:715, 2015) and a warm-started proximal step. Dividing by :math:`L` makes ``tv_weight`` mean the same for
    every operator and number of views. The two channels of a complex image share one gradient norm.

    Args:
        tv_weight: :math:`λ`, for an image of about 1: 1e-4 suits CT with 60 views and 1e5 photons,
            MRI needs 10 to 50 times as much (in CT, :math:`L` belongs to the mean of the image, far above its details).
        n_iterations: gradient steps.
        n_prox_iterations: dual steps inside each proximal step.
        non_negative: constrain the image (CT, not MRI).
        weight_power: the statistical weights :math:`w` of a case enter as :math:`W = w^p`, mean 1. With :math:`p = 1`
            rays through air, whose error is that of the pixel grid and not of the photons, count too much; 0 ignores
            the weights.
    """

    def __init__(
        self,
        *,
        tv_weight: float = 1e-4,
        n_iterations: int = 150,
        n_prox_iterations: int = 5,
        non_negative: bool = False,
        weight_power: float = 0.5,
    ) -> None:
        super().__init__()
        if tv_weight < 0 or n_iterations < 1 or n_prox_iterations < 1:
            raise ValueError(
                "TotalVariation: expected tv_weight >= 0, n_iterations >= 1 and n_prox_iterations >= 1, "
                f"found {tv_weight}, {n_iterations}, {n_prox_iterations}"
            )
        self.tv_weight = tv_weight
        self.n_iterations = n_iterations
        self.n_prox_iterations = n_prox_iterations
        self.non_negative = non_negative
        self.weight_power = weight_power

    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """Minimise from the direct inverse."""
        norm = operator.norm_squared()
        step = 1.0
        if self.weight_power == 0:
            weights = None
        if weights is not None:
            weights = weights**self.weight_power
            weights = weights / weights.mean()
            step = norm / _weighted_norm(operator, weights)
        # The power method approaches the norm from below.
        step *= 0.95
        image = operator.direct_inverse(measurement)
        prox = TotalVariationProx(operator.domain_shape, image, self.non_negative)
        momentum, t = image, 1.0
        for _ in range(self.n_iterations):
            residual = operator(momentum) - measurement
            if weights is not None:
                residual *= weights
            slope = operator.adjoint(residual)
            following = prox(
                torch.add(momentum, slope, alpha=-step / norm), step * self.tv_weight, self.n_prox_iterations
            )
            change = following - image
            if torch.dot((momentum - following).flatten(), change.flatten()) > 0:
                t = 1.0
            t, previous_t = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            momentum = torch.add(following, change, alpha=(previous_t - 1) / t)
            image = following
        return image


def _weighted_norm(operator: LinearOperator, weights: Tensor, n_iterations: int = 20) -> float:
    x = operator.adjoint(weights)
    value = torch.zeros(())
    for _ in range(n_iterations):
        x = operator.adjoint(weights * operator(x / torch.linalg.vector_norm(x)))
        value = torch.linalg.vector_norm(x)
    return float(value)
