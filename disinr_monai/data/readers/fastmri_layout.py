"""Which axis of ``kspace`` is which, from everything that a file says about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5 import check_size
from disinr_monai.data.readers.ismrmrd_header import Encoding, parse_ismrmrd_header
from disinr_monai.errors import InputError

RECONSTRUCTIONS = ("reconstruction_rss", "reconstruction_esc")
MAPS = ("sensitivity_maps", "coil_sensitivity_maps", "sens_maps", "coil_maps")


def kspace_dataset(file: Any, path: str | Path) -> Any:
    """The dataset ``kspace`` of an open file, complex and of three or four axes.

    Raises:
        InputError: none, or another one.
    """
    if "kspace" not in file:
        raise InputError(
            f"{path}: expected a dataset `kspace` (slice, coil, H, W) or an ISMRMRD group `dataset`, found keys "
            f"{sorted(map(str, file)) or 'none'}; rename the dataset or give a fastMRI or ISMRMRD HDF5 file"
        )
    data = file["kspace"]
    shape = getattr(data, "shape", None)
    if shape is not None and np.dtype(data.dtype).kind != "c":
        raise InputError(f"{path}: `kspace` must be complex, found {_real(data)}")
    if shape is None or len(shape) not in (3, 4):
        raise InputError(f"{path}: `kspace` must have shape (slice, coil, H, W), found {shape or 'a group'}")
    if 0 in shape:
        what = "coils" if shape[-3] == 0 else "samples"
        raise InputError(f"{path}: `kspace` (slice, coil, H, W) holds zero {what}, found shape {tuple(shape)}")
    if min(shape[-2:]) < 2 and "trajectory" not in file:
        raise InputError(f"{path}: `kspace` must have at least 2 x 2 samples a coil, found shape {tuple(shape)}")
    check_size(data, path)
    return data


def _real(data: Any) -> str:
    """Type of a dataset that is not complex, and how it becomes so."""
    names = np.dtype(data.dtype).names or ()
    if len(names) == 2:
        return f"pairs ({', '.join(names)}); store kspace['{names[0]}'] + 1j * kspace['{names[1]}']"
    axes = [axis for axis in (-1, 0, 1, 2) if len(data.shape) > 3 and data.shape[axis] == 2]
    if axes:
        first, second = (f"kspace.take({part}, axis={axes[0]})" for part in (0, 1))
        return (
            f"{data.dtype} {tuple(data.shape)}, whose axis {axes[0]} is likely real and imaginary part; store "
            f"{first} + 1j * {second}"
        )
    return f"{data.dtype}; store real + 1j * imaginary"


def layout(file: Any, data: Any, path: str | Path) -> tuple[int, Callable[[int], NDArray], str]:
    """Number of slices, how to read one ``(coil, H, W)``, and how the first axis was recognised.

    The first of three axes is that of the coils of one slice, or that of the slices of a single-coil file.
    ``reconstruction_rss``, ``reconstruction_esc``, coil maps, noise, and receiver channels and slice limits of the
    header say which; where nothing does, a file with a header is a single-coil one.

    Raises:
        InputError: they contradict each other.
    """
    encoding = header_encoding(file)
    shapes = {key: tuple(getattr(file[key], "shape", None) or ()) for key in (*RECONSTRUCTIONS, *MAPS) if key in file}
    if data.ndim == 4:
        _check_order(data.shape, shapes, encoding, path)
        return data.shape[0], lambda index: data[index], ""
    n = data.shape[0]
    noise = (tuple(getattr(file["noise"], "shape", None) or ()) or (0,))[0] if "noise" in file else 0
    for_slices, for_coils = _reasons(n, shapes, noise, encoding)
    n_slices, n_coils = sum(for_slices.values()), sum(for_coils.values())
    if n_slices == n_coils > 0:
        raise InputError(
            f"{path}: expected `kspace` {tuple(data.shape)} to be {n} slices of one coil or {n} coils of one slice, "
            f"found {', '.join(for_slices)} for slices but {', '.join(for_coils)} for coils; store (slice, coil, H, W)"
        )
    if not for_slices and not for_coils:
        single = "trajectory" not in file and ("ismrmrd_header" in file or "reconstruction_esc" in file)
    else:
        single = n_slices > n_coils
    said = ", ".join(for_slices if single else for_coils)
    if single:
        return n, lambda index: data[index][None], f"slices of one coil ({said})" if said else ""
    return 1, lambda index: data[()], f"{n} coils of one slice ({said})" if said else ""


def _reasons(
    n: int, shapes: dict[str, tuple[int, ...]], noise: int, encoding: Encoding | None
) -> tuple[dict[str, int], dict[str, int]]:
    """Evidence for ``n`` slices and for ``n`` coils, with its strength."""
    for_slices: dict[str, int] = {}
    for_coils: dict[str, int] = {}
    if n == 1:
        return for_slices, for_coils
    for key in RECONSTRUCTIONS:
        shape = shapes.get(key, ())
        if len(shape) == 3 and shape[0] == n:  # esc is what a single-coil file has; the header is of the scanner
            for_slices[f"{key} {shape}"] = 2 if key.endswith("esc") else 1
        elif len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
            for_coils[f"{key} {shape}"] = 1
    for key, shape in shapes.items():
        if key in MAPS and len(shape) == 4 and shape[0] != shape[1] and 1 in shape[:2] and n in shape[:2]:
            (for_slices if shape[1] == 1 else for_coils)[f"{key} {shape}"] = 1
    if noise in (1, n):
        (for_slices if noise == 1 else for_coils)["noise"] = 1
    if encoding is not None and encoding.channels in (1, n):
        said = f"receiverChannels {encoding.channels}"
        (for_slices if encoding.channels == 1 else for_coils)[said] = 1
    if encoding is not None and encoding.n_slices in (1, n):
        said = f"slice limits 0 to {encoding.n_slices - 1}"
        (for_coils if encoding.n_slices == 1 else for_slices)[said] = 1
    return for_slices, for_coils


def _check_order(
    shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]], encoding: Encoding | None, path: str | Path
) -> None:
    """Refuse ``(coil, slice, H, W)``, where channels and number of slices are those of the other axis."""
    n_slices = [other[0] for key, other in shapes.items() if key in RECONSTRUCTIONS and len(other) == 3]
    n_slices += [encoding.n_slices] if encoding is not None and encoding.n_slices else []
    is_swapped = encoding is not None and encoding.channels == shape[0] and shape[1] in n_slices
    if is_swapped and shape[0] != shape[1] and shape[0] not in n_slices:
        raise InputError(
            f"{path}: `kspace` must have shape (slice, coil, H, W), found {tuple(shape)} with {shape[0]} receiver "
            f"channels and {shape[1]} slices; store kspace.transpose(1, 0, 2, 3)"
        )


def check_coil_axis(kspace: NDArray, path: str | Path) -> None:
    """Refuse ``(H, W, coil)``: the signal is concentrated along the first axis and spread evenly along the last.

    Raises:
        InputError: as said.
    """
    scaled = np.abs(kspace / np.abs(kspace).max()).astype(np.float64) ** 2
    shares = []
    for axis in (0, 2):
        n = kspace.shape[axis]
        profile = scaled.sum(tuple({0, 1, 2} - {axis}))
        middle = np.abs(np.arange(n) - (n - 1) / 2) <= max(n / 8, 0.5)
        shares.append((profile[middle].sum() / profile.sum(), middle.mean()))
    (first, _), (last, even) = shares
    if kspace.shape[0] >= 16 and kspace.shape[2] < kspace.shape[0] and first > 0.6 and last < 1.5 * even:
        raise InputError(
            f"{path}: `kspace` must have shape (slice, coil, H, W), found the signal spread evenly along the last axis "
            f"of (..., {', '.join(map(str, kspace.shape))}) as along coils; store np.moveaxis(kspace, -1, -3)"
        )


def header_encoding(file: Any) -> Encoding | None:
    """First encoding of the header; None where it cannot be read: it is extra, what can be read of it is used."""
    try:
        return parse_ismrmrd_header(header_text(file), "ismrmrd_header")[0]
    except InputError:
        return None


def header_text(file: Any) -> str:
    """``ismrmrd_header`` of an open file; empty where there is none."""
    if "ismrmrd_header" not in file:
        return ""
    if getattr(file["ismrmrd_header"], "shape", None) is not None:
        check_size(file["ismrmrd_header"], file.filename)
    header = np.asarray(file["ismrmrd_header"][()]).reshape(-1)
    header = header[0] if len(header) else ""
    return header.decode(errors="replace") if isinstance(header, bytes) else str(header)
