"""PNG pictures of results: grey panels side by side, the error map in colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from disinr_monai.output.orientation import radiological
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
    """A display image in radiological orientation; of a volume its three middle planes, one below the other, in mm.

    Without an affine a slice is shown as it is stored, and the last axis of a volume is taken to point to the head.
    """
    array = np.asarray(image.detach().cpu().float())[0]
    if array.ndim == 3:
        return _three_planes(*radiological(array, np.eye(4) if affine is None else affine))
    return array if affine is None else radiological(array, affine)[0]


def _three_planes(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The middle axial, coronal and sagittal plane, with square pixels of the smallest voxel side, on a grey ground."""
    from scipy.ndimage import zoom

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    planes = []
    for axis in range(3):
        plane = np.take(volume, volume.shape[axis] // 2, axis=axis)
        plane = plane if axis == 0 else plane[::-1]  # seen from the front and the side the head is up
        rest = [other for other in range(3) if other != axis]
        factors = [min(spacing[a] / spacing.min(), 4096 / volume.shape[a]) for a in rest]
        planes.append(zoom(plane, factors, order=1, grid_mode=True, mode="nearest"))
    width = max(plane.shape[1] for plane in planes)
    gap = max(width // 64, 2)
    padded = []
    for plane in planes:
        left = (width - plane.shape[1]) // 2
        padded.append(np.pad(plane, ((0, gap), (left, width - plane.shape[1] - left)), constant_values=0.25))
    return np.concatenate(padded)[:-gap]
