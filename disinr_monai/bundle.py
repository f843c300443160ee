"""What the JSON configs call: start-up checks that MONAI's command line does not make."""

from __future__ import annotations

import difflib
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from disinr_monai.checkpoint import load_prior, load_shared, read_checkpoint
from disinr_monai.collected_warnings import collect_warnings
from disinr_monai.distributed import local_device, rank, start_distributed
from disinr_monai.errors import InputError
from disinr_monai.files import claim_output_dir
from disinr_monai.files import prepare_output_dir as _prepare
from disinr_monai.memory import keep_freed_memory
from disinr_monai.on_disk import place_moments, subject_place
from disinr_monai.progress import wants_bars

__all__ = [
    "as_bool",
    "check_device",
    "check_modality",
    "check_overrides",
    "check_pretrainable",
    "hyper_parameters",
    "known_keys",
    "load_pair",
    "load_start",
    "local_device",
    "n_prior_passes",
    "place_moments",
    "prepare_output_dir",
    "start",
    "start_distributed",
    "subject_place",
    "training_settings",
    "wants_bars",
]

logger = logging.getLogger(__name__)

# Written by MONAI itself into every parsed config.
_MONAI_KEYS = {"_meta_"}


def start() -> None:
    """First line of every ``initialize`` list: readable errors, no override that nobody reads, quick memory."""
    _install_excepthook()
    keep_freed_memory()
    collect_warnings()
    check_overrides()


def prepare_output_dir(output_dir: str | Path) -> Path:
    """Create the output folder and keep other runs out of it.

    Raises:
        InputError: it cannot be written, or another run writes there.
    """
    folder = _prepare(output_dir)
    if rank() == 0:
        claim_output_dir(folder)
    return folder


def as_bool(value: Any) -> bool:
    """True or False from JSON or from the command line, which hands ``true`` and ``false`` over as text.

    Raises:
        InputError: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise InputError(f"expected true or false, found {value!r}")


def check_overrides() -> None:
    """Refuse top-level keys that no config file defines: MONAI would ignore a mistyped override without a word.

    Raises:
        InputError: names the key and the nearest known ones.
    """
    parser, files = _find_config()
    if parser is None:
        return
    known = known_keys(files)
    unknown = sorted(set(parser.config) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(known), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known - _MONAI_KEYS))}"
        raise InputError(f"{unknown[0]}: no such key in the configs of this run; {hint}")


def known_keys(files: Iterable[str | Path]) -> set[str]:
    """Every top-level key that one of the config files defines."""
    from monai.bundle import ConfigParser

    known = set(_MONAI_KEYS)
    for file in files:
        known |= {key.lstrip("+").split("::")[0].split("#")[0] for key in ConfigParser.load_config_file(file)}
    return known


def check_modality(modality: str, expected: str, method: str) -> None:
    """Refuse a method that is for one modality only.

    Raises:
        InputError: another modality.
    """
    if modality != expected:
        raise InputError(
            f"modality: {method} is for {expected!r} only, found {modality!r}; use configs/{expected}.json or another "
            "method"
        )


def hyper_parameters() -> dict[str, Any]:
    """The run's config, flattened to ``a#b#0`` keys, for the experiment tracker (empty outside a bundle run)."""
    parser, _ = _find_config()
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                visit(f"{prefix}#{key}" if prefix else str(key), value)
        elif isinstance(node, list):
            for i, value in enumerate(node):
                visit(f"{prefix}#{i}", value)
        else:
            flat[prefix] = node

    if parser is not None:
        visit("", {k: v for k, v in parser.config.items() if k not in _MONAI_KEYS})
    return flat


def training_settings() -> dict[str, Any]:
    """What must be the same when pre-training is resumed: every setting that changes the result.

    Where files lie, how much is shown, how often is saved and how long it goes on may differ.
    """
    free = {"dataset_dir", "output_dir", "bundle_root", "device", "resume", "quiet", "checkpoint_seconds", "max_epochs"}
    free |= {"tracking_uri", "experiment_name", "run_name", "anonymize", "names", "report", "subjects_on_disk"}
    free |= {"_desc_"}
    # How many processes share the work changes nothing; what a step sees (batch_size) stands in the settings itself.
    free |= {"rank", "world_size", "timeout_minutes", "batch_size", "initialize", "finalize"}
    return {k: v for k, v in hyper_parameters().items() if k.split("#")[0] not in free}


def load_start(
    checkpoint: str | None, network: nn.Module, modality: str, prior_checkpoint: str | None = None
) -> dict[str, Any]:
    """Before the prior is trained: take the pair of ``checkpoint``, if any, so that both are released together.

    Args:
        checkpoint: its pair is kept.
        network: with an untrained prior.
        modality: of this run.
        prior_checkpoint: its prior is where the training starts.

    Raises:
        InputError: a file does not fit (see :func:`disinr_monai.checkpoint.load_shared`).
    """
    if prior_checkpoint:
        load_prior(prior_checkpoint, network, modality)
    if not checkpoint:
        logger.warning("checkpoint: none given, model.pt will hold the prior beside an untrained pair")
        return {}
    return load_shared(checkpoint, network, modality, parts=("pair",))


def load_pair(checkpoint: str | None, network: nn.Module, modality: str, bundle_root: str = ".") -> dict[str, Any]:
    """Load what is shared for test-time adaptation; without ``checkpoint`` the one shipped for method and modality.

    A network with nothing shared (fitted from scratch) needs none.

    Raises:
        InputError: no checkpoint given and none shipped, or one for a network with nothing shared, or the file does not
            fit (see :func:`disinr_monai.checkpoint.load_shared`).
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
        prior.domain.update(_domain(info))
    method = "the learned prior" if "prior" in network.shared else f"adaptation of {kind}"
    logger.info("checkpoint %s: reconstruction by %s", path, method)
    return info


def _check_recipe(path: str, info: dict[str, Any], start: dict[str, Any], passes: dict[str, Any]) -> None:
    """A prior corrects the errors of the start that it was trained with: with another it is worse without a word."""
    trained = info.get("prior", {})
    trained = trained.get("prior", trained)  # a combined checkpoint keeps the info of both
    for place, part, found in (("prior_start", "start", start), ("prior_def", "passes", passes)):
        for key, value in trained.get(part, {}).items():
            if found.get(key) != value:
                raise InputError(
                    f"{place}: {path} was trained with {key} = {value}, found {found.get(key)}; leave it as it "
                    "was or train the prior anew"
                )


def _domain(info: dict[str, Any]) -> dict[str, list[float]]:
    trained = info.get("prior", {})
    return trained.get("prior", trained).get("domain", {})


def n_prior_passes(checkpoint: str | None, modality: str, bundle_root: str = ".") -> int:
    """Passes of the learned prior in the checkpoint of this run (given or shipped); 0 if it holds none.

    Raises:
        InputError: the file cannot be read (see :func:`disinr_monai.checkpoint.read_checkpoint`).
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
    beside = Path(__file__).resolve().parents[1]
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


def check_device(device: Any) -> torch.device:
    """The device by name.

    Raises:
        InputError: unknown or absent.
    """
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device: {device!r} cannot be used here ({reason}); try cpu") from None
    return device


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _find_config() -> tuple[Any, list[str]]:
    """The running workflow's parser and the config files that it was built from.

    MONAI evaluates config expressions without telling them which config they belong to, and merges files and command
    line before anything of ours runs; the calling frames are the only place where both are still known.
    """
    from monai.bundle import ConfigParser, ConfigWorkflow

    parser, files = None, []
    for frame in _frames():
        owner = frame.f_locals.get("self")
        if parser is None and isinstance(owner, ConfigParser):
            parser = owner
        if isinstance(owner, ConfigWorkflow):
            parser = owner.parser
            files = files or sorted(map(str, Path(owner.config_root_path).glob("*.json")))
        if frame.f_code.co_name in ("run", "create_workflow") and "config_file" in frame.f_locals:
            given = (frame.f_locals.get("_args") or {}).get("config_file") or frame.f_locals["config_file"]
            if given:
                files = [given] if isinstance(given, str) else list(given)
    return parser, files


def _install_excepthook() -> None:
    """Show an :class:`InputError`, however deep MONAI wrapped it, as one line; leave other errors as they are."""
    previous = sys.excepthook
    if getattr(previous, "is_disinr", False):
        return

    def hook(kind, error, traceback):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError):
                sys.stderr.write(f"error: {cause}\n")
                return
            cause = cause.__cause__ or cause.__context__
        previous(kind, error, traceback)

    hook.is_disinr = True
    sys.excepthook = hook
