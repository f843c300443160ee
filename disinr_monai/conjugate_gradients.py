from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], right: Tensor, n_iterations: int, tolerance: float = 0.0
) -> Tensor:
    r"""Solve :math:`N x = b` with a symmetric positive definite map, from 0 (Hestenes and Stiefel, 1952).

    Args:
        normal: :math:`N`.
        right: :math:`b`.
        n_iterations: at most so many steps.
        tolerance: stop when the residual is at most this times the size of :math:`b`.

    Returns:
        :math:`x`.
    """
    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    energy = residual.square().sum()
    stop = tolerance**2 * float(energy)
    for _ in range(n_iterations):
        if float(energy) <= stop:
            break
        product = normal(direction)
        length = energy / (direction * product).sum()
        solution += length * direction
        residual -= length * product
        energy, previous = residual.square().sum(), energy
        direction = residual + (energy / previous) * direction
    return solution
