"""Whether what a checkpoint holds is what this package writes, before any of it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8}


def content_damage(content: dict[str, Any]) -> str:
    """What of a released checkpoint :func:`disinr_monai.checkpoint.save_shared` cannot have written; else empty."""
    content.setdefault("info", "{}")
    damage = tensor_damage(content["model"])
    if damage or not isinstance(content["modality"], str):
        return damage or "its modality is no text"
    try:
        architecture, info = json.loads(content["architecture"]), json.loads(content["info"])
        shapes = {f"shared.{name}": list(shape) for name, shape in architecture["shared"].items()}
        shapes |= {f"subjects.0.{name}": list(shape) for name, shape in architecture["subject"].items()}
        prior = info.get("prior", {})
        trained = prior.get("prior", prior)
        for part in ("start", "passes", "domain"):
            trained.get(part, {}).items()
        if not isinstance(architecture["network"], str):
            return "its architecture names no network"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"its architecture or info is damaged ({type(error).__name__})"
    for name, value in content["model"].items():
        if list(value.shape) != shapes.get(name, list(value.shape)):
            return f"{name} has shape {list(value.shape)}, its architecture says {shapes[name]}"
    return ""


def tensor_damage(state: Any) -> str:
    """Why ``state`` is no plain dictionary of dense tensors by name with finite values; empty if it is."""
    if not isinstance(state, Mapping):
        return f"expected tensors by name, found {type(state).__name__}"
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            return f"expected tensors by name, found {str(name)[:60]!r}: {type(value).__name__}"
        if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in _DTYPES:
            return f"{name[:60]!r} is not a plain tensor ({value.dtype}, {value.layout}, {value.device.type})"
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            return f"{name[:60]!r} announces shape {list(value.shape)}, more than the file holds"
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return f"{name[:60]!r} holds values that are not finite"
    return ""
