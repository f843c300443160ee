"""PNG pictures of results: grey panels side by side, the error map in colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from disinr_monai.files import atomic_path


def save_panels(
    path: str | Path,
    panels: Mapping[str, Tensor],
    reference: Tensor | None = None,
    affine: np.ndarray | None = None,
    top: float | None = None,
) -> None:
    """Save display images ``(1, H, W)`` side by side under their titles.

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
    FigureCanvasAgg(figure)
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


def _plane(image: Tensor, affine: np.ndarray | None) -> np.ndarray:
    """The (middle) plane of a display image, as a radiologist looks at it: anterior or head up, patient's right left.

    Without an affine the array is shown as it is stored.
    """
    array = np.asarray(image.detach().cpu().float())[0]
    if array.ndim == 3:
        array = array[:, :, array.shape[2] // 2]
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
