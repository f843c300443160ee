from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.ismrmrd_acquisitions import IsmrmrdScan
from disinr_monai.data.readers.kspace import unplaced_affine

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def slice_affine(
    scan: IsmrmrdScan, index: int, numbers: list[int], is_volume: bool, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], str]:
    r"""Affine (RAS mm) of one slice ``(H, W)``: rows along the readout, columns along the phase encoding.

    ``position`` (patient coordinates, LPS mm) is the middle of the slice or slab; the pixel ``n // 2``, where the
    transform has its centre, lies there.

    Args:
        scan: of :func:`~disinr_monai.data.readers.ismrmrd_acquisitions.open_ismrmrd`.
        index: of the slice.
        numbers: the scan's slice counters.
        is_volume: slices are partitions of one slab.
        shape: (H, W) over the encoded pixel size.

    Returns:
        The affine, and where it comes from.
    """
    encoded = scan.encoding.encoded
    pixel = np.array([encoded.fov[0] / encoded.matrix[0], encoded.fov[1] / encoded.matrix[1]])
    thickness = encoded.fov[2] / encoded.matrix[2] if is_volume else scan.encoding.recon.fov[2]
    heads = [scan.heads[scan.of_slice(scan.imaging, number)[0]] for number in numbers]
    head = heads[0 if is_volume else index]
    directions = np.stack([np.asarray(head[key], float) for key in ("read_dir", "phase_dir", "slice_dir")], axis=1)
    position = np.asarray(head["position"], float)
    affine = np.eye(4)
    known = np.isfinite(directions).all() and np.isfinite(position).all()
    if not known or not np.allclose(directions.T @ directions, np.eye(3), atol=0.02):
        return unplaced_affine(*pixel, thickness, index), "field of view of the ISMRMRD header; orientation unknown"
    geometry = "position and directions of the ISMRMRD acquisitions"
    if is_volume:
        position = position + directions[:, 2] * thickness * (index - scan.cut(2) // 2)
    elif len(heads) > 1:
        heights = np.sort([np.asarray(h["position"], float) @ directions[:, 2] for h in heads])
        steps = np.diff(heights)
        if np.isfinite(steps).all() and steps.min() > 1e-3:
            thickness = float(np.median(steps))
        else:
            geometry = "directions of the ISMRMRD acquisitions; position of the slices unknown"
    directions, position = _LPS_TO_RAS @ directions, _LPS_TO_RAS @ position
    affine[:3, :3] = directions * [*pixel, thickness]
    affine[:3, 3] = position - affine[:3, :2] @ (np.asarray(shape) // 2)
    return affine, geometry
