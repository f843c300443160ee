from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disinr_monai.operators import LinearOperator


def data_consistency(
    centre: Tensor,
    operator: LinearOperator,
    measurement: Tensor,
    weights: Tensor | None,
    dc_weight: float,
    n_iterations: int = 10,
) -> Tensor:
    r"""The image near ``centre`` that fits the measurement, differentiable in ``centre``.

    .. math:: \arg\min_x \tfrac12 \|W^{1/2}(A x - y)\|^2 + \tfrac{λ}{2} \|x - f\|^2
        = f + (A^H W A + λ)^{-1} A^H W (y - A f)

    by conjugate gradients from :math:`f`. The map is linear in :math:`f`, with the symmetric matrix
    :math:`λ (A^H W A + λ)^{-1}`, so that its gradient is the same solve with :math:`y = 0` (Aggarwal et al., MoDL, IEEE
    Trans. Med. Imaging 38:394, 2019).

    Args:
        centre: :math:`f`, ``(C, *S)``.
        operator, measurement, weights: of one scan; weights as they shall count.
        dc_weight: :math:`λ`, in the units of :math:`A^H A`.
        n_iterations: conjugate gradient steps.
    """
    return _DataConsistency.apply(centre, operator, measurement, weights, dc_weight, n_iterations)


class _DataConsistency(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, centre, operator, measurement, weights, dc_weight, n_iterations):
        ctx.problem = (operator, weights, dc_weight, n_iterations)
        difference = measurement - operator(centre)
        slope = operator.adjoint(difference if weights is None else difference * weights)
        return centre + _solve(slope, *ctx.problem)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        operator, weights, *_ = ctx.problem
        slope = -operator.gram(gradient, weights)
        return gradient + _solve(slope, *ctx.problem), None, None, None, None, None


def _solve(
    slope: Tensor, operator: LinearOperator, weights: Tensor | None, dc_weight: float, n_iterations: int
) -> Tensor:
    """Conjugate gradients on ``(A^H W A + dc_weight) x = slope`` from 0."""
    solution = torch.zeros_like(slope)
    residual, direction = slope.clone(), slope.clone()
    energy = residual.square().sum()
    for _ in range(n_iterations):
        if float(energy) == 0:
            break
        product = operator.gram(direction, weights) + dc_weight * direction
        length = energy / (direction * product).sum()
        solution += length * direction
        residual -= length * product
        energy, previous = residual.square().sum(), energy
        direction = residual + (energy / previous) * direction
    return solution
