"""What the JSON configs call: start-up checks that MONAI's command line does not make."""

from __future__ import annotations

import atexit
import difflib
import gc
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from disinr_monai.bfloat16 import bfloat16_pays
from disinr_monai.collected_warnings import collect_warnings
from disinr_monai.distributed import local_device, start_distributed
from disinr_monai.errors import InputError
from disinr_monai.files import claim_output_dir
from disinr_monai.files import prepare_output_dir as _prepare
from disinr_monai.memory import keep_freed_memory
from disinr_monai.neutral_logs import hide_paths
from disinr_monai.on_disk import place_moments, subject_place
from disinr_monai.option_kinds import check_kinds
from disinr_monai.out_of_memory import remember_settings
from disinr_monai.progress import wants_bars
from disinr_monai.readable_errors import install_excepthook
from disinr_monai.run_checkpoint import check_pretrainable, load_pair, load_start, n_prior_passes

__all__ = [
    "as_amp",
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
    install_excepthook()
    keep_freed_memory()
    # At the end Python looks for cycles among all objects of all packages, three times, which takes two seconds.
    atexit.register(gc.freeze)
    collect_warnings()
    check_overrides()
    parser, _ = _find_config()
    remember_settings(parser.config if parser is not None else {})
    _keep_logs_private()


def prepare_output_dir(output_dir: str | Path, process: int = 0) -> Path:
    """Create the output folder and keep other runs out of it.

    Args:
        output_dir: the folder.
        process: rank of this process, of many that share the folder; the config's ``@rank``, which joins them first.

    Raises:
        InputError: it cannot be written, or another run writes there.
    """
    folder = _prepare(output_dir)
    if process == 0:
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


def as_amp(value: Any, device: torch.device | str) -> bool:
    """Whether networks run in bfloat16: as the config says, or if it says nothing (null) where that is faster.

    What was chosen is logged: results differ by the rounding.

    Raises:
        InputError: neither true, false nor null.
    """
    if value is not None:
        return as_bool(value)
    pays = bfloat16_pays(device)
    logger.info("amp: hidden layers in %s, which is faster on this %s", "bfloat16" if pays else "float32", device)
    return pays


def check_overrides() -> None:
    """Refuse top-level keys that no config file defines: MONAI would ignore a mistyped override without a word.

    Raises:
        InputError: names the key and the nearest known ones; also a value of another kind (:func:`check_kinds`).
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
    check_kinds({key: value for key, value in parser.config.items() if key not in _MONAI_KEYS}, files)


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


def _keep_logs_private() -> None:
    """With ``--anonymize true`` log lines name no folder of the run from here on, before any scan is read."""
    parser, _ = _find_config()
    config = {} if parser is None else parser.config
    if str(config.get("anonymize")).strip().lower() != "true":
        hide_paths(())
        return
    given = [config.get(key) for key in ("dataset_dir", "output_dir", "checkpoint", "bundle_root")]
    hide_paths(path for path in given if path and not str(path).startswith(("$", "@")))
