from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.transforms import Transform
from numpy.typing import NDArray

from disinr_monai.data.case import case_label
from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.resample import pad_to_square, resample_slice
from disinr_monai.errors import InputError


class AcquireProjections(Transform):
    """Acquisition by projections (CT, PET): images are measured by simulation, sinogram files taken as they are."""

    image_size: int
    # Name for messages, and value outside the image.
    modality: str
    outside: float

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a listed case into a measured one.

        Raises:
            InputError: anything that the readers refuse, or a geometry that cannot be.
        """
        try:
            return self._simulated(case) if reader_of(case).kind == "image" else self._measured(case)
        except InputError:
            raise
        except ValueError as error:
            message = f"{case_label(case)}: this {self.modality} geometry cannot be measured: {error}"
            raise InputError(message) from error

    @abstractmethod
    def _measured(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case of a sinogram file."""

    @abstractmethod
    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case of an image."""

    def _fine_image(self, image: NDArray, affine: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Square image on a whole multiple (2 or more) of the reconstruction grid, so that it is no inverse crime."""
        square, affine = pad_to_square(image, affine, self.outside)
        factor = max(2, round(len(square) / self.image_size))
        return resample_slice(square, affine, factor * self.image_size, fill=self.outside)
