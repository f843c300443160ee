"""Fields in the part of Python that TorchScript compiles, for `monai.bundle ckpt_export`.

`torch.jit.script` asks a module for `__prepare_scriptable__`; :class:`~disinr_monai.networks.DisINR` then hands over
:class:`ScriptableDisINR`. Speed is given away: plain operations instead of sparse matrices and fused kernels.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from disinr_monai.networks.field import Field
from disinr_monai.networks.hash_grid import HashGrid, cell_corners
from disinr_monai.networks.mlp import MLP


def plain_layers(mlp: MLP) -> nn.Sequential:
    """The layers of an :class:`~disinr_monai.networks.MLP` in float32, with its weights."""
    layers: list[nn.Module] = []
    for weight in mlp.weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = weight
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class GatheredGrid(nn.Module):
    """:class:`~disinr_monai.networks.HashGrid` by gathering corners.

    Args:
        grid: its table is shared.
    """

    def __init__(self, grid: HashGrid) -> None:
        super().__init__()
        self.table = grid.table
        self.levels = [tuple(level) for level in grid.levels]

    def forward(self, points: Tensor) -> Tensor:
        """``(n, in_dim)`` points in [-1, 1] to ``(n, n_levels * n_features_per_level)``."""
        rows, weights = cell_corners(points, self.levels)
        flat = weights.flatten(0, 1)
        sums = functional.embedding_bag(rows.flatten(0, 1), self.table, per_sample_weights=flat, mode="sum")
        return sums.view(points.shape[0], -1)


class ScriptableDisINR(nn.Module):
    """The field of :class:`~disinr_monai.networks.DisINR` with one subject encoder, from points to image.

    The learned prior, if there is one, stays behind: it needs a scan's operator and measurement.

    Args:
        network: its weights are copied.
    """

    def __init__(self, network: Field) -> None:
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
    """Replace, in place, every grid and perceptron by its scriptable form.

    Not left to PyTorch, which would ask the parts themselves: it remembers what it has replaced by the address of
    objects that are gone by then, and mixes up encoders that are alike.
    """
    for kind, form in ((HashGrid, GatheredGrid), (MLP, plain_layers)):
        if isinstance(module, kind):
            return form(module)
    for name, child in module.named_children():
        setattr(module, name, _scriptable(child))
    return module
