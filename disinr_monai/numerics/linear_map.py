from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LinearMap(torch.autograd.Function):
    """A linear map whose gradient is its adjoint: ``LinearMap.apply(values, apply, adjoint)`` is ``apply(values)``.

    Automatic differentiation sees neither function, so neither keeps anything. The gradient is a map of the same kind,
    so that second derivatives work too.

    ``apply`` and ``adjoint`` take and give a tensor.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, apply: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]):
        ctx.maps = (adjoint, apply)
        return apply(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        return LinearMap.apply(gradient, *ctx.maps), None, None
