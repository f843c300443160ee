"""Proximal operator of isotropic total variation, warm-started."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def gradient(image: Tensor, out: Tensor | None = None) -> Tensor:
    """Forward differences of ``(C, *S)`` along each spatial axis, ``(D, C, *S)``; 0 at the far border."""
    n_axes = image.ndim - 1
    if out is None:
        out = image.new_zeros((n_axes, *image.shape))
    for axis in range(n_axes):
        n = image.shape[axis + 1]
        torch.sub(image.narrow(axis + 1, 1, n - 1), image.narrow(axis + 1, 0, n - 1), out=_front(out, axis))
    return out


def add_gradient_adjoint(image: Tensor, field: Tensor) -> Tensor:
    """``image += gradient^T field`` in place; ``field`` must be 0 at the far borders."""
    for axis in range(image.ndim - 1):
        n = image.shape[axis + 1]
        front = _front(field, axis)
        image.narrow(axis + 1, 1, n - 1).add_(front)
        image.narrow(axis + 1, 0, n - 1).sub_(front)
    return image


def _front(field: Tensor, axis: int) -> Tensor:
    component = field[axis]
    return component.narrow(axis + 1, 0, component.shape[axis + 1] - 1)


@functools.cache
def _dual_steps() -> Callable[..., None]:
    # Numba takes half a second to import.
    from disinr_monai.methods.tv_prox_kernel import dual_steps

    return dual_steps


class TotalVariationProx:
    r"""Minimise :math:`\tfrac12 \|x - b\|_D^2 + λ \sum_i |(\nabla x)_i|`, over :math:`x \ge 0` if wanted.

    Fast gradient projection on the dual (Beck and Teboulle, IEEE Trans. Image Process. 18:2419, 2009). The dual
    variable stays from call to call, so that inside an outer iteration a few steps are enough. On a CPU, 2-D images go
    through a compiled loop (:mod:`disinr_monai.methods.tv_prox_kernel`), anything else through tensor operations.

    Args:
        shape: image shape ``(C, *S)``; channels share one gradient norm (a complex image is one object).
        like: tensor whose dtype and device are used.
        non_negative: constrain the image.
        metric: the diagonal :math:`D`, ``(1, *S)``, positive; the identity if not given.
    """

    def __init__(
        self, shape: tuple[int, ...], like: Tensor, non_negative: bool = False, metric: Tensor | None = None
    ) -> None:
        n_axes = len(shape) - 1
        self.non_negative = non_negative
        self._step: float | Tensor = 1 / (4 * n_axes)
        self._spread: Tensor | None = None
        self._dual = like.new_zeros((n_axes, *shape))
        self._momentum = torch.zeros_like(self._dual)
        self._compiled = False
        if metric is not None:
            self.set_metric(metric)
        self._compiled = n_axes == 2 and like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
        if self._compiled:
            self._planes = self._spread_and_step()
        else:
            self._next, self._slope = (torch.zeros_like(self._dual) for _ in range(2))
            self._norm = like.new_zeros(shape[1:])

    def set_metric(self, metric: Tensor) -> None:
        """Take another diagonal :math:`D`; the dual variable stays."""
        n_axes = metric.ndim - 1
        self._spread = 1 / metric
        # One step for all components of a pixel's dual vector (so that the projection stays a clipping of its
        # length), short enough for the largest entry of 1/D that its differences touch.
        largest = self._spread.clone()
        for axis in range(1, n_axes + 1):
            n = metric.shape[axis]
            front, back = largest.narrow(axis, 0, n - 1), self._spread.narrow(axis, 1, n - 1)
            torch.maximum(front, back, out=front)
        self._step = 1 / (4 * n_axes) / largest
        if self._compiled:
            self._planes = self._spread_and_step()

    def _spread_and_step(self) -> tuple[Tensor, Tensor]:
        """``1/D`` and the size of a step, both ``S``."""
        plane = self._dual.new_ones(self._dual.shape[2:])
        return plane if self._spread is None else self._spread[0], (self._step * plane).view_as(plane)

    def __call__(self, image: Tensor, weight: float, n_iterations: int) -> Tensor:
        """The minimiser for ``b = image`` and ``λ = weight`` after ``n_iterations`` more steps."""
        if weight == 0:
            return image.clamp(min=0) if self.non_negative else image.clone()
        momentum, t = self._momentum.copy_(self._dual), 1.0
        if self._compiled:
            return self._run_compiled(image, weight, n_iterations)
        for _ in range(n_iterations):
            gradient(self._primal(image, momentum, weight), out=self._slope)
            if self._spread is None:
                torch.add(momentum, self._slope, alpha=self._step / weight, out=self._next)
            else:
                torch.addcmul(momentum, self._slope, self._step, value=1 / weight, out=self._next)
            self._project(self._next)
            t, previous_t = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            torch.sub(self._next, self._dual, out=momentum).mul_((previous_t - 1) / t).add_(self._next)
            self._dual, self._next = self._next, self._dual
        return self._primal(image, self._dual, weight)

    def _run_compiled(self, image: Tensor, weight: float, n_iterations: int) -> Tensor:
        image = image.contiguous()
        out, (spread, step), shares, t = torch.empty_like(image), self._planes, [], 1.0
        for _ in range(n_iterations):
            t, previous_t = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            shares.append((previous_t - 1) / t)
        tensors = (image, self._dual, self._momentum, spread * weight, step / weight)
        arrays = [tensor.detach().numpy() for tensor in tensors]
        dtype = arrays[0].dtype.type
        lowest = dtype(0.0 if self.non_negative else -math.inf)
        _dual_steps()(*arrays, np.asarray(shares, dtype), lowest, out.numpy())
        return out

    def _primal(self, image: Tensor, dual: Tensor, weight: float) -> Tensor:
        # x = b - λ ∇^T p, from -∇^T (λ p) accumulated on b.
        if self._spread is None:
            primal = add_gradient_adjoint(image / -weight, dual).mul_(-weight)
        else:
            slope = add_gradient_adjoint(torch.zeros_like(image), dual)
            primal = torch.addcmul(image, slope, self._spread, value=-weight)
        return primal.clamp_(min=0) if self.non_negative else primal

    def _project(self, dual: Tensor) -> None:
        torch.sum(dual.square(), dim=(0, 1), out=self._norm)
        dual.div_(self._norm.clamp_(min=1).sqrt_())
