from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from disinr_monai.networks import tcnn_backend

# Rows at a time: a block of 128 bfloat16 features is 2 MiB, which stays in the cache between one product and the next.
BLOCK = 8192


class MLP(nn.Module):
    r"""Multi-layer perceptron without biases, ReLU between layers, linear output (tiny-cuda-nn's convention).

    .. math:: f(h) = W_{n} \,\mathrm{relu}(W_{n-1} \cdots \mathrm{relu}(W_0 h))

    Hidden layers run in bfloat16 when ``amp`` is on; the output layer and what leaves the module are float32.

    Args:
        in_dim: width of the input.
        out_dim: width of the output.
        hidden_dim: width of the hidden layers.
        n_layers: number of hidden layers; there are ``n_layers + 1`` matrices.
        seed: seed of the Xavier-uniform start.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_dim: int = 128, n_layers: int = 2, seed: int = 0) -> None:
        super().__init__()
        if min(in_dim, out_dim, hidden_dim, n_layers) < 1:
            raise ValueError("MLP: in_dim, out_dim, hidden_dim and n_layers must be at least 1")
        if n_layers > 1000:
            raise ValueError(f"MLP: expected at most 1000 hidden layers, found {n_layers}")
        self.in_dim, self.out_dim, self.hidden_dim, self.n_layers = in_dim, out_dim, hidden_dim, n_layers
        self.amp = False
        widths = [in_dim] + [hidden_dim] * n_layers + [out_dim]
        self.weights = nn.ParameterList(torch.empty(o, i) for i, o in itertools.pairwise(widths))
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Draw fresh Xavier-uniform weights from their own random generator."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.weights:
                bound = math.sqrt(6.0 / (weight.shape[0] + weight.shape[1]))
                weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        """``(n, in_dim)`` to ``(n, out_dim)``."""
        if self.uses_tcnn(features):
            return tcnn_backend.apply_mlp(list(self.weights), features)
        return self.product(features, self.weights)

    def uses_tcnn(self, features: Tensor) -> bool:
        """Tell whether tiny-cuda-nn's kernels would be used for these features."""
        return self.amp and features.is_cuda and tcnn_backend.is_available()

    def product(self, features: Tensor, weights: Sequence[Tensor], added: Tensor | None = None, at: int = 0) -> Tensor:
        """A perceptron of this module's kind and precision with other matrices; see :func:`fused_mlp`."""
        if self.amp:
            return fused_mlp(features, weights, added, at)
        for layer, weight in enumerate(weights):
            features = functional.linear(features if layer == 0 else torch.relu(features), weight)
            if added is not None and layer == at:
                features = features + added
        return features

    def linear(self, layer: int, features: Tensor, columns: slice = slice(None)) -> Tensor:
        """Product with one matrix, or with some of its columns; in bfloat16 when ``amp`` is on."""
        weight = self.weights[layer][:, columns]
        if self.amp:
            return functional.linear(features.to(torch.bfloat16), weight.to(torch.bfloat16))
        return functional.linear(features, weight)


def fused_mlp(features: Tensor, weights: Sequence[Tensor], added: Tensor | None = None, at: int = 0) -> Tensor:
    r"""Perceptron without biases, ReLU between layers, linear float32 output.

    .. math:: f(h) = W_{n} \,\mathrm{relu}(W_{n-1} \cdots \mathrm{relu}(W_\text{at} h_\text{at} + a) \cdots)

    The same numbers as layer by layer, but activations are made, rectified and differentiated in place and block by
    block, and gradients of matrices are summed over the blocks in float32. First derivatives only.

    Args:
        features: ``(n, in)``; taken as bfloat16.
        weights: matrices ``(out, in)``, float32.
        added: ``(n, out)`` of layer ``at``, added to its product, for what does not depend on ``features``.
        at: that layer; not the last one.

    Returns:
        ``(n, out)``, float32.
    """
    # Coordinates come as MONAI's tensors with metadata, which nothing here needs and which cost time in every call.
    features = features.as_subclass(Tensor)
    added = None if added is None else added.as_subclass(Tensor)
    return _FusedMLP.apply(features, added, at, *weights)


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, added: Tensor | None, at: int, *weights: Tensor) -> Tensor:
        *inner, last = weights
        halves = [weight.to(torch.bfloat16) for weight in inner]
        features = features.to(torch.bfloat16)
        n = len(features)
        hidden = [features.new_empty((n, len(weight))) for weight in halves]
        out = torch.empty(n, len(last), dtype=torch.float32, device=features.device)
        for rows in _blocks(features):
            values = features[rows]
            for layer, weight in enumerate(halves):
                below, values = values, hidden[layer][rows]
                torch.mm(below, weight.t(), out=values)
                if added is not None and layer == at:
                    values.add_(added[rows])
                values.relu_()
            torch.mm(values.float(), last.t(), out=out[rows])
        ctx.save_for_backward(features, last, *halves, *hidden)
        ctx.at, ctx.has_added = at, added is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        features, last, *rest = ctx.saved_tensors
        halves, hidden = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        needs_features, needs_added, _, *needs = ctx.needs_input_grad
        depth = len(halves)
        grad_features = torch.empty_like(features) if needs_features else None
        grad_added = torch.empty_like(hidden[ctx.at]) if needs_added else None
        sums = [
            torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if need else None
            for weight, need in zip((*halves, last), needs, strict=True)
        ]
        last_half = last.to(torch.bfloat16)
        spare = [features.new_empty((_block_size(features), len(weight))) for weight in halves]
        # Below this layer nothing is asked for.
        lowest = 0 if needs_features else min([i for i, need in enumerate(needs) if need] + [ctx.at] * needs_added)
        for rows in _blocks(features):
            above = gradient[rows]
            if sums[depth] is not None:
                sums[depth].addmm_(above.t().float(), hidden[-1][rows].float())
            above, weight = above.to(torch.bfloat16), last_half
            for layer in range(depth - 1, lowest - 1, -1):
                own = spare[layer][: len(above)]
                torch.mm(above, weight, out=own)
                torch.ops.aten.threshold_backward.grad_input(own, hidden[layer][rows], 0, grad_input=own)
                if layer == ctx.at and grad_added is not None:
                    grad_added[rows] = own
                if sums[layer] is not None:
                    below = hidden[layer - 1][rows] if layer > 0 else features[rows]
                    sums[layer] += torch.mm(own.t(), below)
                above, weight = own, halves[layer]
            if grad_features is not None:
                torch.mm(above, weight, out=grad_features[rows])
        return grad_features, grad_added, None, *sums


def _block_size(features: Tensor) -> int:
    return min(len(features), BLOCK) if features.device.type == "cpu" else len(features)


def _blocks(features: Tensor) -> list[slice]:
    size = max(_block_size(features), 1)
    return [slice(start, start + size) for start in range(0, len(features), size)]
