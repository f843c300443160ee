from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], right: Tensor, n_iterations: int, tolerance: float = 0.0
) -> Tensor:
    r"""Solve :math:`N x = b` with a Hermitian positive definite map, from 0 (Hestenes and Stiefel, 1952).

    Args:
        normal: :math:`N`.
        right: :math:`b`, real or complex.
        n_iterations: maximum number of steps.
        tolerance: stop when the residual is at most this times the size of :math:`b`; 0 needs no synchronisation.

    Returns:
        :math:`x`.
    """
    solution = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    energy = _energy(residual)
    stop = tolerance**2 * float(energy) if tolerance > 0 else 0.0
    for _ in range(n_iterations):
        if tolerance > 0 and float(energy) <= stop:
            break
        product = normal(direction)
        # A system that is solved already, from the start or to the last bit, must not give 0 / 0.
        length = torch.where(energy > 0, energy / (direction.conj() * product).real.sum(), 0.0)
        solution += length * direction
        residual -= length * product
        energy, previous = _energy(residual), energy
        direction = residual + torch.where(previous > 0, energy / previous, 0.0) * direction
    return solution


def _energy(x: Tensor) -> Tensor:
    return (x.abs() if x.is_complex() else x).square().sum()
