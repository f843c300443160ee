"""DICOM images that are no slice of magnitudes, activity or HU to reconstruct from, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_HU = ("", "HU", "HU_MOD", "US")  # US: unspecified

# Values of ImageType (from the third on), of FrameType and of ComplexImageComponent, as vendors write them.
_COMPONENTS = {
    "phase": r"P|PHASE|PHASE[ _]MAP|P_(FFE|SE|IR|TSE|EPI)|B0|B0[ _]MAP",
    "real": r"R|REAL|R_(FFE|SE|IR|TSE|EPI)",
    "imaginary": r"I|IMAGINARY|I_(FFE|SE|IR|TSE|EPI)",
    "velocity": r"V|VELOCITY|VELOCITY[ _]MAP|PHASE CONTRAST V|V_(FFE|PCA)",
}
_GE_COMPONENTS = {1: "phase", 2: "real", 3: "imaginary"}


def why_no_slice(levels: Sequence[Any]) -> str:
    """Reason why an image is not a magnitude slice; empty if it is one.

    Args:
        levels: data sets to look into, the frame's own functional groups first and the header last.
    """
    header = levels[-1]
    kinds = [str(kind).strip().upper() for kind in (header.get("ImageType") or ())]
    frame = _in_groups(levels, "MRImageFrameTypeSequence")
    own = [str(kind).strip().upper() for kind in ((frame.get("FrameType") if frame else None) or ())]
    if "Rows" not in header or "Columns" not in header:
        return "no image"
    if str(header.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        return "a secondary capture"
    if {"LOCALIZER", "SCOUT"} & {*kinds, *own}:
        return "a localizer"
    modality = str(header.get("Modality", ""))
    if "MOSAIC" in (*kinds, *own) or _n_tiles(header) > 1:
        return "a mosaic of several slices"
    if modality == "MR":
        component = _component(frame, header, own[2:] or kinds[2:])
        return f"a {component} image" if component else ""
    if modality == "CT":
        transformation = _in_groups(levels, "PixelValueTransformationSequence") or header
        units = str(transformation.get("RescaleType", "") or "").strip().upper()
        return "" if units in _HU else f"values in {units[:16]}, not HU"
    return ""


def advice(reasons: Sequence[str]) -> str:
    """Advice about images that are left out, for a message; empty if there is none."""
    texts = []
    if any("mosaic" in reason for reason in reasons):
        texts.append("split mosaics into slices (dcm2niix)")
    if any(f"a {component} image" in reason for reason in reasons for component in _COMPONENTS):
        texts.append("give the magnitude images of the scan")
    return "; " + ", ".join(texts) if texts else ""


def _in_groups(levels: Sequence[Any], sequence: str) -> Any:
    return next((items[0] for level in levels if (items := level.get(sequence))), None)


def _component(frame: Any, header: Any, kinds: Sequence[str]) -> str:
    """``phase``, ``real``, ``imaginary`` or ``velocity``; empty for a magnitude."""
    said = (frame.get("ComplexImageComponent") if frame else None) or header.get("ComplexImageComponent") or ""
    ge = _private(header, 0x0043, "GEMS_PARM_01", 0x2F)
    for kind in (str(said).strip().upper(), *kinds):
        for component, pattern in _COMPONENTS.items():
            if re.fullmatch(pattern, kind):
                return component
    return _GE_COMPONENTS.get(ge, "")


def _n_tiles(header: Any) -> int:
    """Slices that one image holds, by the private attributes of Siemens and United Imaging."""
    siemens = _private(header, 0x0019, "SIEMENS MR HEADER", 0x0A)
    return max(siemens, _private(header, 0x0065, "Image Private Header", 0x50))


def _private(header: Any, group: int, creator: str, element: int) -> int:
    """A whole number of a private block; 0 where there is none or it is damaged."""
    try:
        value = header.private_block(group, creator)[element].value
        if isinstance(value, bytes) and len(value) == 2:  # of a file that does not say the kind of its private values
            return int.from_bytes(value, "little")
        return int(value[0] if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else value)
    except (LookupError, TypeError, ValueError, AttributeError):
        return 0
