"""Checks of the settings of a run, from its config files and the command line: known, read, and of the right type."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from disinr_monai.errors import InputError
from disinr_monai.runtime.command_line import NAMES, PATHS
from disinr_monai.runtime.config_files import Files, node_id, nodes, top_level
from disinr_monai.runtime.run import RUN

# A number in the files, and a word with a meaning of its own (`all`).
_ALSO_TEXT = {"freeze_depth"}
# A whole number in the files that may have a fraction.
_FRACTIONS = {"acceleration", "checkpoint_seconds", "timeout_minutes"}
_KINDS = {bool: "true or false", float: "a number", str: "text", list: "a list", dict: "a group of settings"}
# What MONAI and its tools look for, or set, by name.
_READ_BY_MONAI = {"_meta_", "_desc_", "imports", "initialize", "run", "finalize", "run_name", "displayable_configs"}
Known = dict[str, list[Any]]


def check_config(config: Mapping[str, Any], files: Files) -> None:
    """Refuse a config with a setting that has no effect, or of the wrong type.

    Args:
        config: of the run, files and command line together, before it is evaluated.
        files: the config files by path (:func:`read_files`), in their order.

    Raises:
        InputError: no modality; a setting that nothing reads, that the class
            of its group does not take, or of another kind than the files give it.
    """
    if "modality" not in config:
        phase = Path(next(iter(files), "configs/inference.json"))
        raise InputError(
            "config_file: expected an overlay of a modality (mri, ct, pet or volume), found none; add it after the "
            f"phase: --config_file \"['{phase}','{phase.with_name('mri.json')}']\""
        )
    known: Known = {}
    for content in files.values():
        for key, value in content.items():
            for name, item in nodes(node_id(key), value):
                known.setdefault(name, []).append(item)
    for key in sorted(config.keys() - _READ_BY_MONAI):
        for name, item in nodes(key, config[key]):
            _check_keywords(name, item, known)
            _check_kind(name, item, known.get(name, []))
    _check_read(config, known)


def _references(config: Any) -> set[str]:
    """The ids that the texts of a config refer to."""
    texts = (item for _, item in nodes("", config) if isinstance(item, str))
    return {found.replace("::", "#") for text in texts for found in re.findall(r"@(\w+(?:(?:#|::)\w+)*)", text)}


def _check_read(config: Mapping[str, Any], known: Known) -> None:
    """Refuse settings that differ from the files and that no part of the config refers to."""
    read = _READ_BY_MONAI | _references(config)
    read |= {key for key, value in config.items() if value == config.get("run")}  # its aliases
    for name, value in nodes("", config):
        parts = name.split("#")
        is_group = isinstance(value, (Mapping, list)) and bool(value)
        if is_group or any(_is_same(value, item) for item in known.get(name, [])):
            continue
        if any("#".join(parts[:n]) in read for n in range(1, len(parts) + 1)):
            continue
        if name in known:
            raise InputError(f"{name}: no config of this run reads it; leave it out")
        raise InputError(f"{name}: no such key in the configs of this run; {_hint(parts, known)}")


def _hint(parts: list[str], known: Iterable[str]) -> str:
    """The nearest known id on the same level, else all of that level."""
    above = "#".join([*parts[:-1], ""])
    level = sorted({name for name in known if name.startswith(above) and name.count("#") == above.count("#")})
    near = difflib.get_close_matches("#".join(parts), level, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(level)}"


def _check_keywords(name: str, group: Any, known: Known) -> None:
    """Refuse a keyword that the files do not have and the class of the group does not take."""
    target = group.get("_target_") if isinstance(group, Mapping) else None
    if not isinstance(target, str) or target.startswith(("$", "@")):
        return
    added = [key for key in map(str, group) if not key.startswith("_") and f"{name}#{key}" not in known]
    if not added:
        return
    try:
        parameters = inspect.signature(locate(target)).parameters
    except (ErrorDuringImport, ImportError, TypeError, ValueError):  # said when it is built
        return
    unknown = [key for key in added if key not in parameters]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        hint = _hint([*name.split("#"), unknown[0]], [f"{name}#{key}" for key in parameters])
        raise InputError(f"{name}#{unknown[0]}: {target.rpartition('.')[2]} takes no such option; {hint}")


def _check_kind(name: str, value: Any, known: list[Any]) -> None:
    if any(isinstance(x, float) and not math.isfinite(x) for x in (value if isinstance(value, list) else [value])):
        raise InputError(f"{name}: expected finite numbers, found {_short(value)}")
    if _is_open(value):
        return
    if name in NAMES and None in known and not isinstance(value, str):
        raise InputError(f"{name}: expected text, found {_short(value)}")
    if name in PATHS:
        if not isinstance(value, (str, os.PathLike)):
            raise InputError(f"{name}: expected a path, found {_short(value)}; for a folder of that name give ./NAME")
        if "\0" in str(value):
            raise InputError(f"{name}: expected a path, found one with a zero byte")
        return
    if not known or any(_is_open(item) for item in known):
        return
    if isinstance(value, float) and value != round(value) and name not in _FRACTIONS and all(map(_is_whole, known)):
        raise InputError(f"{name}: expected a whole number, such as {known[0]}, found {value}")
    kinds, kind = {_kind(item) for item in known}, _kind(value)
    if kind in kinds or (
        kind is str and (name in _ALSO_TEXT or (bool in kinds and value.strip().lower() in ("true", "false")))
    ):
        return
    expected = " or ".join(sorted(_KINDS.get(kind, str(kind)) for kind in kinds))
    hint = "; quote it twice, \"'2024'\"" if kinds == {str} and kind in (float, bool) else ""
    raise InputError(f"{name}: expected {expected}, such as {_short(known[0])}, found {_short(value)}{hint}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_open(value: Any) -> bool:
    """Tell whether a value is left open (null) or computed, so that any type is right."""
    return value is None or (isinstance(value, str) and value.startswith(("$", "@", "%")))


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, str) and isinstance(other, str):
        return value == other.replace("#", "::") or value == other  # MONAI rewrites ids, in any text
    return type(value) is type(other) and bool(value == other)


def _kind(value: Any) -> Any:
    if isinstance(value, bool):
        return bool
    if isinstance(value, (int, float)):
        return float
    if isinstance(value, (list, tuple)):
        return list
    return dict if isinstance(value, Mapping) else type(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_bool(value: Any) -> bool:
    """Convert true or false from JSON or from the command line, where they are text.

    Raises:
        InputError: anything else.
    """
    text = str(value).strip().lower()
    if isinstance(value, (bool, str)) and text in ("true", "false"):
        return text == "true"
    raise InputError(f"expected true or false, found {value!r}")


def known_keys(files: Iterable[str | Path]) -> set[str]:
    """Top-level keys of the merged config files that a run of them reads."""
    from monai.bundle import ConfigParser

    config = ConfigParser.load_config_files([str(file) for file in files])
    return {top_level(reference) for reference in _references(config)} & config.keys()


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
    config = {key: value for key, value in RUN.config.items() if key not in ("_meta_", "_desc_")}
    return {name: value for name, value in nodes("", config) if not isinstance(value, (Mapping, list))}


def training_settings() -> dict[str, Any]:
    """Settings that must be equal when pre-training is resumed: all that change the result.

    Paths, progress output, saving intervals and the number of epochs may differ.
    """
    free = {"dataset_dir", "output_dir", "bundle_root", "device", "resume", "quiet", "checkpoint_seconds", "max_epochs"}
    free |= {"overwrite", "cache_dir", "cache_bytes"}
    free |= {"tracking_uri", "experiment_name", "run_name", "anonymize", "names", "report", "subjects_on_disk"}
    # The number of processes changes nothing; the batch size of all is in the settings itself.
    free |= {"timeout_minutes", "batch_size", "initialize", "finalize"}
    return {key: value for key, value in hyper_parameters().items() if top_level(key) not in free}
