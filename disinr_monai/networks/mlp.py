from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from disinr_monai.networks import tcnn_backend


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
        if self.amp and features.is_cuda and tcnn_backend.is_available():
            return tcnn_backend.apply_mlp(self, features)
        return self.tail(self.linear(0, features))

    def linear(self, layer: int, features: Tensor, columns: slice = slice(None)) -> Tensor:
        """Product with one matrix, or with some of its columns; in bfloat16 when ``amp`` is on."""
        weight = self.weights[layer][:, columns]
        if self.amp:
            return functional.linear(features.to(torch.bfloat16), weight.to(torch.bfloat16))
        return functional.linear(features, weight)

    def tail(self, hidden: Tensor) -> Tensor:
        """The rest of the network after the first matrix: ``(n, hidden_dim)`` pre-activations to ``(n, out_dim)``."""
        for layer in range(1, self.n_layers):
            hidden = self.linear(layer, torch.relu(hidden))
        return functional.linear(torch.relu(hidden).to(self.weights[-1].dtype), self.weights[-1])
