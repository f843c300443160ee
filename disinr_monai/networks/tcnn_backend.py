"""Optional tiny-cuda-nn backend: the same parameters, evaluated by its CUDA kernels.

Install notes are in ``docs/how-to/tiny-cuda-nn.md``. Its modules keep one flat parameter vector; ours are handed in by
``torch.func.functional_call``, so there is only ever one copy of the weights and one checkpoint layout.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from disinr_monai.networks.hash_grid import HashGrid
    from disinr_monai.networks.mlp import MLP

_PADDING = 16  # rows and columns of its matrices come in multiples of this


@functools.cache
def _load() -> ModuleType | None:
    try:
        import tinycudann
    except (ImportError, OSError):  # it raises EnvironmentError (OSError) where there is no CUDA device
        return None
    return tinycudann


def is_available() -> bool:
    """Whether tiny-cuda-nn can be imported and used."""
    return torch.cuda.is_available() and _load() is not None


@functools.lru_cache(maxsize=16)
def _encoding(in_dim: int, options: tuple, device: torch.device):
    config = {"otype": "HashGrid", "interpolation": "Linear", **dict(options)}
    with torch.cuda.device(device):
        return _load().Encoding(in_dim, config, dtype=torch.float32).to(device)


def encode(grid: HashGrid, points: Tensor) -> Tensor:
    """Encode points ``(n, D)`` in [0, 1] with the table of ``grid``."""
    options = (
        ("n_levels", grid.n_levels),
        ("n_features_per_level", grid.n_features_per_level),
        ("log2_hashmap_size", grid.log2_hashmap_size),
        ("base_resolution", grid.base_resolution),
        ("per_level_scale", grid.per_level_scale),
    )
    module = _encoding(grid.in_dim, options, grid.table.device)
    return torch.func.functional_call(module, {"params": grid.table.reshape(-1)}, (points,))


@functools.lru_cache(maxsize=16)
def _network(in_dim: int, out_dim: int, hidden_dim: int, n_layers: int, device: torch.device):
    config = {
        "otype": "FullyFusedMLP" if hidden_dim in (16, 32, 64, 128) else "CutlassMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": hidden_dim,
        "n_hidden_layers": n_layers,
    }
    with torch.cuda.device(device):
        return _load().Network(in_dim, out_dim, config).to(device)


def flat_parameters(mlp: MLP) -> Tensor:
    """The weights of an :class:`MLP` as tiny-cuda-nn's vector: row-major matrices, zero-padded to multiples of 16."""
    flat = []
    for weight in mlp.weights:
        pad_in, pad_out = -weight.shape[1] % _PADDING, -weight.shape[0] % _PADDING
        flat.append(torch.nn.functional.pad(weight, (0, pad_in, 0, pad_out)).reshape(-1))
    return torch.cat(flat)


def apply_mlp(mlp: MLP, features: Tensor) -> Tensor:
    """Evaluate an :class:`MLP` on ``(n, in_dim)`` features in half precision."""
    module = _network(mlp.in_dim, mlp.out_dim, mlp.hidden_dim, mlp.n_layers, features.device)
    return torch.func.functional_call(module, {"params": flat_parameters(mlp)}, (features,)).to(features.dtype)
