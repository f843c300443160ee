"""The released checkpoint: the shared pair and an untrained subject encoder, nothing of any person."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.files import atomic_path
from disinr_monai.networks import DisINR

FORMAT = 1
MIN_SUBJECTS_FOR_MEAN = 8


def release_state(network: DisINR, start: str = "untrained") -> dict[str, Tensor]:
    """State dict of a one-subject network: the shared pair and the start of a new subject encoder.

    Hash tables are stored in half precision (tiny-cuda-nn's own), which keeps the file below 25 MB.

    Args:
        network: pre-trained network.
        start: ``"untrained"``: the seeded start; ``"mean"``: the mean of all trained subject encoders, which belongs to
            no person and starts adaptation where people are alike. With fewer than :data:`MIN_SUBJECTS_FOR_MEAN`
            encoders a mean would still show its members, and the untrained start is taken.

    Raises:
        ValueError: another ``start``.
    """
    if start not in ("untrained", "mean"):
        raise ValueError(f"start must be 'untrained' or 'mean', found {start!r}")
    subject = network.fresh_subject()
    subject.reset(network.seed + 1)
    if start == "mean" and len(network.subjects) >= MIN_SUBJECTS_FOR_MEAN:
        states = [trained.state_dict() for trained in network.subjects]
        subject.load_state_dict({k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]})
    state = {f"shared.{k}": v for k, v in network.shared.state_dict().items()}
    state |= {f"subjects.0.{k}": v for k, v in subject.state_dict().items()}
    return {
        k: v.detach().cpu().to(torch.float16) if k.endswith(".table") else v.detach().cpu() for k, v in state.items()
    }


def save_shared(
    path: str | Path, network: DisINR, modality: str, info: dict[str, Any] | None = None, start: str = "untrained"
) -> None:
    """Write the released checkpoint.

    Args:
        path: file to write; replaced as a whole.
        network: pre-trained network; its trained subject encoders are left out.
        modality: what it was trained on, checked when it is loaded.
        info: JSON-ready facts to keep with it (seed, versions, number of subjects, ...); nothing personal.
        start: see :func:`release_state`.
    """
    content = {
        "model": release_state(network, start),
        "format": FORMAT,
        "modality": modality,
        "architecture": json.dumps(network.architecture()),
        "info": json.dumps(info or {}),
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a released checkpoint without unpickling code.

    Raises:
        InputError: missing, damaged, pickled objects inside, or not made by this package.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint: {path} does not exist; give a model.pt written by `run training`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"checkpoint: {path} holds pickled objects, expected tensors only; it is refused because loading it could "
            "run code"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise InputError(f"checkpoint: {path} cannot be read ({type(error).__name__}); is the file complete?") from None
    if not isinstance(content, dict) or not {"model", "format", "modality", "architecture"} <= content.keys():
        raise InputError(f"checkpoint: {path} was not written by disinr_monai's training; give OUT/model.pt")
    if content["format"] != FORMAT:
        raise InputError(
            f"checkpoint: {path} has format {content['format']}, expected {FORMAT}; it was written by another version"
        )
    return content


def load_shared(path: str | Path, network: DisINR, modality: str) -> dict[str, Any]:
    """Load the shared pair (strictly) and return the checkpoint's ``info``.

    Raises:
        InputError: see :func:`read_checkpoint`; also another modality or another architecture.
    """
    content = read_checkpoint(path)
    if content["modality"] != modality:
        raise InputError(
            f"checkpoint: {path} was pre-trained on {content['modality']!r}, this run is {modality!r}; give the "
            f"checkpoint of this modality or the overlay configs/{content['modality']}.json"
        )
    found, expected = json.loads(content["architecture"]), network.architecture()
    difference = _first_difference(found, expected)
    if difference:
        raise InputError(f"checkpoint: {path} has another architecture: {difference}; use the overlays of its training")
    network.load_state_dict(content["model"], strict=True)
    return json.loads(content["info"])


def _first_difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    if found["network"] != expected["network"]:
        return f"network is {found['network']}, expected {expected['network']}"
    for part in ("shared", "subject"):
        for name in sorted(found[part].keys() | expected[part].keys()):
            a, b = found[part].get(name), expected[part].get(name)
            if a != b:
                return f"{part}.{name} has shape {a}, expected {b}"
    return ""
