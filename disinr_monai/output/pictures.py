"""PNG pictures of results: grey panels side by side, the error map in colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from disinr_monai.runtime.files import atomic_path


def save_panels(
    path: str | Path,
    panels: Mapping[str, Tensor],
    reference: Tensor | None = None,
    affine: np.ndarray | None = None,
    top: float | None = None,
) -> None:
    """Save display images ``(1, H, W)``, or volumes ``(1, X, Y, Z)``, side by side under their titles.

    Args:
        path: PNG to write.
        panels: title to image; shown from 0 to ``top``.
        reference: if given, shown after the panels, with the error map of the last panel five-fold amplified.
        affine: 4x4 affine (RAS mm) for the radiological view; None shows the arrays as stored.
        top: grey value shown white; default 1, or the 99.9th percentile of the last panel without a reference.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {title: _plane(image, affine) for title, image in panels.items()}
    last = list(shown.values())[-1]
    if top is None:
        top = 1.0 if reference is not None else max(float(np.percentile(last, 99.9)), 1e-12)
    extra = {} if reference is None else {"reference": _plane(reference, affine), "error × 5": None}
    n_panels = len(shown) + len(extra)
    height = 3.4 * last.shape[0] / last.shape[1]
    figure = Figure(figsize=(3.4 * n_panels, height + 0.35), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    for axis, (title, image) in zip(axes, {**shown, **extra}.items(), strict=True):
        if image is None:
            axis.imshow(np.abs(last - extra["reference"]) * 5, cmap="inferno", vmin=0, vmax=top)
        else:
            axis.imshow(image, cmap="gray", vmin=0, vmax=top)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.subplots_adjust(left=0, right=1, bottom=0, top=height / (height + 0.35), wspace=0.02)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    # A figure refers to itself: its pixels would wait for the garbage collector, some megabytes a scan.
    figure.clear()
    canvas.renderer = None


def _plane(image: Tensor, affine: np.ndarray | None) -> np.ndarray:
    """A display image as a radiologist looks at it: anterior or head up, patient's right left.

    A volume is shown by its three middle planes, one below the other, in millimetres. Without an affine the array is
    shown as it is stored.
    """
    array = np.asarray(image.detach().cpu().float())[0]
    return _slice(array, affine) if array.ndim == 2 else _three_planes(array, affine)


def _slice(array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    if affine is None:
        return array
    from nibabel.orientations import io_orientation

    world, sign = io_orientation(affine)[:2].T.astype(int)  # which patient axis (R, A, S) each array axis follows
    if world[0] < world[1]:  # the lower one (R before A before S) runs along the picture's columns
        array, world, sign = array.T, world[::-1], sign[::-1]
    if sign[0] > 0:  # rows: towards anterior or the head is up
        array = array[::-1]
    if sign[1] > 0:  # columns: towards the patient's right (or anterior) is left
        array = array[:, ::-1]
    return array


def _three_planes(array: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    """The middle axial, coronal and sagittal plane, with square pixels of the smallest voxel side, on a grey ground."""
    from nibabel.orientations import io_orientation
    from scipy.ndimage import zoom

    geometry = np.eye(4) if affine is None else affine
    spacing = np.linalg.norm(geometry[:3, :3], axis=0)
    across = np.argsort(io_orientation(geometry)[:, 0])[::-1]  # array axes along S (axial), A (coronal), R (sagittal)
    planes = []
    for axis in across:
        rest = [other for other in range(3) if other != axis]
        plane = np.take(array, array.shape[axis] // 2, axis=axis)
        factors = [min(spacing[a] / spacing.min(), 4096 / array.shape[a]) for a in rest]
        plane = zoom(plane, factors, order=1, grid_mode=True, mode="nearest")
        # Without an affine the last array axis is taken to point to the head.
        planes.append(_slice(plane, geometry[:, [*rest, axis, 3]]))
    width = max(plane.shape[1] for plane in planes)
    gap = max(width // 64, 2)
    ground = np.full((sum(plane.shape[0] for plane in planes) + gap * 2, width), 0.25, dtype=np.float32)
    top = 0
    for plane in planes:
        left = (width - plane.shape[1]) // 2
        ground[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
        top += plane.shape[0] + gap
    return ground
