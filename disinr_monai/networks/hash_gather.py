"""The hash encoding of points that are new in every iteration: look up the corners of each cell, sum them weighted."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from disinr_monai.networks.hash_grid import Level

PRIMES = (1, 2654435761, 805459861, 3674653429)


def cell_corners(points: Tensor, levels: tuple[Level, ...]) -> tuple[Tensor, Tensor]:
    """Table rows and interpolation weights of the corners of the cells that points lie in.

    The same numbers as :func:`disinr_monai.networks.hash_grid.interpolation`, three times as fast: 32-bit integers that
    wrap as on a GPU, and of each corner only what one more axis adds.

    Args:
        points: ``(n, D)`` in [-1, 1].
        levels: the grid's levels.

    Returns:
        ``rows`` (int32) and ``weights`` (float32), both ``(n, n_levels, 2**D)``.
    """
    n_points, in_dim = points.shape
    unit = ((points.float() + 1) / 2).t().contiguous()
    shape = (n_points, len(levels), 2**in_dim)
    rows = torch.empty(shape, dtype=torch.int32, device=points.device)
    weights = torch.empty(shape, device=points.device)
    for number, level in enumerate(levels):
        position = unit * level.scale + 0.5
        cell = position.floor()
        fraction = position - cell
        cell = cell.int()
        hashed = level.resolution**in_dim > level.n_entries
        index, weight = [], []
        for axis in range(in_dim):
            stride = _signed(PRIMES[axis]) if hashed else level.resolution**axis
            low = cell[axis] * stride
            ends = (low, low + stride)
            shares = (1 - fraction[axis], fraction[axis])
            # Corner c takes the upper end of axis d where bit d of c is set: the later axis is the outer loop.
            if axis == 0:
                index, weight = list(ends), list(shares)
            else:
                index = [old ^ end if hashed else old + end for end, old in itertools.product(ends, index)]
                weight = [old * share for share, old in itertools.product(shares, weight)]
        index = torch.stack(index, 1)
        index = index & (level.n_entries - 1) if hashed else index % level.n_entries
        rows[:, number] = index + level.offset
        torch.stack(weight, 1, out=weights[:, number])
    return rows, weights


def _signed(prime: int) -> int:
    return prime - 2**32 if prime >= 2**31 else prime


def weighted_sums(rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    r"""Sums of table rows, :math:`\sum_k w_{ik}\, t_{r_{ik}}`, differentiable in the table.

    Args:
        rows: ``(m, K)``, int32.
        weights: ``(m, K)``, of the table's dtype.
        table: ``(n, F)``.

    Returns:
        ``(m, F)``.
    """
    return _WeightedSums.apply(rows, weights, table)


class _WeightedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.n_entries = len(table)
        return functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor):
        rows, weights = ctx.saved_tensors
        return None, None, _Spread.apply(rows, weights, gradient, ctx.n_entries)


class _Spread(torch.autograd.Function):
    """The transpose: add each sum's gradient to the rows that it came from."""

    @staticmethod
    def forward(ctx, rows: Tensor, weights: Tensor, gradient: Tensor, n_entries: int) -> Tensor:
        ctx.save_for_backward(rows, weights)
        if gradient.device.type != "cpu":
            spread = (weights.unsqueeze(-1) * gradient.unsqueeze(1)).flatten(0, 1)
            return gradient.new_zeros(n_entries, gradient.shape[1]).index_add_(0, rows.flatten(), spread)
        # PyTorch's own backward pass of embedding_bag sorts the rows first, which takes ten times as long.
        ends = np.arange(0, rows.numel() + 1, rows.shape[1], dtype=np.int32)
        parts = (weights.numpy().ravel(), rows.numpy().ravel(), ends)
        matrix = scipy.sparse.csr_matrix(parts, shape=(len(rows), n_entries), copy=False)
        return torch.from_numpy(matrix.T @ gradient.contiguous().numpy())

    @staticmethod
    def backward(ctx, gradient: Tensor):
        rows, weights = ctx.saved_tensors
        return None, None, _WeightedSums.apply(rows, weights, gradient), None
