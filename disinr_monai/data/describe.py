from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FORMATS = {
    "fastmri_hdf5": "fastMRI HDF5",
    "ismrmrd_hdf5": "ISMRMRD HDF5",
    "hdf5_sinogram": "sinogram HDF5",
    "hdf5_pet_sinogram": "PET sinogram HDF5",
    "cil_nexus": "CIL NeXus",
    "cil": "CIL object",
    "nifti": "NIfTI",
    "dicom": "DICOM",
    "dicom_multiframe": "multi-frame DICOM",
}
_MAPS = {
    "espirit": "maps by ESPIRiT",
    "joint": "maps estimated with the image",
    "file": "maps from the file",
    "true": "maps of the simulation",
}


def describe(info: Mapping[str, Any]) -> str:
    """How a case was read, in one line, from its ``info`` (``docs/conventions.md``)."""
    parts = [f"read as {_FORMATS.get(info.get('format', ''), info.get('format', 'unknown format'))}"]
    if info.get("n_slices", 1) > 1:
        parts.append(f"slice {info['slice']} of {info['n_slices']}")
    parts += [f"{key} {info[key]}" for key in ("contrast", "phase", "repetition", "set") if key in info]
    if "n_coils" in info:
        parts.append(f"{info['n_coils']} coil" + ("s" if info["n_coils"] > 1 else ""))
    if info.get("prewhitened"):
        parts.append("prewhitened")
    if info.get("simulated"):
        parts.append("measurement simulated")
    elif "retrospective" in info:
        parts.append("fully sampled, measurements taken away" if info["retrospective"] else "undersampled")
    if "sampled_fraction" in info:
        parts.append(f"{100 * info['sampled_fraction']:.0f} % sampled")
    if "n_views" in info:
        parts.append(f"{info['n_views']} views")
    if "maps" in info:
        parts.append(_MAPS.get(info["maps"], f"maps: {info['maps']}"))
    if "acs_size" in info:
        parts[-1] += f" from {' x '.join(map(str, info['acs_size']))} " + (
            "separate calibration samples" if info.get("separate_calibration") else "samples in the centre"
        )
    if "geometry" in info:
        parts.append(f"geometry: {info['geometry']}")
    if "read_as" in info:  # what the reader itself has to say
        parts.append(info["read_as"])
    return ", ".join(parts)
