"""The same network in plain PyTorch: gathered corners, ordinary layers, automatic differentiation, float32.

What one writes first and what the package is compared with; nothing else uses it. The arithmetic is that of
`disinr_monai.networks.DisINR` with the same weights (a test compares them): only the implementation differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disinr_monai.networks import MLP, DisINR, HashGridEncoder
from disinr_monai.networks.hash_grid import Level, cell_corners


class PlainGrid(nn.Module):
    """Hash encoding: look up the corners of each point's cell and interpolate, in every iteration."""

    def __init__(self, table: Tensor, levels: tuple[Level, ...]) -> None:
        super().__init__()
        self.table, self.levels = nn.Parameter(table.detach().clone()), levels

    def forward(self, points: Tensor) -> Tensor:
        rows, weights = cell_corners(points, self.levels)
        return (weights.unsqueeze(-1) * self.table[rows.long()]).sum(-2).flatten(1)


def plain_layers(mlp: MLP) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for weight in mlp.weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(weight.detach().clone())
        layers += [layer, nn.ReLU()]
    return layers[:-1]


def plain_encoder(encoder: HashGridEncoder) -> nn.Sequential:
    return nn.Sequential(PlainGrid(encoder.grid.table, encoder.grid.levels), *plain_layers(encoder.mlp))


class PlainDisINR(nn.Module):
    """Frozen shared encoder and decoder, one subject encoder to fit; both encoders run in every iteration."""

    def __init__(self, network: DisINR) -> None:
        super().__init__()
        self.shared = plain_encoder(network.shared["encoder"]).requires_grad_(False)
        self.decoder = nn.Sequential(*plain_layers(network.shared["decoder"])).requires_grad_(False)
        self.subject = plain_encoder(network.subjects[0])

    def forward(self, points: Tensor) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, 2)``."""
        return self.decoder(torch.cat((self.shared(points), self.subject(points)), dim=-1))
