from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.checks import as_text
from disinr_monai.data.readers.cil_geometry import CILGeometry, convert
from disinr_monai.data.readers.hdf5 import check_size, open_hdf5
from disinr_monai.data.readers.sinogram import checked_scan
from disinr_monai.errors import InputError

_ENTRY = "entry1/tomo_entry"
_LABELS = {"angle", "horizontal", "vertical", "channel"}


def read_nexus(
    path: str | Path, index: int | None = None, image_size: int = 256, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read CIL's ``AcquisitionData`` from the NeXus file that its ``NEXUSDataWriter`` makes; CIL is not needed.

    Data are ``entry1/tomo_entry/data/data`` with attributes ``geometry``, ``dim0`` ..., ``num_pixels_h``,
    ``pixel_size_h``, ``panel_origin``, the geometry is under ``entry1/tomo_entry/config``. Lengths are taken for mm and
    values for line integrals (after ``-log``). Integers with ``scale`` and ``offset`` (compressed by CIL) are expanded;
    dark and flat fields (``image_key``) are left out. Each row of a 3-D parallel scan is a case of its own.

    Args:
        path: ``.nxs`` file.
        index: row of a 3-D parallel scan.
        image_size: rows and columns of the image.
        given: the user's values, which win over the file's (:data:`disinr_monai.data.readers.sinogram.SETTINGS`).

    Returns:
        The dictionary of :func:`disinr_monai.data.readers.sinogram.checked_scan`, and ``format``, ``read_as``.

    Raises:
        InputError: not such a file, several channels, a missing entry, an unsupported geometry.
    """
    with open_hdf5(path) as file:
        data = _data(file, path)
        cil = _geometry(file, data, path)
        labels = _labels(data, path)
        check_size(data, path)
        array = np.asarray(data[()])
        if "scale" in data.attrs:
            array = (array.astype(np.float32) - float(data.attrs.get("offset", 0))) / float(data.attrs["scale"])
        key = file.get(f"{_ENTRY}/data/image_key")
        if key is not None:
            array = np.compress(np.asarray(key) == 0, array, axis=labels.index("angle"))
    return scan_from_cil(array, labels, cil, str(path), index, image_size, given) | {"format": "cil_nexus"}


def scan_from_cil(
    array: NDArray,
    labels: list[str],
    cil: CILGeometry,
    path: str,
    index: int | None,
    image_size: int,
    given: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Bring CIL's data and geometry to a scan of ours: axes in order, pixels from left to right and bottom to top."""
    if array.ndim != len(labels):
        raise InputError(f"{path}: expected {array.ndim} labels dim0 ..., one an axis, found {labels}")
    for label in ("channel", "vertical"):
        if label in labels and array.shape[labels.index(label)] == 1:
            array, labels = array.squeeze(labels.index(label)), [name for name in labels if name != label]
    if "channel" in labels:
        raise InputError(f"{path}: expected one channel, found {array.shape[labels.index('channel')]}")
    if "angle" not in labels and len(cil.angles) == 1:
        array, labels = array[None], ["angle", *labels]
    wanted = ["angle", "vertical", "horizontal"] if "vertical" in labels else ["angle", "horizontal"]
    if sorted(labels) != sorted(wanted):
        raise InputError(f"{path}: expected the axes {', '.join(wanted)} (dim0 ...), found {', '.join(labels)}")
    array = array.transpose([labels.index(name) for name in wanted])
    if array.shape[-1] != cil.n_pixels[0] or (array.ndim == 3 and array.shape[1] != cil.n_pixels[1]):
        raise InputError(
            f"{path}: expected {cil.n_pixels} pixels (num_pixels_h, num_pixels_v), found {array.shape[1:]}"
        )
    values, flip, flip_rows = convert(cil, path)
    array = array[..., ::-1] if flip else array
    kind = values["geometry"]
    read_as = f"CIL {kind} {'3D' if array.ndim == 3 else '2D'}, {', '.join(labels)}, panel origin {cil.origin}"
    if array.ndim == 3 and flip_rows:
        array = array[:, ::-1]
    if array.ndim == 2 and kind == "cone":
        values["geometry"] = "fan_flat"
    kind = _kind(kind, given)
    height = 0.0
    if array.ndim == 3 and kind != "cone":
        n_rows = array.shape[1]
        if index is None or not 0 <= index < n_rows:
            raise InputError(f"{path}: expected a row from 0 to {n_rows - 1} of the {kind} scan, found {index}")
        height = (index - (n_rows - 1) / 2) * cil.pixel_size[1] + values["detector_offset_v"]
        array = array[:, index]
    scan = checked_scan(np.ascontiguousarray(array), values, path, image_size, given)
    if "affine" not in (given or {}):
        scan["affine"][2, 3] += height
    scan["unverified"].append("lengths (CIL's files name no unit; mm assumed)")
    return scan | {"format": "cil", "read_as": read_as}


def has_nexus(file: Any) -> bool:
    """Tell whether an open file has the group that CIL writes projections to."""
    return _ENTRY in file


def count_nexus_scans(file: Any, path: str | Path, given: Mapping[str, Any] | None = None) -> int:
    """Number of cases in an open file: the rows of a 3-D scan that is no cone beam, else 1.

    The ``geometry`` of ``given`` is stronger than the file's, as in :func:`read_nexus`.

    Raises:
        InputError: not CIL's NeXus file.
    """
    data = _data(file, path)
    labels = _labels(data, path)
    kind = _kind("cone" if f"{_ENTRY}/config/source/position" in file else "parallel", given)
    return 1 if kind == "cone" or "vertical" not in labels else int(data.shape[labels.index("vertical")])


def _kind(of_file: str, given: Mapping[str, Any] | None) -> str:
    return as_text((given or {}).get("geometry", of_file))


def _data(file: Any, path: str | Path) -> Any:
    data = file.get(f"{_ENTRY}/data/data")
    if data is None or not hasattr(data, "shape"):
        raise InputError(
            f"{path}: expected a NeXus file of CIL's NEXUSDataWriter with {_ENTRY}/data/data, found keys "
            f"{sorted(map(str, file)) or 'none'}"
        )
    kind = as_text(data.attrs.get("data_type", "AcquisitionData"))
    if kind != "AcquisitionData":
        raise InputError(f"{path}: expected CIL AcquisitionData (projections), found {kind}")
    if "geom_type" in data.attrs:
        raise InputError(f"{path}: expected the layout of CIL 20.11 or later, found an older one; write it again")
    return data


def _labels(data: Any, path: str | Path) -> list[str]:
    labels = [as_text(data.attrs.get(f"dim{i}", "")) for i in range(len(data.shape))]
    if not set(labels) <= _LABELS or len(set(labels)) != len(labels):
        raise InputError(f"{path}: expected dim0 ... out of {', '.join(sorted(_LABELS))}, found {labels}")
    return labels


def _geometry(file: Any, data: Any, path: str | Path) -> CILGeometry:
    config = f"{_ENTRY}/config"

    def vector(name: str, *older: str, optional: bool = False) -> NDArray | None:
        for key in (name, *older):
            if f"{config}/{key}" in file:
                check_size(file[f"{config}/{key}"], path)
                value = np.asarray(file[f"{config}/{key}"][()], dtype=float).reshape(-1)
                if len(value) not in (2, 3) or not np.isfinite(value).all():
                    raise InputError(f"{path}: `{config}/{key}` must be 2 or 3 finite numbers, found {value}")
                return value
        if optional:
            return None
        raise InputError(f"{path}: expected `{config}/{name}`, found it missing; write the file again with CIL")

    def number(name: str, default: float | None = None) -> float:
        value = data.attrs.get(name, default)
        if value is None or np.size(value) != 1 or not np.isfinite(float(np.asarray(value).item())):
            raise InputError(f"{path}: expected the attribute `{name}` of {_ENTRY}/data/data, found {value}")
        result = float(np.asarray(value).item())
        if name.startswith("num_") and result % 1:
            raise InputError(f"{path}: expected `{name}` of {_ENTRY}/data/data to be a whole number, found {value}")
        return result

    is_cone = f"{config}/source/position" in file
    angles = file.get(f"{config}/angles")
    if angles is None:
        raise InputError(f"{path}: expected `{config}/angles`, found it missing; write the file again with CIL")
    unit = as_text(angles.attrs.get("angle_unit", "degree"))
    if unit not in ("degree", "radian"):
        raise InputError(f"{path}: expected angle_unit degree or radian, found {unit!r}")
    check_size(angles, path)
    turned = np.asarray(angles[()], dtype=float).reshape(-1) + float(angles.attrs.get("initial_angle", 0))
    size = number("pixel_size_h")
    return CILGeometry(
        kind="cone" if is_cone else "parallel",
        source=vector("source/position" if is_cone else "ray/direction"),
        detector=vector("detector/position"),
        direction_x=vector("detector/direction_x", "detector/direction_row"),
        direction_y=vector("detector/direction_y", "detector/direction_col", optional=True),
        axis=vector("rotation_axis/position"),
        axis_direction=vector("rotation_axis/direction", optional=True),
        n_pixels=(int(number("num_pixels_h", 1)), int(number("num_pixels_v", 1))),
        pixel_size=(size, number("pixel_size_v", size)),
        origin=as_text(data.attrs.get("panel_origin", "bottom-left")),
        angles=np.radians(turned) if unit == "degree" else turned,
    )
