"""Coordinate encoders: each maps points ``(n, in_dim)`` in [-1, 1] to features ``(n, out_dim)``.

The contract of an encoder: attributes ``in_dim`` and ``out_dim``, a ``seed`` keyword, and ``reset(seed)``. One that
ends in an :class:`MLP` named ``mlp`` also has ``inputs(points)``, what this MLP gets.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from disinr_monai.networks.hash_grid import HashGrid
from disinr_monai.networks.mlp import MLP


class HashGridEncoder(nn.Module):
    """Hash grid followed by a small MLP: the NGP backbone of the DisINR paper (arXiv 2605.04234).

    The defaults are the published configuration, recovered from its parameter counts.

    Args:
        in_dim: number of coordinates.
        out_dim: width of the features.
        hidden_dim: width of the MLP after the grid.
        n_layers: its hidden layers.
        seed: seed of grid and MLP; give every encoder its own.
        n_levels: this and the rest: see :class:`~disinr_monai.networks.HashGrid`.
        n_features_per_level: see there.
        log2_hashmap_size: see there.
        base_resolution: see there.
        per_level_scale: see there.
        fixed_points: see there.
    """

    def __init__(
        self,
        in_dim: int = 2,
        out_dim: int = 128,
        hidden_dim: int = 128,
        n_layers: int = 2,
        seed: int = 0,
        n_levels: int = 10,
        n_features_per_level: int = 8,
        log2_hashmap_size: int = 18,
        base_resolution: int = 2,
        per_level_scale: float = 2.0,
        fixed_points: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.grid = HashGrid(
            in_dim,
            n_levels,
            n_features_per_level,
            log2_hashmap_size,
            base_resolution,
            per_level_scale,
            fixed_points,
            seed=2 * seed,
        )
        self.mlp = MLP(self.grid.out_dim, out_dim, hidden_dim, n_layers, seed=2 * seed + 1)

    def reset(self, seed: int) -> None:
        """Start afresh from ``seed``."""
        self.grid.reset(2 * seed)
        self.mlp.reset(2 * seed + 1)

    def inputs(self, points: Tensor) -> Tensor:
        """Input of the MLP: the grid's features."""
        return self.grid(points)

    def forward(self, points: Tensor) -> Tensor:
        return self.mlp(self.inputs(points))


class FrequencyEncoder(nn.Module):
    r"""Sine and cosine features of octave frequencies, then an MLP: the NeRF backbone (Mildenhall et al., ECCV 2020).

    .. math:: \gamma(p) = (\sin 2^k \pi p, \cos 2^k \pi p)_{k=0}^{K-1}

    Args:
        in_dim: number of coordinates.
        out_dim: width of the features.
        n_frequencies: :math:`K`.
        hidden_dim: width of the MLP.
        n_layers: its hidden layers.
        seed: seed of the MLP.
    """

    def __init__(
        self,
        in_dim: int = 2,
        out_dim: int = 128,
        n_frequencies: int = 10,
        hidden_dim: int = 256,
        n_layers: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(n_frequencies), persistent=False)
        self.mlp = MLP(2 * in_dim * n_frequencies, out_dim, hidden_dim, n_layers, seed=seed)

    def reset(self, seed: int) -> None:
        """Start afresh from ``seed``."""
        self.mlp.reset(seed)

    def inputs(self, points: Tensor) -> Tensor:
        """Input of the MLP: sines and cosines."""
        phase = (points.unsqueeze(-1) * self.frequencies).flatten(1)
        return torch.cat((phase.sin(), phase.cos()), dim=-1)

    def forward(self, points: Tensor) -> Tensor:
        return self.mlp(self.inputs(points))


class SirenEncoder(nn.Module):
    r"""Sine layers (Sitzmann et al., *Implicit Neural Representations with Periodic Activation Functions*, 2020).

    .. math:: h_0 = p, \quad h_{k+1} = \sin(\omega_0 (W_k h_k + b_k)), \quad \gamma(p) = W_n h_n + b_n

    Args:
        in_dim: number of coordinates.
        out_dim: width of the features.
        hidden_dim: width of the sine layers.
        n_layers: their number.
        omega_0: frequency factor.
        seed: seed of the start.
    """

    def __init__(
        self,
        in_dim: int = 2,
        out_dim: int = 128,
        hidden_dim: int = 256,
        n_layers: int = 6,
        omega_0: float = 30.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.omega_0 = in_dim, out_dim, omega_0
        widths = [in_dim] + [hidden_dim] * n_layers + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start afresh from ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for k, layer in enumerate(self.layers):
                n = layer.in_features
                bound = 1.0 / n if k == 0 else math.sqrt(6.0 / n) / self.omega_0
                layer.weight.copy_(torch.empty(layer.weight.shape).uniform_(-bound, bound, generator=generator))
                bias = 1.0 / math.sqrt(n)
                layer.bias.copy_(torch.empty(layer.bias.shape).uniform_(-bias, bias, generator=generator))

    def forward(self, points: Tensor) -> Tensor:
        hidden = points
        last = len(self.layers) - 1
        for k, layer in enumerate(self.layers):  # no slice of the list: TorchScript compiles this as it is
            hidden = layer(hidden)
            if k < last:
                hidden = torch.sin(self.omega_0 * hidden)
        return hidden
