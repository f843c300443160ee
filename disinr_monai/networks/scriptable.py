"""The same functions in the part of Python that TorchScript compiles, for `monai.bundle ckpt_export`.

`torch.jit.script` asks a module for `__prepare_scriptable__`; :class:`~disinr_monai.networks.DisINR` then hands over
:class:`ScriptableDisINR`. Speed is given away: plain operations instead of sparse matrices and fused kernels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from disinr_monai.networks.disinr import DisINR
    from disinr_monai.networks.hash_grid import HashGrid
    from disinr_monai.networks.mlp import MLP

# Those of the hash grid, which imports this file.
_PRIMES = (1, 2654435761, 805459861, 3674653429)


class PlainMLP(nn.Module):
    """:class:`~disinr_monai.networks.MLP` in float32.

    Args:
        mlp: its weights are shared.
    """

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for weight in mlp.weights:
            if layers:
                layers.append(nn.ReLU())
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            layer.weight = weight
            layers.append(layer)
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """``(n, in_dim)`` to ``(n, out_dim)``."""
        return self.layers(features)


class GatheredGrid(nn.Module):
    """:class:`~disinr_monai.networks.HashGrid` by gathering corners.

    Args:
        grid: its table is shared.
    """

    def __init__(self, grid: HashGrid) -> None:
        super().__init__()
        self.in_dim = grid.in_dim
        self.table = grid.table
        self.scales = [float(level.scale) for level in grid.levels]
        self.offsets = [level.offset for level in grid.levels]
        self.sizes = [level.n_entries for level in grid.levels]
        self.resolutions = [level.resolution for level in grid.levels]
        self.is_dense = [level.resolution**grid.in_dim <= level.n_entries for level in grid.levels]
        self.primes = list(_PRIMES)
        corners = [[c >> d & 1 for d in range(grid.in_dim)] for c in range(2**grid.in_dim)]
        self.register_buffer("corners", torch.tensor(corners), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """``(n, in_dim)`` points in [-1, 1] to ``(n, n_levels * n_features_per_level)``."""
        unit = (points.float() + 1) / 2
        features: list[Tensor] = []
        for k, scale in enumerate(self.scales):
            position = unit * scale + 0.5
            cell = position.floor()
            fraction = (position - cell).unsqueeze(1)
            weights = torch.where(self.corners == 1, fraction, 1 - fraction).prod(-1)
            corner = cell.long().unsqueeze(1) + self.corners
            index = torch.zeros_like(corner[:, :, 0])
            stride = 1
            for d in range(self.in_dim):
                if self.is_dense[k]:
                    index = index + corner[:, :, d] * stride
                    stride = stride * self.resolutions[k]
                else:
                    index = torch.bitwise_xor(index, torch.bitwise_and(corner[:, :, d] * self.primes[d], 4294967295))
            rows = torch.remainder(torch.bitwise_and(index, 4294967295), self.sizes[k]) + self.offsets[k]
            values = self.table[rows.flatten()].view(rows.shape[0], rows.shape[1], -1)
            features.append((weights.unsqueeze(-1) * values).sum(1))
        return torch.cat(features, dim=1)


class ScriptableDisINR(nn.Module):
    """The field of :class:`~disinr_monai.networks.DisINR` with one subject encoder, from points to image.

    The learned prior, if there is one, stays behind: it needs a scan's operator and measurement.

    Args:
        network: its weights are copied.
    """

    def __init__(self, network: DisINR) -> None:
        super().__init__()
        self.encoder = _scriptable(copy.deepcopy(network.shared["encoder"]))
        self.subject = _scriptable(copy.deepcopy(network.subjects[0]))
        self.decoder = _scriptable(copy.deepcopy(network.shared["decoder"]))

    def forward(self, points: Tensor) -> Tensor:
        """Images ``(B, C, *S)`` at points ``(B, D, *S)``."""
        flat = points.flatten(2).transpose(1, 2).flatten(0, 1)
        values = self.decoder(torch.cat((self.encoder(flat), self.subject(flat)), dim=1))
        shape = list(points.shape)
        shape[1] = values.shape[1]
        return values.view(points.shape[0], -1, values.shape[1]).transpose(1, 2).reshape(shape)


def _scriptable(module: nn.Module) -> nn.Module:
    """Replace, in place, every part that offers a scriptable form of itself.

    Not left to PyTorch, which would ask the parts themselves: it remembers what it has replaced by the address of
    objects that are gone by then, and mixes up encoders that are alike.
    """
    if hasattr(module, "scriptable"):
        return module.scriptable()
    for name, child in module.named_children():
        setattr(module, name, _scriptable(child))
    return module
