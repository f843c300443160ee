"""Config files of a run: their content, their nodes, and the order in which each of them has an effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

from disinr_monai.errors import InputError

Files = dict[str, dict[str, Any]]
PHASE, MODALITY, VARIANT, BACKBONE, METHOD, REST = range(6)


def read_files(files: Iterable[str | Path]) -> Files:
    """Content of config files by path."""
    from monai.bundle import ConfigParser

    return {str(file): ConfigParser.load_config_file(file) for file in files}


def nodes(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every node of a config with its id, groups and lists before their members."""
    yield name, value
    members = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in members:
        yield from nodes(f"{name}#{key}" if name else str(key), item)


def node_id(key: str) -> str:
    """The id that a key of a config file sets."""
    return key.lstrip("+").replace("::", "#")


def top_level(key: str) -> str:
    """The top-level key that a key of a config file belongs to."""
    return node_id(key).partition("#")[0]


def place(content: Mapping[str, Any]) -> int:
    """Place of a config file in the order: phase, modality, variant of a modality, backbone, method, the rest."""
    marks = {"run": PHASE, "modality": MODALITY, "classical": VARIANT, "method": METHOD, "encoder": BACKBONE}
    return next((where for key, where in marks.items() if key in content), REST)


def check_order(files: Files) -> None:
    """Refuse config files of which one undoes another.

    Args:
        files: content by path, in their order.

    Raises:
        InputError: two phases, modalities or networks; a file that belongs before one whose values it replaces; a file
            of whose values later ones leave none.
    """
    for (earlier, before), (later, after) in combinations(files.items(), 2):
        kinds = {PHASE: "phase", MODALITY: "modality"}
        if place(before) == place(after) and place(after) in kinds:
            raise InputError(f"config_file: expected one {kinds[place(after)]}, found {earlier} and {later}; keep one")
        if place(before) == place(after) == METHOD and "network_def" in before and "network_def" in after:
            raise InputError(f"config_file: {later} replaces the network of {earlier}; keep one of them")
        undone = _replaced(before, after)
        if place(before) > place(after) and undone:
            right = sorted(files, key=lambda file: place(files[file]))
            raise InputError(
                f"config_file: {later} after {earlier} undoes its {undone[0]}; give phase, modality, backbone, "
                f"method, then the rest: {right}"
            )
    for number, (file, content) in enumerate(files.items()):
        rest = list(files.items())[number + 1 :]
        left = content.keys() - {"_desc_"} - {key for _, after in rest for key in _replaced(content, after, whole=True)}
        if not left and rest:
            raise InputError(
                f"config_file: {file} has no effect: the files after it replace all that it sets; leave it out or give "
                "it after them"
            )


def _replaced(before: Mapping[str, Any], after: Mapping[str, Any], whole: bool = False) -> list[str]:
    """The keys of a file that a later one replaces by other values, or (not ``whole``) changes a part of."""
    found = []
    for key, other in product(before, after):
        one, two = node_id(key), node_id(other)
        is_same = key == other and before[key] == after[other]
        covers = f"{one}#".startswith(f"{two}#") and not other.startswith("+")
        part = (f"{one}#".startswith(f"{two}#") or two.startswith(f"{one}#")) and not whole
        if "_desc_" not in (key, other) and not is_same and (covers or part):
            found.append(key)
    return found
