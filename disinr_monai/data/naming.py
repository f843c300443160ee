from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SLICE_TOKEN = re.compile(r"[A-Za-z]?\d+")
_DEVICE = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)")
_LONGEST = 120  # files of a case append to its name, and file systems take 255 bytes


def safe_name(text: str) -> str:
    """``text`` as one portable folder name: letters, digits, ``.``, ``_``, ``-`` only, never hidden, empty or long.

    A long name is cut and ends in a hash of all of it; a name that is a device on Windows gets a word before it.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "case"
    if _DEVICE.fullmatch(name.partition(".")[0]):
        name = f"case-{name}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 11]}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:10]}"
    return name


def unique_names(names: Sequence[str]) -> list[str]:
    """Number the repeated names; names that differ in case only count as repeated (some file systems ignore case)."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate.lower())
        result.append(candidate)
    return result


def subjects_of(stems: Sequence[str]) -> list[str]:
    """Who each file shows, from its name alone.

    ``NAME_TAIL`` belongs to subject ``NAME`` when several files share ``NAME`` or when ``TAIL`` looks like a slice
    number (up to four digits, or one letter and digits, such as ``054``, ``z025``, ``u005``). Any other file is a
    subject of its own, also one that ends in a longer number (``file_brain_AXT2_200_2000001``). Joining too much only
    costs variety; joining too little would leak a subject from one split into another.

    Args:
        stems: file names without folder and extension.
    """
    heads = [stem.rpartition("_")[0] for stem in stems]
    result = []
    for stem, head in zip(stems, heads, strict=True):
        tail = stem.rpartition("_")[2]
        is_number = tail.isdigit() and len(tail) > 4
        is_slice = bool(head) and not is_number and (_SLICE_TOKEN.fullmatch(tail) is not None or heads.count(head) > 1)
        result.append(head if is_slice else stem)
    return result


def case_seed(seed: int, name: str) -> int:
    """Seed of one case: the same on every machine and in every order, different for every case and ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


def case_label(case: Mapping[str, Any]) -> str:
    """What error messages call a listed case: its file, or the folder of its series."""
    path = case["path"]
    return str(Path(path[0]).parent) if isinstance(path, (list, tuple)) else str(path)
