"""Files of :func:`torch.save` that are loaded without running code and refused if damaged."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.runtime.files import atomic_path

_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8}


def load_plain(path: Path, option: str, advice: str, mmap: bool = False) -> Any:
    """Load tensors, text and numbers from a file of :func:`torch.save`; with ``mmap`` tensors are read when used.

    Raises:
        InputError: damaged, pickled objects inside, or a tensor that is not dense or larger than what the file holds;
            the line begins with ``option`` and ends with ``advice``.
    """
    try:
        damage = _archive_damage(path)
        if not damage:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            damage = _tensors_damage(content)
    except pickle.UnpicklingError:
        damage = "it holds pickled objects, expected tensors only: loading it could run code"
    except Exception as error:  # zipfile and torch raise many kinds for a damaged archive
        damage = next(iter(str(error)[:200].splitlines()), "") or type(error).__name__
    if damage:
        raise InputError(f"{option}: {path} cannot be read ({damage}); {advice}")
    return content


def save_plain(path: str | Path, content: Any) -> None:
    """Write a file for :func:`load_plain`, atomically.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


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
        for part in ("start", "passes", "domain"):
            prior_facts(info, part).items()
        if not isinstance(architecture["network"], str):
            return "its architecture names no network"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"its architecture or info is damaged ({type(error).__name__})"
    for name, value in content["model"].items():
        if list(value.shape) != shapes.get(name, list(value.shape)):
            return f"{name} has shape {list(value.shape)}, its architecture says {shapes[name]}"
    return ""


def prior_facts(info: dict[str, Any], part: str) -> dict[str, Any]:
    """Facts of a checkpoint about the training of its prior: its ``start``, ``passes`` or ``domain``."""
    trained = info.get("prior", {})
    return trained.get("prior", trained).get(part, {})  # a combined checkpoint keeps the info of both


def tensor_damage(state: Any) -> str:
    """Describe why ``state`` is no dictionary of finite tensors by name; empty if it is."""
    if not isinstance(state, Mapping):
        return f"expected tensors by name, found {type(state).__name__}"
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            return f"expected tensors by name, found {str(name)[:60]!r}: {type(value).__name__}"
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return f"{name[:60]!r} holds values that are not finite"
    return ""


def _tensors_damage(state: Any, name: str = "content") -> str:
    """Describe a tensor within ``state`` that is not dense or larger than the file; empty if there is none."""
    if isinstance(state, Tensor):
        if state.layout != torch.strided or state.device.type != "cpu" or state.dtype not in _DTYPES:
            return f"{name} is not a plain tensor ({state.dtype}, {state.layout}, {state.device.type})"
        if state.numel() * state.element_size() > state.untyped_storage().nbytes():
            return f"{name} announces shape {list(state.shape)}, more than the file holds"
    members = (
        state.items() if isinstance(state, Mapping) else enumerate(state if isinstance(state, (list, tuple)) else ())
    )
    found = (_tensors_damage(member, f"{name}[{key!r:.60s}]") for key, member in members)
    return next(filter(None, found), "")


def _archive_damage(path: Path) -> str:
    """Describe a difference from archives that PyTorch writes; empty if there is none.

    PyTorch ignores the checksums of its archives, so a flipped bit would silently become a wrong weight, and unpacks
    compressed members, which it never writes, to any size they announce.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            return "it is compressed, as PyTorch's files never are"
        if sum(member.file_size for member in members) > path.stat().st_size:
            return "it announces more than it holds"
        if len({member.filename for member in members}) < len(members):
            return "it holds two members of one name"
        wrong = archive.testzip()
        return "" if wrong is None else f"{wrong!r} does not fit its checksum"
