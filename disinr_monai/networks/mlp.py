from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from disinr_monai.networks import tcnn_backend
from disinr_monai.networks.fused_mlp import fused_mlp
from disinr_monai.networks.scriptable import PlainMLP


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
            return tcnn_backend.apply_mlp(self, features)
        return self.product(features, self.weights)

    def uses_tcnn(self, features: Tensor) -> bool:
        """Whether tiny-cuda-nn's kernels would be used for these features."""
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

    def scriptable(self) -> nn.Module:
        """The same function for TorchScript, with these weights."""
        return PlainMLP(self)
