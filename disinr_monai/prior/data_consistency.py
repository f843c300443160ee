from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from disinr_monai.numerics.conjugate_gradients import conjugate_gradients
from disinr_monai.scan import Scan


def data_consistency(centre: Tensor, scan: Scan, dc_weight: Tensor | float, n_iterations: int = 10) -> Tensor:
    r"""Fit an image near ``centre`` to a scan, differentiably in ``centre`` and ``dc_weight``.

    .. math:: \arg\min_x \tfrac12 \|W^{1/2}(A x - y)\|^2 + \tfrac{λ}{2} \|x - f\|^2
        = f + (A^H W A + λ)^{-1} A^H W (y - A f)

    by conjugate gradients from :math:`f`. The map is linear in :math:`f`, with the symmetric matrix
    :math:`M = λ (A^H W A + λ)^{-1}`, so that its gradient is the same solve with :math:`y = 0` (Aggarwal et al., MoDL,
    IEEE Trans. Med. Imaging 38:394, 2019); and :math:`\partial x / \partial λ = M (f - x) / λ`.

    Args:
        centre: :math:`f`, ``(C, *S)``.
        scan: :math:`A`, :math:`y` and :math:`W`.
        dc_weight: :math:`λ`, in the units of :math:`A^H A`.
        n_iterations: conjugate gradient steps.
    """
    dc_weight = torch.as_tensor(dc_weight, dtype=centre.dtype, device=centre.device)
    return _DataConsistency.apply(centre, dc_weight, scan, n_iterations)


class _DataConsistency(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, centre, dc_weight, scan, n_iterations):
        ctx.problem = (scan, float(dc_weight), n_iterations)
        change = _solve(replace(scan, measurement=scan.measurement - scan.operator(centre)).adjoint(), *ctx.problem)
        ctx.save_for_backward(change)
        return centre + change

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        scan, dc_weight, _ = ctx.problem
        (change,) = ctx.saved_tensors
        centre = gradient + _solve(-scan.gram(gradient), *ctx.problem)
        return centre, -(centre * change).sum() / dc_weight, None, None


def _solve(slope: Tensor, scan: Scan, dc_weight: float, n_iterations: int) -> Tensor:
    """Solve ``(A^H W A + dc_weight) x = slope``."""
    return conjugate_gradients(lambda image: scan.gram(image) + dc_weight * image, slope, n_iterations)
