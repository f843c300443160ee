from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor

from disinr_monai.data.coils.reference import describe_reference
from disinr_monai.data.readers.reader import READERS
from disinr_monai.errors import InputError
from disinr_monai.grid import voxel_centres
from disinr_monai.runtime.memory import is_out_of_memory, out_of_memory
from disinr_monai.scan import Scan

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
    """Name the subject of each file, from its file name alone.

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


def case_label(case: Mapping[str, Any]) -> str:
    """Label of a listed case in error messages: its file, or the folder of its series."""
    path = case["path"]
    return str(Path(path[0]).parent) if isinstance(path, (list, tuple)) else str(path)


def make_case(
    listed: Mapping[str, Any],
    scan: Scan,
    *,
    modality: str,
    affine: NDArray | Tensor,
    info: Mapping[str, Any],
    image_scale: float = 1.0,
    output_scale: float = 1.0,
    reference: NDArray | Tensor | None = None,
    crop: tuple[int, ...] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Build the case of a measured scan (its keys: ``docs/conventions.md``).

    Args:
        listed: the case as :func:`~disinr_monai.data.cases.list_cases` gives it: name, subject, path.
        scan: measurement and operator.
        modality: key of :data:`disinr_monai.modality.MODALITIES`.
        affine: 4x4 of the image (of its crop), RAS mm.
        info: facts about the scan for report and log.
        image_scale: factor from the image to the reference.
        output_scale: factor from there to the source's units.
        reference: image ``(1, *S)`` to compare with.
        crop: sizes of the centre to keep.
        **more: further keys.
    """
    case = {
        "name": listed["name"],
        "subject": listed["subject"],
        "index": listed.get("index", 0),
        "modality": modality,
        "scan": scan,
        "points": voxel_centres(scan.operator.domain_shape[1:]),
        "image_scale": image_scale,
        "output_scale": output_scale,
        "affine": torch.from_numpy(np.asarray(affine, dtype=np.float64)),
        "info": {"source": Path(case_label(listed)).name, **info},
        **more,
    }
    if reference is not None:
        case["reference"] = torch.as_tensor(reference)
    if crop is not None:
        case["crop"] = crop
    return case


_MAPS = {
    "espirit": "maps by ESPIRiT",
    "joint": "maps estimated with the image",
    "file": "maps from the file",
    "simulated": "maps of the simulation",
}


def is_simulated(case: Mapping[str, Any]) -> bool:
    """Tell whether a case was measured by simulation: from an image, not from a scanner's raw data."""
    return bool(case["info"].get("simulated"))


def describe(info: Mapping[str, Any]) -> str:
    """Describe in one line how a case was read, from its ``info`` (``docs/conventions.md``)."""
    key = info.get("format", "unknown format")
    parts = [f"read as {READERS[key].name if key in READERS else key}"]
    if info.get("n_slices", 1) > 1:
        parts.append(f"slice {info['slice']} of {info['n_slices']}")
    parts += [f"{key} {info[key]}" for key in ("contrast", "phase", "repetition", "set") if key in info]
    if "n_coils" in info:
        parts.append(f"{info['n_coils']} coil" + ("s" if info["n_coils"] > 1 else ""))
    if info.get("prewhitened"):
        parts.append("prewhitened")
    if info.get("simulated"):
        parts.append("SIMULATED measurement of an image")
    elif "retrospective" in info:
        parts.append("fully sampled, measurements taken away" if info["retrospective"] else "undersampled")
    if "sampled_fraction" in info:
        parts.append(f"{100 * info['sampled_fraction']:.0f} % sampled")
    if "n_views" in info:
        parts.append(f"{info['n_views']} views")
    if "noise_estimate" in info:
        origin = "from its noise scan" if info.get("noise_from") == "noise scan" else "estimated"
        parts.append(f"noise {info['noise_estimate']:.2g} of the RMS k-space ({origin})")
    if "photons_estimate" in info:
        parts.append(f"noise like {info['photons_estimate']:.2g} photons a ray in air (estimated)")
    if "maps" in info:
        parts.append(_MAPS.get(info["maps"], f"maps: {info['maps']}"))
    if "acs_size" in info:
        parts[-1] += f" from {' x '.join(map(str, info['acs_size']))} " + (
            "separate calibration samples" if info.get("separate_calibration") else "samples in the centre"
        )
    if info.get("map_sets", 1) > 1:
        parts.append(f"{info['map_sets']} sets of maps because the object wraps around the field of view")
    if "oversampled" in info:
        parts.append(
            "measured with oversampling, {} x {}, because the object reaches the edge".format(*info["oversampled"])
        )
    if "geometry" in info:
        parts.append(f"geometry: {info['geometry']}")
    if "reference" in info:
        parts.append(describe_reference(info))
    if "read_as" in info:  # what the reader itself has to say
        parts.append(info["read_as"])
    return ", ".join(parts)


class SkipFailed(Transform):
    """Run a transform on a case; a failed one becomes ``{"name", "subject", "path", "error"}``.

    Failed is what cannot be read or does not fit into memory. How the file was read is kept as ``info["read_as"]``.

    So one bad file does not end a batch of scans; the handler that writes results reports it at the end. Every case
    keeps its ``path``: DICOM output asks the source for its patient.

    Args:
        transform: what to run.
    """

    def __init__(self, transform: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self.transform = transform

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        try:
            result = {"path": case["path"], **self.transform(case)}
        except (InputError, ValueError, OSError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                error = out_of_memory(error, str(case["name"]))
            elif isinstance(error, RuntimeError):
                raise
            reason = str(error) if isinstance(error, InputError) else f"{case['path']}: {type(error).__name__}: {error}"
            return {"name": case["name"], "subject": case["subject"], "path": case["path"], "error": reason}
        info = result.setdefault("info", {})
        info["read_as"] = describe(info)
        return result
