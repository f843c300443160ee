"""Options of the wrong kind are refused by name before anything is made of them."""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from disinr_monai.errors import InputError

_PATHS = {"bundle_root", "checkpoint", "dataset_dir", "output_dir", "prior_checkpoint"}
# A number in the files, and a word with a meaning of its own (`all`).
_ALSO_TEXT = {"freeze_depth"}
_NAMES = {bool: "true or false", float: "a number", str: "text", list: "a list", dict: "a group of settings"}


def check_kinds(config: Mapping[str, Any], files: Iterable[str | Path]) -> None:
    """Refuse a setting of another kind than the config files give it, and numbers that are not finite.

    A setting that a file leaves open (null) or computes (an expression) may be anything, and any may be computed.

    Args:
        config: of the run, files and command line together, before it is evaluated.
        files: the config files.

    Raises:
        InputError: names the setting, what kind was expected and what was found.
    """
    from monai.bundle import ConfigParser

    known: dict[str, list[Any]] = {}
    for file in files:
        for key, value in ConfigParser.load_config_file(file).items():
            for name, item in _items(key.lstrip("+").replace("#", "::"), value):
                known.setdefault(name, []).append(item)
    for key, value in config.items():
        for name, item in _items(str(key), value):
            _check(name, item, known.get(name, []))


def _items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield name, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _items(f"{name}::{key}", item)


def _check(name: str, value: Any, known: list[Any]) -> None:
    shown = name.replace("::", "#")
    if any(isinstance(item, float) and not math.isfinite(item) for item in _leaves(value)):
        raise InputError(f"{shown}: expected finite numbers, found {_short(value)}")
    if _is_open(value):
        return
    if name in _PATHS:
        if not isinstance(value, (str, os.PathLike)):
            raise InputError(f"{shown}: expected a path, found {_short(value)}; for a folder of that name give ./NAME")
        if "\0" in str(value):
            raise InputError(f"{shown}: expected a path, found one with a zero byte")
        return
    if not known or any(_is_open(item) for item in known):
        return
    kinds = {_kind(item) for item in known}
    kind = _kind(value)
    if kind in kinds or (kind is str and (name in _ALSO_TEXT or (bool in kinds and _is_boolean(value)))):
        return
    expected = " or ".join(sorted(_NAMES.get(kind, str(kind)) for kind in kinds))
    hint = "; quote it twice, \"'2024'\"" if kinds == {str} and kind in (float, bool) else ""
    raise InputError(f"{shown}: expected {expected}, such as {_short(known[0])}, found {_short(value)}{hint}")


def _is_open(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.startswith(("$", "@", "%")))


def _is_boolean(value: str) -> bool:
    return value.strip().lower() in ("true", "false")


def _kind(value: Any) -> Any:
    if isinstance(value, bool):
        return bool
    if isinstance(value, (int, float)):
        return float
    if isinstance(value, (list, tuple)):
        return list
    return dict if isinstance(value, Mapping) else type(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif not isinstance(value, Mapping):  # its items are checked by their own names
        yield value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Written by MONAI itself into every parsed config.
_MONAI_KEYS = {"_meta_"}


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
        InputError: names the key and the nearest known ones; also a value of another kind (:func:`check_kinds`).
    """
    parser, files = find_config()
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
    parser, _ = find_config()
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
    free |= {"timeout_minutes", "batch_size", "initialize", "finalize"}
    return {k: v for k, v in hyper_parameters().items() if k.split("#")[0] not in free}


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def find_config() -> tuple[Any, list[str]]:
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
