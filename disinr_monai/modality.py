"""Properties of the modalities outside their physics: one entry of :data:`MODALITIES` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from disinr_monai.errors import InputError


@dataclass(frozen=True)
class Modality:
    """Facts of one modality that reading, showing and saving share.

    Attributes:
        dicom: DICOM's name of it, or several.
        display: network image ``(C, *S)`` and a case's ``image_scale`` to the real image ``(1, *S)`` that is shown and
            compared.
        physical: network image ``(C, *S)`` and scale to what is saved, ``S``.
        units: of what is saved.
        white: display value shown white; None for the image's own maximum where there is no reference.
        companion: ending of the names of NIfTI files that belong to another file and are no scans.
        whole: a volume is one case (otherwise each of its slices is one).
    """

    dicom: str | tuple[str, ...] | None
    display: Callable[[Tensor, float], Tensor]
    physical: Callable[[Tensor, float], Tensor]
    units: str
    white: float | None = None
    companion: str | None = None
    whole: bool = False

    @property
    def dicom_names(self) -> str:
        """:attr:`dicom` for messages."""
        return self.dicom if isinstance(self.dicom, str) else " or ".join(self.dicom or ())

    def takes_dicom(self, name: str | None) -> bool:
        """Tell whether DICOM images of a modality are this one's; any if :attr:`dicom` is None."""
        return self.dicom is None or name in ((self.dicom,) if isinstance(self.dicom, str) else self.dicom)


def _window(image: Tensor, scale: float) -> Tensor:
    return (image * scale - CT_WINDOW_LOW).clamp(0, 1)


def _magnitude(image: Tensor, scale: float) -> Tensor:
    return torch.linalg.vector_norm(image, dim=0, keepdim=True) * scale


def _not_negative(image: Tensor, scale: float) -> Tensor:
    return image.clamp(min=0) * scale


def _hounsfield(image: Tensor, scale: float) -> Tensor:
    return image_to_hu(image[0])


MODALITIES: dict[str, Modality] = {
    "mri": Modality(
        dicom="MR", display=_magnitude, physical=lambda image, scale: _magnitude(image, scale)[0], units="source"
    ),
    "ct": Modality(dicom="CT", display=_window, physical=_hounsfield, units="HU", white=1.0),
    "volume": Modality(
        dicom=("CT", "MR"),
        display=lambda image, scale: image[:1] * scale,
        physical=lambda image, scale: image[0] * scale,
        units="HU or source",
        white=1.0,
        whole=True,
    ),
    # The network's image counts as max(x, 0): see PoissonLoss.
    "pet": Modality(
        dicom="PT",
        display=_not_negative,
        physical=lambda image, scale: _not_negative(image, scale)[0],
        units="source",
        companion="_mumap",
    ),
}

# A modality of the user's own that needs no more than its operator: shown and saved as it is.
_PLAIN = Modality(
    dicom=None,
    display=lambda image, scale: image * scale,
    physical=lambda image, scale: image[0] * scale,
    units="source",
)


def facts_of(name: str) -> Modality:
    """The entry of a modality; an unlisted one is shown and saved as it is."""
    return MODALITIES.get(name, _PLAIN)


def modality_of(name: str) -> Modality:
    """The entry of a modality.

    Raises:
        InputError: there is none of that name.
    """
    if name not in MODALITIES:
        raise InputError(f"modality: expected one of {sorted(MODALITIES)}, found {name!r}")
    return MODALITIES[name]


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


def image_attenuation(water: float) -> float:
    """Attenuation where the image is 1 (HU 200), in the unit of water's."""
    return HU_RANGE / 1000 * water
