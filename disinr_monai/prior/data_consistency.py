from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disinr_monai.numerics.conjugate_gradients import conjugate_gradients
from disinr_monai.operators import LinearOperator


def data_consistency(
    centre: Tensor,
    operator: LinearOperator,
    measurement: Tensor,
    weights: Tensor | None,
    dc_weight: Tensor | float,
    n_iterations: int = 10,
) -> Tensor:
    r"""The image near ``centre`` that fits the measurement, differentiable in ``centre`` and ``dc_weight``.

    .. math:: \arg\min_x \tfrac12 \|W^{1/2}(A x - y)\|^2 + \tfrac{λ}{2} \|x - f\|^2
        = f + (A^H W A + λ)^{-1} A^H W (y - A f)

    by conjugate gradients from :math:`f`. The map is linear in :math:`f`, with the symmetric matrix
    :math:`M = λ (A^H W A + λ)^{-1}`, so that its gradient is the same solve with :math:`y = 0` (Aggarwal et al., MoDL,
    IEEE Trans. Med. Imaging 38:394, 2019); and :math:`\partial x / \partial λ = M (f - x) / λ`.

    Args:
        centre: :math:`f`, ``(C, *S)``.
        operator, measurement, weights: of one scan; weights as they shall count.
        dc_weight: :math:`λ`, in the units of :math:`A^H A`.
        n_iterations: conjugate gradient steps.
    """
    dc_weight = torch.as_tensor(dc_weight, dtype=centre.dtype, device=centre.device)
    return _DataConsistency.apply(centre, dc_weight, operator, measurement, weights, n_iterations)


class _DataConsistency(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, centre, dc_weight, operator, measurement, weights, n_iterations):
        ctx.problem = (operator, weights, float(dc_weight), n_iterations)
        difference = measurement - operator(centre)
        slope = operator.adjoint(difference if weights is None else difference * weights)
        change = _solve(slope, *ctx.problem)
        ctx.save_for_backward(change)
        return centre + change

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        operator, weights, dc_weight, _ = ctx.problem
        (change,) = ctx.saved_tensors
        centre = gradient + _solve(-operator.gram(gradient, weights), *ctx.problem)
        return centre, -(centre * change).sum() / dc_weight, None, None, None, None


def _solve(
    slope: Tensor, operator: LinearOperator, weights: Tensor | None, dc_weight: float, n_iterations: int
) -> Tensor:
    """``(A^H W A + dc_weight) x = slope``."""

    def normal(image: Tensor) -> Tensor:
        return operator.gram(image, weights) + dc_weight * image

    return conjugate_gradients(normal, slope, n_iterations)
