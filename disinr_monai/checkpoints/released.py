"""The released checkpoint: the shared pair and an untrained subject encoder, nothing of any person."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinr_monai.checkpoints.safe_load import content_damage, load_plain, save_plain
from disinr_monai.errors import InputError
from disinr_monai.networks import Field
from disinr_monai.runtime.distributed import rank, sum_over_processes, world_size

logger = logging.getLogger(__name__)

FORMAT = 1
MIN_PERSONS_FOR_MEAN = 8


def release_state(network: Field, start: str = "untrained", n_persons: int = 0) -> dict[str, Tensor]:
    """State dict of a one-subject network: the shared part and the initial subject encoder, if there is one.

    Hash tables are stored in half precision (tiny-cuda-nn's own), which keeps the file below 25 MB.

    Args:
        network: pre-trained network.
        start: ``"untrained"``: seeded random weights; ``"mean"``: the mean of all trained subject encoders, which
            belongs to no person.
        n_persons: how many persons the trained encoders belong to (several slices of one are one). With fewer than
            :data:`MIN_PERSONS_FOR_MEAN` a mean would still show its members, and the untrained start is taken.

    With many processes all must call it: the mean is over the subject encoders of all.

    Raises:
        ValueError: another ``start``.
    """
    if start not in ("untrained", "mean"):
        raise ValueError(f"start must be 'untrained' or 'mean', found {start!r}")
    state = {f"shared.{k}": v for k, v in network.shared.state_dict().items()}
    if len(network.subjects):
        subject = network.fresh_subject()
        subject.reset(network.seed + 1)
        if start == "mean" and n_persons >= MIN_PERSONS_FOR_MEAN:
            subject.load_state_dict(_mean_subject(network))
        state |= {f"subjects.0.{k}": v for k, v in subject.state_dict().items()}
    elif n_persons < MIN_PERSONS_FOR_MEAN:
        logger.warning(
            "model.pt: a start learned from %d persons (fewer than %d) still resembles them; keep it with the scans",
            n_persons,
            MIN_PERSONS_FOR_MEAN,
        )
    return {
        k: v.detach().cpu().to(torch.float16) if k.endswith(".table") else v.detach().cpu() for k, v in state.items()
    }


def _mean_subject(network: Field) -> dict[str, Tensor]:
    states = [trained.state_dict() for trained in network.subjects]
    if world_size() == 1:
        return {k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]}
    sums = [torch.stack([s[k] for s in states]).sum(0) for k in states[0]]
    count = torch.tensor([float(len(states))], device=sums[0].device)
    count, *sums = sum_over_processes([count, *sums])
    return {k: total / count for k, total in zip(states[0], sums, strict=True)}


def save_shared(
    path: str | Path,
    network: Field,
    modality: str,
    info: dict[str, Any] | None = None,
    start: str = "untrained",
    n_persons: int = 0,
) -> None:
    """Write the released checkpoint; with many processes all must call it, and the first one writes.

    Args:
        path: file to write; replaced as a whole.
        network: pre-trained network; its trained subject encoders are left out.
        modality: what it was trained on, checked when it is loaded.
        info: JSON-ready facts to keep with it (seed, versions, number of subjects, ...); nothing personal.
        start: see :func:`release_state`.
        n_persons: see :func:`release_state`.
    """
    content = {
        "model": release_state(network, start, n_persons),
        "format": FORMAT,
        "modality": modality,
        "architecture": json.dumps(network.architecture()),
        "info": json.dumps(info or {}),
    }
    if rank() == 0:
        save_plain(path, content)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a released checkpoint without unpickling code.

    Raises:
        InputError: missing, damaged, pickled objects inside, or not made by this package.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint: {path} does not exist; give a model.pt written by `run training`")
    content = load_plain(path, "checkpoint", "is the file complete?")
    metadata = getattr(content, "_metadata", None)
    facts = metadata.get(_BUNDLED) if isinstance(metadata, dict) else None
    if isinstance(facts, dict):
        content = {"model": dict(content), **facts}
    if not isinstance(content, dict) or not {"model", "format", "modality", "architecture"} <= content.keys():
        raise InputError(f"checkpoint: {path} was not written by disinr_monai's training; give OUT/model.pt")
    _check_format(content["format"], path)
    reason = content_damage(content)
    if reason:
        raise InputError(f"checkpoint: {path} cannot be used: {reason}; is the file complete and the training sound?")
    return content


def _check_format(found: Any, path: Path) -> None:
    """Refuse any other format than the only one so far, by its number."""
    if type(found) is int and found == FORMAT:
        return
    newer = type(found) is int and found > FORMAT
    advice = "update disinr_monai" if newer else "pre-train again"
    number = found if type(found) is int else f"of type {type(found).__name__}"
    raise InputError(
        f"checkpoint: {path} has format {number}, expected {FORMAT}; it was written by "
        f"{'a newer' if newer else 'another'} version of disinr_monai, {advice}"
    )


_BUNDLED = "disinr_monai"


def write_bundled(path: str | Path, output: str | Path) -> None:
    """Write a released checkpoint as the plain state dict that MONAI's tools expect of a bundle's `models/model.pt`.

    `ckpt_export`, `monai.bundle.load` and the Deploy SDK load it without a key. Format, modality, architecture and info
    go where a state dict keeps the versions of its modules (`_metadata`): loading into a network passes over them,
    :func:`read_checkpoint` finds them. Written twice, the files are the same byte by byte.

    Args:
        path: a ``model.pt`` of a training.
        output: file to write; its name becomes part of its content.

    Raises:
        InputError: see :func:`read_checkpoint`.
    """
    content = read_checkpoint(path)
    state = OrderedDict(content.pop("model"))
    state._metadata = OrderedDict({_BUNDLED: content})  # type: ignore[attr-defined]
    torch.save(state, output)


def load_shared(path: str | Path, network: Field, modality: str, only_pair: bool = False) -> dict[str, Any]:
    """Load the shared part strictly and return the ``info`` of the checkpoint.

    Args:
        path: released checkpoint.
        network: network to fill.
        modality: of this run.
        only_pair: leave out the learned prior, which may then be missing on either side.

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
    if only_pair:
        found, expected = _without_prior(found), _without_prior(expected)
    difference = _first_difference(found, expected)
    if difference:
        raise InputError(f"checkpoint: {path} has another architecture: {difference}; use the overlays of its training")
    state = {name: value for name, value in content["model"].items() if not (only_pair and _is_prior(name))}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"checkpoint: {path} does not fit this network: {reason}") from None
    # Only the excluded prior and the encoders of further subjects may keep their initial values.
    missing = [n for n in missing if not (only_pair and _is_prior(n))]
    missing = [n for n in missing if not n.startswith("subjects.") or n.startswith("subjects.0.")]
    if missing or unexpected:
        raise InputError(f"checkpoint: {path} lacks {missing[:3]} or has too much {unexpected[:3]}")
    return json.loads(content["info"])


def load_prior(path: str | Path, network: Field, modality: str) -> None:
    """Initialise the prior of ``network`` from the one in ``path``, which may have another number of passes.

    Passes that it lacks get the data weight of its last one, and a dependence on the noise that it lacks the untrained
    one.

    Raises:
        InputError: see :func:`read_checkpoint`; also another modality, no prior, or another network.
    """
    content = read_checkpoint(path)
    prefix = "shared.prior."
    state = {n.removeprefix(prefix): value for n, value in content["model"].items() if n.startswith(prefix)}
    if content["modality"] != modality or not state:
        raise InputError(
            f"prior_checkpoint: expected a learned prior for {modality!r}, {path} is for {content['modality']!r}"
            + ("" if state else " and holds none")
        )
    prior = network.shared["prior"]
    weights = state["log_dc_weight"]
    state["log_dc_weight"] = torch.cat((weights, weights[-1:].repeat(prior.n_passes)))[: prior.n_passes]
    if prior.dc_noise is not None and len(state.get("dc_noise_power", ())) != prior.n_passes:
        state["dc_noise_power"] = prior.dc_noise_power.detach()
    try:
        prior.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"prior_checkpoint: {path} has another architecture: {reason}") from None


def _first_difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    if found["network"] != expected["network"]:
        return f"network is {found['network']}, expected {expected['network']}"
    for part in ("shared", "subject"):
        for name in sorted(found[part].keys() | expected[part].keys()):
            a, b = found[part].get(name), expected[part].get(name)
            if a != b:
                return f"{part}.{name} has shape {a}, expected {b}"
    return ""


def combine(pair: str | Path, prior: str | Path, output: str | Path) -> None:
    """Write a checkpoint with the pair of one and the learned prior of another.

    Raises:
        InputError: see :func:`read_checkpoint`; also another modality, or no prior in the second.
    """
    one, two = read_checkpoint(pair), read_checkpoint(prior)
    if one["modality"] != two["modality"]:
        raise InputError(f"{prior}: its prior is for {two['modality']!r}, the pair in {pair} for {one['modality']!r}")
    learned = {name: value for name, value in two["model"].items() if _is_prior(name)}
    if not learned:
        raise InputError(f"{prior}: holds no learned prior; train one with the overlay configs/prior.json")
    architecture = _without_prior(json.loads(one["architecture"]))
    shapes = json.loads(two["architecture"])["shared"]
    architecture["shared"] |= {name: shape for name, shape in shapes.items() if _is_prior(f"shared.{name}")}
    content = {
        **one,
        "model": {name: value for name, value in one["model"].items() if not _is_prior(name)} | learned,
        "architecture": json.dumps(architecture),
        "info": json.dumps({**json.loads(one["info"]), "prior": json.loads(two["info"])}),
    }
    save_plain(output, content)


def _is_prior(name: str) -> bool:
    return name.startswith("shared.prior.")


def _without_prior(architecture: dict[str, Any]) -> dict[str, Any]:
    return {**architecture, "shared": {k: v for k, v in architecture["shared"].items() if not _is_prior(f"shared.{k}")}}
