"""Whether what a checkpoint holds is what this package writes, before any of it is used."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8}


def content_damage(content: dict[str, Any]) -> str:
    """Describe damage in the content of a released checkpoint; empty if there is none."""
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
        damage = nested_damage(value, repr(name[:60]))
        if damage:
            return damage
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return f"{name[:60]!r} holds values that are not finite"
    return ""


def nested_damage(state: Any, name: str) -> str:
    """Why a tensor anywhere within ``state`` is not dense, or larger than what the file holds; else empty."""
    if isinstance(state, Tensor):
        if state.layout != torch.strided or state.device.type != "cpu" or state.dtype not in _DTYPES:
            return f"{name} is not a plain tensor ({state.dtype}, {state.layout}, {state.device.type})"
        if state.numel() * state.element_size() > state.untyped_storage().nbytes():
            return f"{name} announces shape {list(state.shape)}, more than the file holds"
    members = state.values() if isinstance(state, Mapping) else state if isinstance(state, (list, tuple)) else ()
    return next((damage for member in members if (damage := nested_damage(member, name))), "")


def archive_damage(path: str | Path) -> str:
    """What is wrong with the archive; empty if nothing is.

    PyTorch reads past the checksums of its archives, so a flipped bit would become a wrong weight without a word, and
    it unpacks compressed members, which it never writes, to whatever size they announce.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                return "it is compressed, as PyTorch's files never are"
            if sum(member.file_size for member in members) > Path(path).stat().st_size:
                return "it announces more than it holds"
            if len({member.filename for member in members}) < len(members):
                return "it holds two members of one name"
            wrong = archive.testzip()
            return "" if wrong is None else f"{wrong!r} does not fit its checksum"
    except Exception as error:  # zipfile lets struct, OS and its own errors through
        return next(iter(str(error).splitlines()), "") or type(error).__name__
