"""Choice and loading of the checkpoint of a bundle run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from torch import nn

from disinr_monai.checkpoints.released import load_prior, load_shared, read_checkpoint
from disinr_monai.checkpoints.safe_load import prior_facts
from disinr_monai.errors import InputError

logger = logging.getLogger(__name__)


def load_start(
    checkpoint: str | None, network: nn.Module, modality: str, prior_checkpoint: str | None = None
) -> dict[str, Any]:
    """Load the pair of ``checkpoint``, if any, before the prior is trained, so that both are released together.

    Args:
        checkpoint: file with the pair.
        network: with an untrained prior.
        modality: of this run.
        prior_checkpoint: file with a prior to start from.

    Raises:
        InputError: a file does not fit (see :func:`disinr_monai.checkpoints.released.load_shared`).
    """
    if prior_checkpoint:
        load_prior(prior_checkpoint, network, modality)
    if not checkpoint:
        logger.warning("checkpoint: none given, model.pt will hold the prior beside an untrained pair")
        return {}
    return load_shared(checkpoint, network, modality, only_pair=True)


def load_pair(checkpoint: str | None, network: nn.Module, modality: str, bundle_root: str = ".") -> dict[str, Any]:
    """Load the shared part for test-time adaptation; by default from the checkpoint shipped for method and modality.

    A network with nothing shared (fitted from scratch) needs none.

    Raises:
        InputError: no checkpoint given and none shipped, or one for a network with nothing shared, or the file does not
            fit (see :func:`disinr_monai.checkpoints.released.load_shared`).
    """
    kind = type(network).__name__
    if len(network.shared) == 0:
        if checkpoint:
            raise InputError(
                f"checkpoint: expected none, {kind} is fitted from scratch, found {checkpoint}; leave it out, or use "
                "the overlays of its training"
            )
        return {}
    path = checkpoint or _shipped(modality, bundle_root)
    if path and not checkpoint and json.loads(read_checkpoint(path)["architecture"])["network"] != kind:
        path = None  # shipped for another method
    if not path:
        raise InputError(
            f"checkpoint: none given and none is shipped for {kind} on {modality!r}; pre-train one with `run training` "
            "and the same overlays, and give --checkpoint OUT/model.pt"
        )
    info = load_shared(path, network, modality)
    if "prior" in network.shared:
        prior = network.shared["prior"]
        _check_recipe(path, info, prior.settings(), prior.passes())
        prior.domain.update(prior_facts(info, "domain"))
    method = "the learned prior" if "prior" in network.shared else f"adaptation of {kind}"
    logger.info("checkpoint %s: reconstruction by %s", path, method)
    return info


def _check_recipe(path: str, info: dict[str, Any], start: dict[str, Any], passes: dict[str, Any]) -> None:
    """Refuse another initial image than the prior was trained with: its corrections would silently be wrong."""
    for place, part, found in (("prior_start", "start", start), ("prior_def", "passes", passes)):
        for key, value in prior_facts(info, part).items():
            if found.get(key) != value:
                raise InputError(
                    f"{place}: {path} was trained with {key} = {value}, found {found.get(key)}; leave it as it "
                    "was or train the prior anew"
                )


def n_prior_passes(checkpoint: str | None, modality: str, bundle_root: str = ".") -> int:
    """Passes of the learned prior in the checkpoint of this run (given or shipped); 0 if it holds none.

    Raises:
        InputError: the file cannot be read (see :func:`disinr_monai.checkpoints.released.read_checkpoint`).
    """
    path = checkpoint or _shipped(modality, bundle_root)
    weights = read_checkpoint(path)["model"].get("shared.prior.log_dc_weight") if path else None
    return 0 if weights is None else weights.numel()


def _shipped(modality: str, bundle_root: str) -> str | None:
    """The checkpoint in `models`: of this modality in the repository, the only one in a built bundle.

    With the default root (the working directory) also where this package lies, if that is a bundle: MONAI's tools load
    bundles from anywhere.
    """
    roots = [Path(bundle_root)]
    beside = Path(__file__).resolve().parents[2]
    if str(bundle_root) == "." and (beside / "configs" / "metadata.json").is_file():
        roots.append(beside)
    for root in roots:
        for name in (modality, "model"):
            path = root / "models" / f"{name}.pt"
            if path.is_file():
                return str(path)
    return None


def check_pretrainable(network: nn.Module) -> None:
    """Refuse to pre-train a network that shares nothing.

    Raises:
        InputError: always for such a network.
    """
    if len(network.shared) == 0:
        raise InputError(
            "network_def: this method fits every scan from scratch and shares nothing: there is nothing to pre-train; "
            "use it with inference or evaluate"
        )
