from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.hdf5 import check_size
from disinr_monai.data.ismrmrd_header import Space, parse_ismrmrd_header
from disinr_monai.data.oversampling import cut_size
from disinr_monai.errors import InputError

_RECONSTRUCTIONS = ("reconstruction_rss", "reconstruction_esc")


def fastmri_geometry(file: Any, shape: tuple[int, int], index: int) -> tuple[NDArray[np.float64], str, tuple[int, int]]:
    """Voxel size and the part of the field of view that is to come out of a fastMRI file.

    From the ISMRMRD header, where there is one: its encoded space has the oversampled field of view of ``kspace``, its
    reconstructed space what is kept (the pixels stay those of the encoded space). Without a header the size of
    ``reconstruction_rss`` or ``reconstruction_esc``, if any, is what is kept. The files do not hold an orientation.

    Args:
        file: open file.
        shape: (H, W) of ``kspace``.
        index: of the slice.

    Returns:
        4x4 affine in mm of the whole field of view, where it comes from, and the rows and columns to keep.
    """
    header = _header(file)
    spaces = _spaces(header)
    if spaces is not None:
        pixel, kept = [], []
        for axis, n in enumerate(shape):
            encoded, recon = ((space.matrix[axis], space.fov[axis]) for space in spaces)
            if n == recon[0] != encoded[0]:  # oversampling is removed already
                encoded = recon
            pixel.append(encoded[1] / n)
            kept.append(cut_size(n, encoded[1], *recon))
        return _affine(*pixel, spaces[1].fov[2], index), _KNOWN, (kept[0], kept[1])
    images = [getattr(file.get(key), "shape", None) or () for key in _RECONSTRUCTIONS]
    kept = next((image[-2:] for image in images if len(image) >= 2), shape)
    kept = (min(int(kept[0]), shape[0]), min(int(kept[1]), shape[1]))
    kept = kept if min(kept) > 0 else shape
    encoded = re.search(r"<encodedSpace>.*?<fieldOfView_mm>(.*?)</fieldOfView_mm>", header, re.DOTALL)
    sizes = re.findall(r"<[xyz]>\s*(\d+(?:\.\d*)?)\s*</[xyz]>", encoded.group(1)) if encoded else []
    if len(sizes) == 3 and all(float(size) > 0 for size in sizes):
        x, y, z = map(float, sizes)
        return _affine(x / shape[0], y / shape[1], z, index), _KNOWN, kept
    return _affine(1.0, 1.0, 1.0, index), "unknown: 1 mm voxels assumed", kept


_KNOWN = "field of view of the ISMRMRD header; orientation unknown"


def _header(file: Any) -> str:
    if "ismrmrd_header" not in file:
        return ""
    if getattr(file["ismrmrd_header"], "shape", None) is not None:
        check_size(file["ismrmrd_header"], file.filename)
    header = np.asarray(file["ismrmrd_header"][()]).reshape(-1)
    header = header[0] if len(header) else ""
    return header.decode(errors="replace") if isinstance(header, bytes) else str(header)


def _spaces(header: str) -> tuple[Space, Space] | None:
    try:
        first = parse_ismrmrd_header(header, "ismrmrd_header")[0]
    except InputError:  # the header is extra: what can be read of it is used
        return None
    return first.encoded, first.recon


def _affine(rows: float, columns: float, thickness: float, index: int) -> NDArray[np.float64]:
    affine = np.diag([rows, columns, thickness, 1.0])
    affine[2, 3] = index * thickness
    return affine
