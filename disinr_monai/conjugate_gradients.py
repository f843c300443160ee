from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor],
    right: Tensor,
    n_iterations: int,
    tolerance: float = 0.0,
    n_axes: int | None = None,
) -> Tensor:
    r"""Solve :math:`N x = b` with a symmetric positive definite map, from 0 (Hestenes and Stiefel, 1952).

    Args:
        normal: :math:`N`.
        right: :math:`b`.
        n_iterations: at most so many steps.
        tolerance: stop when the residual is at most this times the size of :math:`b` (of all together).
        n_axes: last axes that make up one :math:`x`; those before them are independent systems of the same kind,
            each with its own steps. All axes if not given.

    Returns:
        :math:`x`.
    """
    axes = tuple(range(-(right.ndim if n_axes is None else n_axes), 0))

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True)

    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    energy = inner(residual, residual)
    stop = tolerance**2 * float(energy.sum()) if tolerance > 0 else 0.0
    for _ in range(n_iterations):
        if tolerance > 0 and float(energy.sum()) <= stop:
            break
        product = normal(direction)
        # A system that is solved stays so: 0 over 0 would be no number.
        length = torch.where(energy > 0, energy / inner(direction, product), 0.0)
        solution += length * direction
        residual -= length * product
        energy, previous = inner(residual, residual), energy
        direction = residual + torch.where(previous > 0, energy / previous, 0.0) * direction
    return solution
