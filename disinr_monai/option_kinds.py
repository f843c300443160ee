"""Options of the wrong kind are refused by name before anything is made of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
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
