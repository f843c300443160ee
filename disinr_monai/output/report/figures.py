"""Pictures of one case in the report."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from disinr_monai.output.orientation import radiological
from disinr_monai.output.report import blocks
from disinr_monai.output.report.pixels import hot, pack, png, smaller, windowed

LONGEST_VOLUME_SIDE, LONGEST_SIDE = 128, 512


def pictures_of(
    number: int, name: str, panels: Mapping[str, NDArray], reference: NDArray | None, affine: NDArray | None, units: str
) -> tuple[str, str]:
    """Attributes of the row of case ``number``, and its controls and figures.

    The arguments are those of :meth:`disinr_monai.output.report.Report.add_case`.
    """
    result = list(panels)[-1]
    full = {**panels} if reference is None else {**panels, "reference": reference}
    turned = {title: _turned(np.asarray(image, dtype=np.float32), affine) for title, image in full.items()}
    full_shape, spacing = turned[result][0].shape, turned[result][1]
    is_volume = len(full_shape) == 3
    longest = LONGEST_VOLUME_SIDE if is_volume else LONGEST_SIDE
    images = {title: smaller(image, longest) for title, (image, _) in turned.items()}
    judge = images.get("reference", images[result])
    low, high = float(min(judge.min(), images[result].min())), float(max(judge.max(), images[result].max()))
    high = high if high > low else low + 1.0
    top = max(float(np.percentile(judge, 99.9)), low + 1e-3 * (high - low))
    level, width = window = blocks.CT_WINDOWS["whole range"] if units == "HU" else ((low + top) / 2, top - low)
    low, high = min(low, level - width / 2), max(high, level + width / 2)

    figures = []
    note = f"shown at {images[result].shape} of {full_shape} voxels" if images[result].shape != full_shape else ""
    for title, image in images.items():
        role = "result" if title == result else "reference" if title == "reference" else "image"
        alt = f"{title} of {name}" + (", middle slice" if is_volume else "")
        still, remark = _middle(image), note if title == result else ""
        picture, pixels = png(windowed(still, level, width)), pack(image, low, high)
        figures.append(blocks.figure(title, remark, alt, picture, role, still.shape, pixels))
    if reference is not None:
        still = _middle(np.abs(images[result] - images["reference"]))
        alt = f"absolute error of {result} of {name}, white at a fifth of the window"
        figures.append(blocks.figure("error × 5", "", alt, png(hot(5 * still / width)), "error", still.shape))
    shape = images[result].shape if is_volume else (1, *images[result].shape)
    sizes = [n * s for n, s in zip(full_shape, spacing, strict=True)]
    extent = sizes if is_volume else [1.0, *sizes]
    attributes = (
        f' data-low="{low:.9g}" data-high="{high:.9g}" data-level="{level:.9g}" data-width="{width:.9g}" '
        f'data-shape="{",".join(map(str, shape))}" data-extent="{",".join(f"{v:.6g}" for v in extent)}" '
        f'data-units="{escape(units)}"'
    )
    row = f'<div class="panels">{"".join(figures)}</div>'
    return attributes, blocks.controls(number, low, high, window, units, is_volume) + row


def _turned(image: NDArray, affine: NDArray | None) -> tuple[NDArray, NDArray]:
    """An image in radiological orientation, and its voxel size in mm (1 where the position is not known)."""
    if affine is None:
        return (image if image.ndim == 2 else np.moveaxis(image, 2, 0)), np.ones(image.ndim)
    image, affine = radiological(image, affine)
    return image, np.linalg.norm(affine[:3, : image.ndim], axis=0)


def _middle(image: NDArray) -> NDArray:
    return image[image.shape[0] // 2] if image.ndim == 3 else image
