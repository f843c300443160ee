"""Optional tiny-cuda-nn backend: the same parameters, evaluated by its CUDA kernels.

Install notes are in ``docs/how-to/tiny-cuda-nn.md``. Its modules keep one flat parameter vector; ours are handed in by
``torch.func.functional_call``, so there is only ever one copy of the weights and one checkpoint layout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

_PADDING = 16  # rows and columns of its matrices come in multiples of this


@functools.cache
def _load() -> ModuleType | None:
    try:
        import tinycudann
    except (ImportError, OSError):  # it raises EnvironmentError (OSError) where there is no CUDA device
        return None
    return tinycudann


def is_available() -> bool:
    """Tell whether tiny-cuda-nn can be imported and used."""
    return torch.cuda.is_available() and _load() is not None


@functools.lru_cache(maxsize=16)
def _encoding(in_dim: int, options: tuple, device: torch.device):
    config = {"otype": "HashGrid", "interpolation": "Linear", **dict(options)}
    with torch.cuda.device(device):
        return _load().Encoding(in_dim, config, dtype=torch.float32).to(device)


def encode(table: Tensor, options: tuple[tuple[str, float], ...], points: Tensor) -> Tensor:
    """Encode points ``(n, D)`` in [0, 1] with a hash table; ``options`` are tiny-cuda-nn's, as pairs."""
    module = _encoding(points.shape[1], options, table.device)
    return torch.func.functional_call(module, {"params": table.reshape(-1)}, (points,))


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


def flat_parameters(weights: Sequence[Tensor]) -> Tensor:
    """The matrices of a perceptron as tiny-cuda-nn's vector: row-major, zero-padded to multiples of 16."""
    flat = []
    for weight in weights:
        pad_in, pad_out = -weight.shape[1] % _PADDING, -weight.shape[0] % _PADDING
        flat.append(torch.nn.functional.pad(weight, (0, pad_in, 0, pad_out)).reshape(-1))
    return torch.cat(flat)


def apply_mlp(weights: Sequence[Tensor], features: Tensor) -> Tensor:
    """Evaluate a perceptron of these matrices ``(out, in)`` on features ``(n, in)`` in half precision."""
    hidden_dim, in_dim = weights[0].shape
    module = _network(in_dim, len(weights[-1]), hidden_dim, len(weights) - 1, features.device)
    return torch.func.functional_call(module, {"params": flat_parameters(weights)}, (features,)).to(features.dtype)
