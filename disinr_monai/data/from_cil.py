"""From and to objects of CIL, the Core Imaging Library; only what its objects say is used, so CIL is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disinr_monai.data.acquire_ct import scan_case
from disinr_monai.data.cil_geometry import CILGeometry
from disinr_monai.data.read_nexus import scan_from_cil
from disinr_monai.data.units import CT_ATTENUATION
from disinr_monai.errors import InputError


def from_cil(
    data: Any, index: int | None = None, image_size: int = 256, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A case (``operator``, ``measurement``, ``points``, ...) from CIL ``AcquisitionData``.

    Lengths of the geometry are taken for mm and the values for line integrals (after ``-log``). A ``pixel_spacing`` and
    an ``image_shape`` of a CIL ``ImageGeometry`` go into ``given``.

    Args:
        data: ``AcquisitionData`` (its ``geometry.config``, ``dimension_labels`` and ``as_array()`` are read).
        index: row of a 3-D parallel scan.
        image_size: rows and columns of the image where ``given`` does not say ``image_shape``.
        given: values of :data:`disinr_monai.data.ct_scan.SETTINGS`, stronger than those of ``data``.

    Raises:
        InputError: not such an object, several channels, or a geometry that is not supported.
    """
    try:
        cil = _geometry(data.geometry.config)
        labels = [str(label) for label in data.dimension_labels]
        array = np.asarray(data.as_array())
    except AttributeError as error:
        raise InputError(f"from_cil: expected CIL AcquisitionData, found {type(data).__name__} ({error})") from error
    scan = scan_from_cil(array, labels, cil, "from_cil", index, image_size, given)
    return scan_case({"name": "cil", "subject": "cil", "path": "cil", "slice": index}, scan)


def from_cil_image(image: Any) -> Tensor:
    """Our image ``(1, H, W)`` or ``(1, H, W, D)`` from CIL's ``ImageData`` in 1/mm, e.g. to start a solver from."""
    array = np.asarray(image.as_array(), dtype=np.float32)
    # CIL: (y, x) or (z, y, x) with y up; ours: rows downwards, slices last.
    array = array[..., ::-1, :] if array.ndim == 2 else np.moveaxis(array[:, ::-1], 0, -1)
    return torch.from_numpy(np.ascontiguousarray(array))[None] / CT_ATTENUATION


def to_cil_array(image: Tensor) -> np.ndarray:
    """Our image ``(1, H, W)`` or ``(1, H, W, D)`` as the array of a CIL ``ImageData``, in 1/mm."""
    array = np.asarray(image.detach().cpu())[0] * CT_ATTENUATION
    array = array[::-1] if array.ndim == 2 else np.moveaxis(array[::-1], -1, 0)
    return np.ascontiguousarray(array, dtype=np.float32)


def _geometry(config: Any) -> CILGeometry:
    system, panel, angles = config.system, config.panel, config.angles
    is_cone = str(system.geometry) == "cone"
    is_3d = len(np.reshape(system.detector.position, -1)) == 3
    turned = np.asarray(angles.angle_data, dtype=float).reshape(-1) + float(angles.initial_angle)
    return CILGeometry(
        kind="cone" if is_cone else "parallel",
        source=system.source.position if is_cone else system.ray.direction,
        detector=system.detector.position,
        direction_x=system.detector.direction_x,
        direction_y=system.detector.direction_y if is_3d else None,
        axis=system.rotation_axis.position,
        axis_direction=system.rotation_axis.direction if is_3d else None,
        n_pixels=(int(panel.num_pixels[0]), int(panel.num_pixels[1])),
        pixel_size=(float(panel.pixel_size[0]), float(panel.pixel_size[1])),
        origin=str(panel.origin),
        angles=np.radians(turned) if str(angles.angle_unit).lower().endswith("degree") else turned,
    )
