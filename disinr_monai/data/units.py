r"""Image units of CT: :math:`x = (\mathrm{HU} + 1000) / 1200`.

Air is 0 and attenuation is :math:`μ = 0.024\, x` per mm, so that water (HU 0) has 0.02 per mm. The reference window,
HU -800 to 400, is :math:`x - 1/6` in 0 to 1.
"""

from __future__ import annotations

from typing import TypeVar

Array = TypeVar("Array")

HU_AIR = -1000.0
HU_RANGE = 1200.0
CT_ATTENUATION = 0.024
"""Attenuation in 1/mm where the image is 1."""
CT_WINDOW_LOW = 1 / 6
"""Image value that is 0 in references and metrics, HU -800."""


def hu_to_image(hu: Array) -> Array:
    """Hounsfield units to image units, ``(HU + 1000) / 1200``; array or tensor of any shape, nothing is clipped."""
    return (hu - HU_AIR) / HU_RANGE


def image_to_hu(image: Array) -> Array:
    """Image units to Hounsfield units, ``1200 x - 1000``."""
    return image * HU_RANGE + HU_AIR
