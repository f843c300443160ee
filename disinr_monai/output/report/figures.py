"""The pictures of one case on the page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from disinr_monai.output.report import blocks
from disinr_monai.output.report.pixels import hot, pack, png, smaller, spacing_of, upright, windowed

THUMBNAIL, LONGEST_VOLUME_SIDE, LONGEST_SIDE = 96, 128, 512


def pictures_of(
    number: int,
    name: str,
    panels: Mapping[str, NDArray],
    reference: NDArray | None,
    affine: NDArray | None,
    window: tuple[float, float] | None,
    units: str,
    small: bool,
) -> tuple[str, str]:
    """Attributes of a row, and its controls and figures; see :meth:`disinr_monai.output.report.Report.add_case`.

    Args:
        number: of the case on the page.
        name: of the case.
        panels: images by title; the last is the result.
        reference: of the same shape, if there is one.
        affine: 4x4, RAS mm, or None.
        window: level and width, or None for the values' own.
        units: of the values.
        small: thumbnails without controls.
    """
    images = {title: upright(np.asarray(image, dtype=np.float32), affine) for title, image in panels.items()}
    result = list(images)[-1]
    if reference is not None:
        images["reference"] = upright(np.asarray(reference, dtype=np.float32), affine)
    is_volume = images[result].ndim == 3
    full_shape = images[result].shape
    longest = LONGEST_VOLUME_SIDE if is_volume else LONGEST_SIDE
    images = {title: smaller(image, longest) for title, image in images.items()}
    judge = images.get("reference", images[result])
    low, high = (float(f(judge)) for f in (np.min, np.max))
    low, high = min(low, float(images[result].min())), max(high, float(images[result].max()))
    high = high if high > low else low + 1.0
    if window is None:
        top = max(float(np.percentile(judge, 99.9)), low + 1e-3 * (high - low))
        window = (low + top) / 2, top - low
    level, width = window
    low, high = min(low, level - width / 2), max(high, level + width / 2)

    figures = []
    note = f"shown at {images[result].shape} of {full_shape} voxels" if images[result].shape != full_shape else ""
    for title, image in images.items():
        role = "result" if title == result else "reference" if title == "reference" else "image"
        still = _still(image, small)
        alt = f"{title} of {name}" + (", middle slice" if is_volume else "")
        data = "" if small else pack(image, low, high)
        picture, remark = png(windowed(still, level, width)), note if title == result else ""
        figures.append(blocks.figure(title, remark, alt, picture, role, still.shape, data))
    if reference is not None:
        still = _still(np.abs(images[result] - images["reference"]), small)
        alt = f"absolute error of {result} of {name}, white at a fifth of the window"
        figures.append(blocks.figure("error × 5", "", alt, png(hot(5 * still / width)), "error", still.shape))
    row = f'<div class="panels{" thumbnails" if small else ""}">{"".join(figures)}</div>'
    if small:
        return "", row
    shape = images[result].shape if is_volume else (1, *images[result].shape)
    sizes = [n * s for n, s in zip(full_shape, spacing_of(affine, len(full_shape)), strict=True)]
    extent = sizes if is_volume else [1.0, *sizes]
    attributes = (
        f' data-low="{low:.9g}" data-high="{high:.9g}" data-level="{level:.9g}" data-width="{width:.9g}" '
        f'data-shape="{",".join(map(str, shape))}" data-extent="{",".join(f"{v:.6g}" for v in extent)}" '
        f'data-units="{escape(units)}"'
    )
    return attributes, blocks.controls(number, low, high, window, units, is_volume) + row


def _still(image: NDArray, small: bool) -> NDArray:
    plane = image[image.shape[0] // 2] if image.ndim == 3 else image
    return smaller(plane, THUMBNAIL) if small else plane
